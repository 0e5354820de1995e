"""Move a transpose behind a product of halves.    MatMul(Transpose(x: f16, p), w)  ==>  Transpose(MatMul(x, w), p)

ONNX Runtime (1.25 to 1.32) takes a transpose of the leading axes into the product and ends the process over it, when
the weight is a matrix and the elements are float16 (a multi-head attention in float16 is enough), or a Cast to any
type stands between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graphforge.ir import DataType, Graph
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule, ints_attribute, rank_of

__all__ = ["MoveTransposeBehindMatmul"]


@dataclass(frozen=True)
class MoveTransposeBehindMatmul(Pass):
    """Where the runtime ends over it only: elsewhere it is better off with the transpose in front."""

    name: ClassVar[str] = "move-transpose-behind-matmul"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Move them in the graph and its bodies."""
        for rule in _RULES:
            rewriter.apply(rule, graph)


class TransposeMatMul(Rule):
    """Others may read the transpose: it stays for them, and each product gets one of its own."""

    allow_shared = True

    def pattern(self, op: Any, x: Any, w: Any) -> Any:
        return op.MatMul(op.Transpose(x, _name="before"), w)

    def check(self, m: Match) -> Match | NoMatch:
        if m.x.dtype != DataType.FLOAT16:
            return m.no(f"only float16 ends the process, this is {m.x.dtype}")
        return _taken_in(m)

    def rewrite(self, op: Any, m: Match) -> Any:
        return _behind(op, m.x, m)


class TransposeCastMatMul(Rule):
    """The same with a Cast between the two, whatever it makes of what."""

    allow_shared = True

    def pattern(self, op: Any, x: Any, w: Any) -> Any:
        return op.MatMul(op.Cast(op.Transpose(x, _name="before"), _name="cast"), w)

    def check(self, m: Match) -> Match | NoMatch:
        return _taken_in(m)

    def rewrite(self, op: Any, m: Match) -> Any:
        return _behind(op, op.Cast(m.x, to=m.w.dtype), m)


_RULES = (TransposeCastMatMul(), TransposeMatMul())


def _taken_in(m: Match) -> Match | NoMatch:
    if rank_of(m.w) != 2 or m.w.const_value is None:
        return m.no("the right operand is not a matrix of constants")
    perm = ints_attribute(m.before, "perm")
    if perm is None or not _is_taken_in(perm):
        return m.no("the runtime does not take this transpose into the product")
    return m.having(perm=tuple(perm))


def _behind(op: Any, x: Any, m: Match) -> Any:
    first, behind = _parted(m.perm)
    product = op.MatMul(x if first == tuple(range(len(first))) else op.Transpose(x, perm=first), m.w)
    return op.Transpose(product, perm=behind)


def _is_taken_in(perm: Sequence[int]) -> bool:
    """Whether the first axis goes to the last place but one, or the last, and the others keep their order."""
    rank = len(perm)
    rest = [axis for axis in perm if axis != 0]
    return rank >= 3 and rest == sorted(rest) and 0 in perm[-2:]


def _parted(perm: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """One permutation in front of the product, which is not taken in, and one behind it, which moves no column."""
    rank, columns = len(perm), perm[-1]
    if columns == 0:
        first = (rank - 1, *range(1, rank - 1), 0)
    else:
        first = (*(axis for axis in range(rank) if axis != columns), columns)
    return first, tuple(first.index(axis) for axis in perm)
