"""One model at every opset: captured once, copies of its canonical form lowered, checked, run beside eager."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from graphforge.opsets.matrix import Cell, State, as_delivered, opset_matrix
from graphforge.opsets.prove import Proof, prove_opset, remembering
from graphforge.prepare import example_feeds, prepare, reference_runner, to_canonical, to_ir
from graphforge.spec import DimRange

__all__ = ["Entry", "Made", "Row", "run_matrix"]

Made = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: as listed.
        make: (module, args, kwargs).
        dynamic: input name -> axis -> (low, high), or a range whose name ties it to others.
        outputs, nms: as ``compile`` takes them.
    """

    name: str
    make: Callable[[], Made]
    dynamic: Mapping[str, Mapping[int, DimRange | tuple[int, ...]]] = field(default_factory=dict)
    outputs: str | None = None
    nms: str | None = None


@dataclass(frozen=True)
class Row:
    """One model at every opset.

    Attributes:
        name: the model.
        cells: what each opset can do for it.
        proofs: what came of running the legal ones.
        seconds: how long it took, capture included.
    """

    name: str
    cells: tuple[Cell, ...]
    proofs: tuple[Proof, ...]
    seconds: float

    def mark(self, cell: Cell) -> str:
        """How the cell shows in the matrix."""
        proof = next((proof for proof in self.proofs if proof.opset == cell.opset), None)
        if proof is None:
            return "no"
        return {True: "=" if cell.state is State.AS_IT_STANDS else "ok", None: "not run", False: "WRONG"}[proof.passed]

    def reasons(self) -> Iterator[str]:
        """One line for each thing in the way, and for each cell that was not run or went wrong."""
        for item in dict.fromkeys(item for cell in self.cells for item in cell.obstructions):
            cure = f"; {item.cure}" if item.cure else ""
            yield f"{self.name}: below {item.lowest}: {item.operator} {item.place}: {item.reason}{cure}"
        for proof in self.proofs:
            if proof.reason:
                yield f"{self.name}: opset {proof.opset}: {proof.reason}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        proofs = {proof.opset: proof.to_dict() for proof in self.proofs}
        return {
            "model": self.name,
            "seconds": round(self.seconds, 1),
            "cells": [
                {
                    "opset": cell.opset,
                    "state": cell.state.value,
                    "nodes": sum(used.count for used in cell.operators.values()),
                    "rewritten": {f"{rewrite.operator} to {rewrite.opset}": rewrite.how for rewrite in cell.rewrites},
                    "obstructions": [item.to_dict() for item in cell.obstructions],
                    "proof": proofs.get(cell.opset),
                }
                for cell in self.cells
            ],
        }


def run_matrix(entry: Entry, *, progress: Callable[[str], None] | None = None) -> Row:
    """Capture the model once, then deliver and run it at every opset that is legal for it."""
    started = time.perf_counter()
    module, args, kwargs = entry.make()
    prepared = prepare(module, args or None, kwargs=kwargs, dynamic_shapes=entry.dynamic)
    model, _ = to_ir(prepared)
    to_canonical(model)
    as_delivered(model, outputs=entry.outputs, nms=entry.nms)
    matrix = opset_matrix(model)
    reference, example = remembering(reference_runner(prepared)), example_feeds(prepared)
    proofs = []
    for cell in matrix.cells:
        if cell.state is State.IMPOSSIBLE:
            continue
        if progress is not None:
            progress(f"{entry.name} at opset {cell.opset}")
        proofs.append(prove_opset(model, cell.opset, reference, prepared.shapes, example))
    return Row(entry.name, matrix.cells, tuple(proofs), time.perf_counter() - started)
