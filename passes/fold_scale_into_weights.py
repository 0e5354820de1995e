"""Fold constant factors and summands into weights.    conv(x, w) * 2 + b ==> conv(x, 2 w, b)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph, Node, Value, constant_of, nodes_of, origins_of, set_origins
from graphforge.passes._linear import Linear, channel_vector, linear_of, rebuild
from graphforge.transform import (
    Match,
    NoMatch,
    Pass,
    Rewriter,
    Rule,
    has_one_use,
    is_constant,
    is_op,
    rank_of,
    scalar_of,
)

__all__ = ["FoldScaleIntoWeights"]

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
# How far up a factor travels in search of a weight.
_FAR = 8


@dataclass(frozen=True)
class FoldScaleIntoWeights(Pass):
    """Per-channel constants right after a linear operator, and scalar factors with only linear operators in between."""

    name: ClassVar[str] = "fold-scale-into-weights"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Fold them in the graph and its bodies."""
        rewriter.apply(_RULES, graph)
        for node in list(nodes_of(graph)):
            if is_op(node, "Mul", "Div") and node.graph is not None:
                _travel(node, rewriter)


class LinearThen(Rule):
    """linear(x, w) * c, / c, + c, - c"""

    def __init__(self, linear: str, then: str) -> None:
        self.linear = linear
        self.then = then

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"{self.linear}{self.then}"

    def pattern(self, op: Any, x: Any, w: Any, c: Any) -> Any:
        return op.node(self.then, op.node(self.linear, x, w, ..., _name="linear"), c, _name="then")

    def check(self, m: Match) -> Match | NoMatch:
        linear = linear_of(m.linear)
        if isinstance(linear, str):
            return m.no(linear, m.linear)
        if self.then in ("Add", "Sub") and not linear.takes_bias:
            return m.no("MatMul has no bias")
        vector = channel_vector(m.c, rank_of(m.linear.outputs[0]), linear.axis, linear.channels)
        if isinstance(vector, str):
            return m.no(vector)
        if self.then == "Div":
            if not vector.all():
                return m.no("a division by zero")
            vector = 1 / vector
        return m.having(parts=linear, vector=-vector if self.then == "Sub" else vector)

    def rewrite(self, op: Any, m: Match) -> Any:
        linear: Linear = m.parts
        if self.then in ("Mul", "Div"):
            return rebuild(op, linear, m.vector, None)
        return rebuild(op, linear, None, m.vector)


class MatMulAddMul(Rule):
    """(matmul(x, w) + b) * c ==> matmul(x, w c) + b c"""

    def pattern(self, op: Any, x: Any, w: Any, b: Any, c: Any) -> Any:
        return op.Mul(op.Add(op.MatMul(x, w), b), c)

    def check(self, m: Match) -> Match | NoMatch:
        linear = linear_of(m.matmul)
        if isinstance(linear, str):
            return m.no(linear, m.matmul)
        rank = rank_of(m.matmul.outputs[0])
        factor = channel_vector(m.c, rank, linear.axis, linear.channels)
        summand = channel_vector(m.b, rank, linear.axis, linear.channels)
        for found in (factor, summand):
            if isinstance(found, str):
                return m.no(found)
        return m.having(parts=linear, factor=factor, summand=summand)

    def rewrite(self, op: Any, m: Match) -> Any:
        summand = (m.summand * m.factor).astype(m.w.dtype.numpy())
        return op.Add(rebuild(op, m.parts, m.factor, None), summand)


_RULES = (
    *(LinearThen(linear, then) for linear in _LINEAR for then in ("Mul", "Div", "Add", "Sub")),
    MatMulAddMul(),
)


def _travel(node: Node, rewriter: Rewriter) -> None:
    """Let a scalar factor travel up through operators that are linear, to a weight that takes it."""
    position, factor = _scalar_factor(node)
    source = node.inputs[position]
    if source is None or factor is None or source.dtype not in _FLOATS:
        return
    if node.outputs[0].is_graph_output() and source.producer() is None:
        return
    edits = _absorb(source, factor, rewriter, _FAR)
    if isinstance(edits, str):
        rewriter.declined(edits, node)
        return
    rewriter.rule_starts("TravellingFactor", [node])  # one rewrite: in its middle the factor is there twice
    for edit in edits:
        edit()
    scaled = node.inputs[position]  # a new value where the weight's own node was rebuilt
    assert scaled is not None
    rewriter.forget_fresh()
    rewriter.replace(node, scaled)
    rewriter.rule_ends(True)


def _scalar_factor(node: Node) -> tuple[int, float | None]:
    """Which input of a Mul or Div is scaled by a constant scalar, and by what; None when none is."""
    pairs = ((0, 1), (1, 0)) if node.op_type == "Mul" else ((0, 1),)
    for kept, constant in pairs:
        source, other = node.inputs[kept], node.inputs[constant]
        if source is None or other is None or is_constant(source) or not is_constant(other):
            continue
        number = scalar_of(other)
        rank = rank_of(source)
        if number is None or rank is None or (rank_of(other) or 0) > rank:
            continue
        if node.op_type == "Div":
            return kept, None if number == 0 else 1 / float(number)
        return kept, float(number)
    return 0, None


def _absorb(value: Value, factor: float, rewriter: Rewriter, far: int) -> list[Callable[[], None]] | str:
    """The edits that make ``value`` ``factor`` times as large; else the reason why there are none."""
    node = value.producer()
    if node is None or far == 0:
        return "no weight is near that could take the factor"
    if not has_one_use(value):
        return "a value between the factor and the weight is read elsewhere"
    if is_op(node, *_LINEAR):
        linear = linear_of(node)
        if not isinstance(linear, str):
            return [partial(_scale, linear, factor, rewriter)]
        if node.op_type == "MatMul":
            return _first(node, (0, 1), factor, rewriter, far)
        return linear
    if is_op(node, "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"):
        return _first(node, (0,), factor, rewriter, far)
    if is_op(node, "Add"):
        for kept, constant in ((0, 1), (1, 0)):
            source, other = node.inputs[kept], node.inputs[constant]
            if source is None or other is None or not is_constant(other):
                continue
            array = constant_of(other, limit=1 << 16)
            if array is None:
                continue
            above = _absorb(source, factor, rewriter, far - 1)
            if isinstance(above, str):
                return above
            scaled = (array.astype(np.float64) * factor).astype(array.dtype)
            return [*above, partial(_set_summand, node, constant, scaled, rewriter)]
    return f"{node.op_type} stands between the factor and the weight"


def _first(
    node: Node, positions: tuple[int, ...], factor: float, rewriter: Rewriter, far: int
) -> list[Callable[[], None]] | str:
    """Let the first input that can absorb the factor do so."""
    reason = ""
    for position in positions:
        source = node.inputs[position]
        if source is None:
            continue
        above = _absorb(source, factor, rewriter, far - 1)
        if not isinstance(above, str):
            return [*above, partial(_forget_value, node)]
        reason = reason or above
    return reason


def _scale(linear: Linear, factor: float, rewriter: Rewriter) -> None:
    node = linear.node
    rewriter.forget_fresh()
    op = rewriter.builder(node)
    for new in rewriter.replace(node, rebuild(op, linear, np.full((linear.channels,), factor), None)):
        _forget_value(new)


def _set_summand(node: Node, position: int, array: Any, rewriter: Rewriter) -> None:
    rewriter.set_input(node, position, rewriter.constant(array))
    _forget_value(node)


def _forget_value(node: Node) -> None:
    """The node computes something else now than the program's value it stood for."""
    set_origins(node, [replace(origin, value="") for origin in origins_of(node)])
