"""Merge transposes that follow each other.    transpose(transpose(x, p), q) ==> transpose(x, p[q]), or x"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphforge.ir import Graph
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule, ints_attribute, rank_of

__all__ = ["MergeTransposes"]


@dataclass(frozen=True)
class MergeTransposes(Pass):
    """Merge pairs until none is left; a transpose read by others as well stays for them."""

    name: ClassVar[str] = "merge-transposes"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge them in the graph and its bodies."""
        rewriter.apply(_RULE, graph)


class TransposeTranspose(Rule):
    """Two transposes in a row.  Others may read the first one: the second is never worse for reading its input."""

    allow_shared = True

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Transpose(op.Transpose(x, _name="first"), _name="second")

    def check(self, m: Match) -> Match | NoMatch:
        first, second = ints_attribute(m.first, "perm"), ints_attribute(m.second, "perm")
        if first is None or second is None:
            rank = rank_of(m.x)
            if rank is None:
                return m.no("a transpose without perm of a tensor of unknown rank")
            backwards = tuple(reversed(range(rank)))
            first, second = first or backwards, second or backwards
        return m.having(perm=tuple(first[axis] for axis in second))

    def rewrite(self, op: Any, m: Match) -> Any:
        if m.perm == tuple(range(len(m.perm))):
            return m.x
        return op.Transpose(m.x, perm=m.perm)


_RULE = TransposeTranspose()
