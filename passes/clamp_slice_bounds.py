"""Clamp 64-bit Slice bounds to 32 bits.    Slice(x, [0], [2**63-1])   ==>   Slice(x, [0], [2**31-1])

"To the end" is written as the largest int64; a target that narrows 64-bit integers to 32 would read it as -1.
No dim is as long as 2**31, so the slice stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphforge.ir import Graph, constant_of
from graphforge.transform import Pass, Rewriter

__all__ = ["ClampSliceBounds"]

_INT32 = np.iinfo(np.int32)
# Slice(data, starts, ends, axes, steps): axes are small, the other three may be sentinels.
_BOUNDS = (1, 2, 4)


@dataclass(frozen=True)
class ClampSliceBounds(Pass):
    """Clamp 64-bit Slice bounds to 32 bits."""

    name: ClassVar[str] = "clamp-slice-bounds"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Give every Slice with such a bound a constant of its own; other users of the old one keep it."""
        for node in graph.all_nodes():
            if node.op_type != "Slice" or node.domain not in ("", "ai.onnx"):
                continue
            for index in _BOUNDS:
                value = node.inputs[index] if index < len(node.inputs) else None
                bounds = constant_of(value)
                if bounds is None or bounds.dtype != np.int64:
                    continue
                clamped = np.clip(bounds, _INT32.min, _INT32.max)
                if not np.array_equal(clamped, bounds):
                    rewriter.set_input(node, index, rewriter.constant(clamped))
