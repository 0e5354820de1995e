"""Fuse a product of matrices and a sum.    add(matmul(a, b), c) ==> gemm(a, b, c)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from graphforge.ir import Graph, Value
from graphforge.transform import (
    Match,
    NoMatch,
    Pass,
    Rewriter,
    Rule,
    dims_of,
    has_one_use,
    int_attribute,
    ints_attribute,
    is_op,
    rank_of,
)

__all__ = ["FuseMatmulAdd"]

# What Gemm takes in every runtime.
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class FuseMatmulAdd(Pass):
    """MatMul + Add, Gemm + Add, and transposes of matrices in front of either."""

    name: ClassVar[str] = "fuse-matmul-add"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Fuse them in the graph and its bodies."""
        rewriter.apply(_RULES, graph)


def _fits(bias: Value, product: Value) -> bool:
    """Whether the bias broadcasts to the product without making it larger."""
    ours, theirs = dims_of(bias), dims_of(product)
    if ours is None or theirs is None or len(ours) > len(theirs):
        return False
    pairs = zip(reversed(ours), reversed(theirs), strict=False)
    return all(one == 1 or (one == other and (isinstance(one, int) or one.value is not None)) for one, other in pairs)


def _untransposed(value: Value) -> tuple[Value, int]:
    """The matrix behind a transpose that nobody else reads, and whether there was one."""
    node = value.producer()
    if node is None or not is_op(node, "Transpose") or not has_one_use(value) or rank_of(value) != 2:
        return value, 0
    source = node.inputs[0]
    if source is None or ints_attribute(node, "perm") not in (None, (1, 0)):
        return value, 0
    return source, 1


class MatMulAdd(Rule):
    """add(matmul(a, b), c)"""

    def pattern(self, op: Any, a: Any, b: Any, c: Any) -> Any:
        return op.Add(op.MatMul(a, b), c)

    def check(self, m: Match) -> Match | NoMatch:
        if rank_of(m.a) != 2 or rank_of(m.b) != 2:
            return m.no("Gemm multiplies matrices, this is a product of stacks of matrices or vectors")
        if m.a.dtype not in _FLOATS:
            return m.no(f"Gemm is not for {m.a.dtype}")
        if not _fits(m.c, m.matmul.outputs[0]):
            return m.no("what is added broadcasts the product, or its shape is unknown")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        a, transposed_a = _untransposed(m.a)
        b, transposed_b = _untransposed(m.b)
        return op.Gemm(a, b, m.c, transA=transposed_a or None, transB=transposed_b or None)


class GemmAdd(Rule):
    """add(gemm(a, b), c)"""

    def pattern(self, op: Any, a: Any, b: Any, c: Any) -> Any:
        return op.Add(op.Gemm(a, b), c)

    def check(self, m: Match) -> Match | NoMatch:
        beta = m.gemm.attributes.get("beta")
        if beta is not None and beta.as_float() != 1.0:
            return m.no("beta would scale what is added")
        if not _fits(m.c, m.gemm.outputs[0]):
            return m.no("what is added broadcasts the product, or its shape is unknown")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        alpha = m.gemm.attributes.get("alpha")
        return op.Gemm(
            m.a,
            m.b,
            m.c,
            alpha=None if alpha is None else alpha.as_float(),
            transA=int_attribute(m.gemm, "transA", 0) or None,
            transB=int_attribute(m.gemm, "transB", 0) or None,
        )


_RULES = (MatMulAdd(), GemmAdd())
