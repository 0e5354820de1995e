"""Toy passes and graphs for the tests of the framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphforge.ir import Graph, Model, from_text
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule

HEADER = '<ir_version: 10, opset_import: ["" : 26]>\n'


def parse(body: str) -> Model:
    """A model from the text after the header."""
    return from_text(HEADER + body)


class DoubleNeg(Rule):
    """neg(neg(x)) ==> x"""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Neg(op.Neg(x, _name="inner"), _name="outer")

    def rewrite(self, op: Any, m: Match) -> Any:
        return m.x


class AddZero(Rule):
    """x + 0 ==> x"""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Add(x, 0.0)

    def check(self, m: Match) -> Match | NoMatch:
        if m.x.shape is None:
            return m.no("the shape is unknown")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        return m.x


@dataclass(frozen=True)
class DropDoubleNeg(Pass):
    """Drop pairs of Neg."""

    name: ClassVar[str] = "drop-double-neg"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        rewriter.apply(DoubleNeg(), graph)


@dataclass(frozen=True)
class ReluToClip(Pass):
    """Replace Relu by Clip, for tests of options."""

    name: ClassVar[str] = "relu-to-clip"
    low: float = 0.0
    ops: tuple[str, ...] = ("Relu",)
    limit: int | None = None

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        for node in graph.all_nodes():
            if node.op_type in self.ops:
                rewriter.replace(node, rewriter.builder(node).Clip(node.inputs[0], self.low))


@dataclass(frozen=True)
class DirectEdit(Pass):
    """Edits the graph behind the rewriter's back."""

    name: ClassVar[str] = "direct-edit"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        for node in graph:
            if node.op_type == "Relu":
                node.op_type = "Sigmoid"
