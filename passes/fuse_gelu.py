"""Raise Gelu from its parts.    0.5 x (1 + erf(x / sqrt(2))) ==> Gelu(x), and the same with tanh"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule

__all__ = ["FuseGelu"]


@dataclass(frozen=True)
class FuseGelu(Pass):
    """Both forms, in the orders in which exporters write them."""

    name: ClassVar[str] = "fuse-gelu"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Raise them in the graph and its bodies."""
        rewriter.apply(_RULES, graph)


class Gelu(Rule):
    """0.5 * x * (1 + f(x))"""

    def __init__(self, inner: str, order: str) -> None:
        self.inner = inner
        self.order = order

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"Gelu_{self.inner}_{self.order}"

    def pattern(self, op: Any, x: Any) -> Any:
        gate = op.Add(self._inner(op, x), 1, _name="gate")
        if self.order == "last":
            return op.Mul(op.Mul(x, gate, _name="gated"), 0.5, _name="half")
        if self.order == "first":
            return op.Mul(op.Mul(x, 0.5, _name="half"), gate, _name="gated")
        return op.Mul(x, op.Mul(gate, 0.5, _name="half"), _name="gated")

    def _inner(self, op: Any, x: Any) -> Any:
        if self.inner == "div":
            return op.Erf(op.Div(x, math.sqrt(2)))
        if self.inner == "mul":
            return op.Erf(op.Mul(x, math.sqrt(0.5), _name="scaled"))
        cube = op.Pow(x, 3) if self.inner == "pow" else op.Mul(op.Mul(x, x, _name="square"), x, _name="cube")
        inner = op.Add(x, op.Mul(cube, 0.044715, _name="term"), _name="sum")
        return op.Tanh(op.Mul(inner, math.sqrt(2 / math.pi), _name="scaled"))

    def check(self, m: Match) -> Match | NoMatch:
        # Of the floats, ONNX's Gelu has no integers and ONNX Runtime no doubles.
        if m.x.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            return m.no(f"Gelu is not computed in {m.x.dtype} everywhere")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        return op.Gelu(m.x, approximate=None if self.inner in ("div", "mul") else "tanh")


_RULES = tuple(Gelu(inner, order) for inner in ("div", "mul", "pow", "cube") for order in ("last", "first", "middle"))
