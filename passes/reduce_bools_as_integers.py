"""Reduce booleans as integers, for targets whose reductions take none.    ReduceMax(b) ==> Cast(ReduceMax(Cast(b)))

`any` and `all` are the largest and the smallest of some booleans, which ONNX admits from opset 20 on and TensorRT's
reductions do not take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.transform import Pass, Rewriter

__all__ = ["ReduceBoolsAsIntegers"]


@dataclass(frozen=True)
class ReduceBoolsAsIntegers(Pass):
    """Compute ReduceMax and ReduceMin of booleans in int32."""

    name: ClassVar[str] = "reduce-bools-as-integers"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Put a cast in front of every such node, and one behind it."""
        for node in list(graph.all_nodes()):
            value = node.inputs[0] if node.inputs else None
            if node.domain or node.op_type not in ("ReduceMax", "ReduceMin") or value is None:
                continue
            if value.dtype != ir.DataType.BOOL:
                continue
            op = rewriter.builder(node)
            numbers = op.Cast(value, to=ir.DataType.INT32)
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            reduced = op.node(node.op_type, [numbers, *node.inputs[1:]], **attributes)
            rewriter.replace(node, [op.Cast(reduced, to=ir.DataType.BOOL)])
