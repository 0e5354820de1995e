"""Merge constants that follow each other.    (x * a) * b ==> x * (a b),   (x + a) - b ==> x + (a - b)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph, Node, Value, constant_of
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule, is_constant

__all__ = ["MergeConstants"]

# Constants above this are weights; those fold elsewhere or stay.
_LIMIT = 1 << 16
# Between two such factors a float32 can overflow or lose digits that the merged factor would keep.
_EXTREME = 2.0**32
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class MergeConstants(Pass):
    """Factors with factors and summands with summands; computed in double precision, of floats only."""

    name: ClassVar[str] = "merge-constants"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge them in the graph and its bodies."""
        rewriter.apply(_RULES, graph)


def _constant(node: Node) -> tuple[Value, np.ndarray] | str:
    """The other operand of a node with one constant, and the constant (1 / c of a Div, -c of a Sub); else why not."""
    for kept, place in ((0, 1), (1, 0)) if node.op_type in ("Add", "Mul") else ((0, 1),):
        source, other = node.inputs[kept], node.inputs[place]
        if source is None or other is None or is_constant(source) or not is_constant(other):
            continue
        if other.dtype not in _FLOATS:
            return f"constants of {other.dtype} are not merged"
        array = constant_of(other, limit=_LIMIT)
        if array is None:
            return f"the constant of {node.op_type} is large"
        wide = array.astype(np.float64)
        if node.op_type == "Div":
            if not wide.all():
                return "a division by zero"
            return source, 1 / wide
        return source, -wide if node.op_type == "Sub" else wide
    return f"{node.op_type} has no constant operand"


class ConstantConstant(Rule):
    """(x . a) . b"""

    def __init__(self, inner: str, outer: str) -> None:
        self.inner = inner
        self.outer = outer

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"{self.inner}{self.outer}"

    def pattern(self, op: Any, x: Any, a: Any, b: Any) -> Any:
        return op.node(self.outer, op.node(self.inner, x, a, _name="first"), b, _name="second")

    def check(self, m: Match) -> Match | NoMatch:
        first, second = _constant(m.first), _constant(m.second)
        if isinstance(first, str):
            return m.no(first, m.first)
        if isinstance(second, str):
            return m.no(second)
        source, one = first
        other = second[1]
        if not _broadcast_is_small(one.shape, other.shape):
            return m.no("the merged constant would be larger than both")
        product = self.outer in ("Mul", "Div")
        if product and _extreme(one, other):
            return m.no("factors so extreme that the product between them may overflow or vanish")
        if not product and (np.abs(one + other) < np.maximum(np.abs(one), np.abs(other)) / 2).any():
            return m.no("the summands cancel: adding and taking away a large number is how some programs round")
        with np.errstate(all="ignore"):
            merged = (one * other if product else one + other).astype(m.second.outputs[0].dtype.numpy())
        lost = (merged == 0) & (one * other != 0) if product else np.zeros(merged.shape, bool)
        if not np.isfinite(merged.astype(np.float64)).all() or lost.any():
            return m.no("the merged constant leaves the range of its type")
        return m.having(source=source, merged=merged)

    def rewrite(self, op: Any, m: Match) -> Any:
        return op.node("Mul" if self.outer in ("Mul", "Div") else "Add", [m.source, m.merged])


def _extreme(*factors: np.ndarray) -> bool:
    """Whether a factor is so large or small that the order of the products can be seen in float32."""
    return any(((np.abs(f) > _EXTREME) | ((np.abs(f) < 1 / _EXTREME) & (f != 0))).any() for f in factors)


def _broadcast_is_small(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    try:
        shape = np.broadcast_shapes(one, other)
    except ValueError:
        return False  # they meet only through x
    return int(np.prod(shape)) <= max(int(np.prod(one)), int(np.prod(other)))


class FactorFactor(ConstantConstant):
    """The same of factors.  Others may read the first product: it stays for them, and nothing is added.

    ONNX Runtime 1.32 does not load a file in which a product with a constant goes, by another such product, into a
    MatMul and also straight into one.
    """

    allow_shared = True


_RULES = (
    *(FactorFactor(inner, outer) for inner in ("Mul", "Div") for outer in ("Mul", "Div")),
    *(ConstantConstant(inner, outer) for inner in ("Add", "Sub") for outer in ("Add", "Sub")),
)
