"""Take many of the largest in several turns.    TopK(x, 5000)  ==>  TopK(x, 3840), TopK(what is left, 1160)

What is left after a turn is gathered in the order of x, so that values, indices and the order of equal values are those
of one TopK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph, constant_of, nodes_of
from graphforge.transform import Pass, Rewriter, RewriterBuilder

__all__ = ["SplitTopK"]


@dataclass(frozen=True)
class SplitTopK(Pass):
    """Write each TopK of more than ``limit`` elements as several.

    Attributes:
        limit: how many one TopK may take; TensorRT's is 3,840.
    """

    name: ClassVar[str] = "split-top-k"
    limit: int = 3840

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Rewrite those whose number and axis are of a known size; the others stay."""
        for node in [one for one in nodes_of(graph) if one.op_type == "TopK" and one.domain == ""]:
            count, x = constant_of(node.inputs[1]), node.inputs[0]
            if count is None or x is None or x.shape is None:
                continue
            axis = node.attributes.get_int("axis", -1) % len(x.shape)
            size, wanted = x.shape[axis], int(count.reshape(-1)[0])
            if wanted > self.limit and isinstance(size, int):
                rewriter.replace(node, self._in_turns(rewriter.builder(node), node, x, axis, size, wanted))

    def _in_turns(
        self, op: RewriterBuilder, node: ir.Node, x: ir.Value, axis: int, size: int, wanted: int
    ) -> list[ir.Value]:
        largest, ordered = node.attributes.get_int("largest", 1), node.attributes.get_int("sorted", 1)
        values: list[ir.Value] = []
        indices: list[ir.Value] = []
        rest, places, left = x, None, size
        while wanted > 0:
            turn = min(wanted, self.limit)
            found, at = op.TopK(rest, [turn], axis=axis, largest=largest, sorted=ordered, _outputs=2)
            values.append(found)
            indices.append(at if places is None else op.GatherElements(places, at, axis=axis))
            wanted -= turn
            if wanted > 0:
                remaining = self._remaining(op, at, rest, axis, left, turn)
                places = remaining if places is None else op.GatherElements(places, remaining, axis=axis)
                rest = op.GatherElements(rest, remaining, axis=axis)
                left -= turn
        return [op.Concat(*values, axis=axis), op.Concat(*indices, axis=axis)]

    def _remaining(
        self, op: RewriterBuilder, taken: ir.Value, x: ir.Value, axis: int, left: int, turn: int
    ) -> ir.Value:
        """Indices of what was not taken, in order: every element goes to its place among these."""
        shape = op.Shape(x)
        along = [1] * (0 if x.shape is None else len(x.shape))
        along[axis] = left
        every = op.Expand(op.constant(np.arange(left, dtype=np.int64).reshape(along)), shape)
        free = op.Expand(op.constant(np.ones([1] * len(along), dtype=np.int64)), shape)
        free = op.ScatterElements(free, taken, op.Mul(taken, np.zeros(1, np.int64)), axis=axis)
        # those that were taken all go to one place more at the end, which is cut off
        place = op.Where(op.Equal(free, 1), op.Sub(op.CumSum(free, np.array(axis)), 1), left - turn)
        gathered = op.ScatterElements(op.Mul(every, np.zeros(1, np.int64)), place, every, axis=axis)
        cut: ir.Value = op.Slice(gathered, [0], [left - turn], [axis])
        return cut
