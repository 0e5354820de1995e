"""Move a transpose behind what does not mind the order.    t(x, p) * 2 -> t(., q)   ==>   x * 2 -> t(., p) -> t(., q)

Two transposes that one elementwise operator keeps apart then stand together, and ``merge-transposes`` makes them one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, Node, Value
from graphforge.transform import Pass, Rewriter, bodies_of, has_one_use, ints_attribute, is_constant, is_op

__all__ = ["SinkTransposes"]

_UNARY = frozenset(
    "Relu Sigmoid Tanh Gelu Exp Log Sqrt Neg Abs Erf HardSigmoid HardSwish Swish Mish Elu LeakyRelu Softplus Cast "
    "Reciprocal Floor Ceil Not Clip".split()
)
_BINARY = frozenset("Add Sub Mul Div Pow Min Max".split())


@dataclass(frozen=True)
class SinkTransposes(Pass):
    """Only between two transposes, and only past unary operators or those whose other operand is one number."""

    name: ClassVar[str] = "sink-transposes"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Move them in the graph and its bodies."""
        for node in graph:
            for body in bodies_of(node):
                self.run(body, rewriter)
            if is_op(node, "Transpose"):
                _sink(node, rewriter)


def _sink(second: Node, rewriter: Rewriter) -> None:
    between = _producer(second.inputs[0])
    if between is None or between.graph is not second.graph or between.domain != "":
        return
    position = _moving_operand(between)
    if position is None:
        return
    first = _producer(between.inputs[position])
    if first is None or not is_op(first, "Transpose") or first.graph is not second.graph:
        return
    if not has_one_use(first.outputs[0]) or not has_one_use(between.outputs[0]):
        rewriter.declined("the transpose or what follows it is read by others too", second)
        return
    perm = ints_attribute(first, "perm")
    if perm is None:
        rewriter.declined("the first transpose has no perm", second)
        return
    op = rewriter.builder(between)
    operands = list(between.inputs)
    operands[position] = first.inputs[0]
    attributes = {attribute.name: attribute.value for attribute in between.attributes.values()}
    moved = op.node(between.op_type, operands, **attributes)
    rewriter.replace([between, first], op.Transpose(moved, perm=perm))


def _producer(value: Value | None) -> Node | None:
    return None if value is None else value.producer()


def _moving_operand(node: Node) -> int | None:
    """Which operand the order of axes travels through; None when the operator minds the order."""
    if len(node.outputs) != 1:
        return None
    if node.op_type in _UNARY:
        return 0
    if node.op_type not in _BINARY or len(node.inputs) != 2:
        return None
    for position, other in ((0, node.inputs[1]), (1, node.inputs[0])):
        tensor = None if other is None or not is_constant(other) else other.const_value
        if tensor is not None and tensor.size == 1 and len(tensor.shape) <= 1:
            return position
    return None
