"""What capture hands to lowering: a graph of ATen calls with fake values, its weights, and how it was obtained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from graphforge.ir.images import Images
from graphforge.spec import ShapeSpec

__all__ = ["SIZES_TO_TRY", "Captured"]

# Where a lowered model keeps ``Captured.to_try`` for verification.
SIZES_TO_TRY = "graphforge.sizes_to_try"


@dataclass(slots=True)
class Captured:
    """A captured program.

    Attributes:
        graph_module: the FX graph of ATen calls; every node's ``meta["val"]`` is its fake result.
        input_names: FX placeholder name -> input name, for tensor inputs, in call order.
        weights: FX placeholder or attribute name -> (qualified name in the model, tensor), never copied.
        constants: FX placeholder name -> Python constant fed to it.
        output_names: names of the tensor outputs, in the order of the graph's output (None: not a user output).
        shapes: the shape spec in terms of ``input_names``.
        symbols: sympy symbol of a size -> the user's dim name.
        method: ``export``, ``export-strict``, ``fx`` or ``trace``.
        failures: why the methods tried before failed, one text each.
        notes: what the user should know about the capture.
        program: the ExportedProgram, when there is one.
        substitutions: functions that others took the place of, and how often each was called.
        to_try: sizes (of some dims; the others at the example's) where only a run of the model tells whether the
            program holds.
        doubts: what it took for granted of sizes and is false at a few promised ones, where program and model are to be
            compared (errors that say so).
        feeds_to_try: tensors by input name where the same is true, and agrees in PyTorch.
        images: the batch of which the program computes one image; None where it computes what the model does.
    """

    graph_module: torch.fx.GraphModule
    input_names: dict[str, str]
    weights: dict[str, tuple[str, torch.Tensor]]
    constants: dict[str, Any]
    output_names: list[str | None]
    shapes: ShapeSpec
    symbols: Mapping[Any, str]
    method: str
    failures: dict[str, str] = field(default_factory=dict)
    program: torch.export.ExportedProgram | None = None
    notes: list[str] = field(default_factory=list)
    substitutions: list[dict[str, Any]] = field(default_factory=list)
    to_try: list[dict[str, int]] = field(default_factory=list)
    doubts: list[Any] = field(default_factory=list)
    feeds_to_try: list[dict[str, torch.Tensor]] = field(default_factory=list)
    images: Images | None = None
