"""Move DequantizeLinear behind what only moves elements.    reshape(dequantize(q))   ==>   dequantize(reshape(q))

ONNX Runtime repeats the quantisation behind such an operator, with a zero point of the wrong type when it is not uint8,
and refuses the file that it made so (opset 21 and later).  Integers are moved as exactly as what they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.ir import Graph, Node, bodies_of
from graphforge.transform import Pass, Rewriter, is_op

__all__ = ["SinkDequantize"]

_MOVERS = frozenset("Reshape Transpose Squeeze Unsqueeze Slice MaxPool".split())


@dataclass(frozen=True)
class SinkDequantize(Pass):
    """Only with one scale for the whole tensor: others go by axis."""

    name: ClassVar[str] = "sink-dequantize"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Move them in the graph and its bodies."""
        for node in graph:
            for body in bodies_of(node):
                self.run(body, rewriter)
            if node.domain == "" and node.op_type in _MOVERS and len(node.outputs) == 1:
                _sink(node, rewriter)


def _sink(mover: Node, rewriter: Rewriter) -> None:
    moved = mover.inputs[0]
    dequantize = None if moved is None else moved.producer()
    if dequantize is None or not is_op(dequantize, "DequantizeLinear") or dequantize.graph is not mover.graph:
        return
    quantized, scale, *zero_point = dequantize.inputs
    if quantized is None or scale is None or quantized.dtype in (None, ir.DataType.UINT8):
        return
    if quantized.dtype != ir.DataType.INT8 and mover.op_type == "MaxPool":
        rewriter.declined("MaxPool takes no such integers", mover)
        return
    if scale.shape is None or len(scale.shape) != 0:
        rewriter.declined("each slice has a scale of its own", mover)
        return
    op = rewriter.builder(mover)
    attributes = {attribute.name: attribute.value for attribute in mover.attributes.values()}
    integers = op.node(mover.op_type, [quantized, *mover.inputs[1:]], **attributes)
    kept = {attribute.name: attribute.value for attribute in dequantize.attributes.values()}
    rewriter.replace(mover, op.node("DequantizeLinear", [integers, scale, *zero_point], **kept))
