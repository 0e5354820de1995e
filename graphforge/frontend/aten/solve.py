"""Inverses, solutions of linear equations and Cholesky factors of small matrices, eliminated column by column.

ONNX has the determinant only.  For a matrix of n rows these are some ten nodes a row, so that n is limited.
"""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__ = ["equations", "is_vector", "nothing_wrong", "rows_of", "solved"]

_INT32 = ir.DataType.INT32
_INT64 = ir.DataType.INT64
_MOST_ROWS = 32


def rows_of(op: Emitter, x: ir.Value) -> int:
    """The number of rows of square matrices.

    Raises:
        LoweringError: it is not fixed, or too large.
    """
    rows = op.size(x, -1)
    if not isinstance(rows, int) or rows > _MOST_ROWS:
        raise op.fail(
            f"equations are solved for matrices of a fixed size of at most {_MOST_ROWS} rows",
            "compute the inverse outside the model if it is a constant, or solve iteratively with matrix products",
        )
    return rows


def solved(op: Emitter, a: ir.Value, b: ir.Value, rows: int) -> ir.Value:
    """X of ``a X = b``, by Gauss and Jordan; the pivot of each column is the largest of the rows not yet used."""
    dtype = a.dtype
    assert dtype is not None
    both = op.Concat(a, b, axis=-1)
    used: ir.Value | None = None
    picks = []
    for column in range(rows):
        here = op.Gather(both, column, axis=-1)
        size = op.Abs(here)
        if used is not None:
            size = op.Where(used, op.constant(-1.0, dtype), size)
        pick = op.Equal(op.ArgMax(size, axis=-1, keepdims=1), np.arange(rows, dtype=np.int64))
        picked = op.Unsqueeze(op.cast(pick, dtype), [-2])
        row = op.MatMul(picked, both)
        row = op.Div(row, op.Slice(row, [column], [column + 1], [-1]))
        tall = op.Unsqueeze(here, [-1])
        both = op.Where(op.Unsqueeze(pick, [-1]), row, op.Sub(both, op.Mul(tall, row)))
        used = pick if used is None else op.Or(used, pick)
        picks.append(picked)
    order = op.Concat(*picks, axis=-2) if len(picks) > 1 else picks[0]
    return op.MatMul(order, op.Slice(both, [rows], [2**63 - 1], [-1]))


def nothing_wrong(op: Emitter, x: ir.Value) -> ir.Value:
    """What torch says of each matrix: zeros, it could be computed."""
    return op.expand(op.constant(0, _INT32), op.dims(x)[:-2])


def turned(op: Emitter, x: ir.Value) -> ir.Value:
    """Rows and columns exchanged."""
    rank = op.rank(x)
    return op.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


@lowers("aten.linalg_inv_ex.default")
def linalg_inv_ex(op: Emitter, a: ir.Value, *, check_errors: bool = False) -> list[ir.Value]:
    """The inverse, which solves the equations for the unit matrix, and that nothing went wrong."""
    rows = rows_of(op, a)
    assert a.dtype is not None
    unit = op.expand(op.constant(np.eye(rows, dtype=a.dtype.numpy())), op.dims(a))
    return [solved(op, a, unit, rows), nothing_wrong(op, a)]


def equations(op: Emitter, a: ir.Value, b: ir.Value, *, left: bool, vector: bool) -> tuple[ir.Value, ir.Value]:
    """Matrix and right side as ``solved`` takes them, over the same batch."""
    if vector:
        b = op.Unsqueeze(b, [-1])
    if not left:
        a, b = turned(op, a), turned(op, b)
    if op.rank(a) != op.rank(b):
        batch = op.dims(a)[:-2] if op.rank(a) > op.rank(b) else op.dims(b)[:-2]
        a, b = (op.expand(one, [*batch, *op.dims(one)[-2:]]) for one in (a, b))
    return a, b


def is_vector(op: Emitter, a_rank: int, b_rank: int) -> bool:
    """Whether the right side is a vector, or a batch of them."""
    return b_rank == 1 or (b_rank == a_rank - 1 and len(op.result[0].shape) == b_rank)


@lowers("aten._linalg_solve_ex.default")
def linalg_solve_ex(
    op: Emitter, a: ir.Value, b: ir.Value, *, left: bool = True, check_errors: bool = False
) -> Sequence[ir.Value | None]:
    """X of ``a X = b`` or ``X a = b``, for matrices and vectors b; the factors that come with it are not handed out."""
    if any(op.wants(index) for index in (1, 2)):
        raise op.fail("the factors of the matrix are not computed", "use the solution alone")
    rows = rows_of(op, a)
    vector = is_vector(op, op.rank(a), op.rank(b))
    a, b = equations(op, a, b, left=left, vector=vector)
    x = solved(op, a, b, rows)
    x = x if left else turned(op, x)
    return [op.Squeeze(x, [-1]) if vector else x, None, None, nothing_wrong(op, a)]


@lowers("aten.linalg_solve_triangular.default")
def linalg_solve_triangular(
    op: Emitter, a: ir.Value, b: ir.Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> ir.Value:
    """The same for a triangle, whatever stands on its other side."""
    rows = rows_of(op, a)
    a = op.Trilu(a, op.constant(1 if upper and unitriangular else -1 if unitriangular else 0, _INT64), upper=int(upper))
    if unitriangular:
        assert a.dtype is not None
        a = op.Add(a, op.constant(np.eye(rows, dtype=a.dtype.numpy())))
    a, b = equations(op, a, b, left=left, vector=False)
    x = solved(op, a, b, rows)
    return x if left else turned(op, x)


@lowers("aten.linalg_cholesky_ex.default")
def linalg_cholesky_ex(op: Emitter, a: ir.Value, *, upper: bool = False, check_errors: bool = False) -> list[ir.Value]:
    """The lower factor, a column at a time: what a column and its transpose make up is taken off the rest."""
    rows = rows_of(op, a)
    columns = []
    for column in range(rows):
        tall = op.Slice(a, [column], [column + 1], [-1])
        root = op.Sqrt(op.Slice(tall, [column], [column + 1], [-2]))
        below = np.arange(rows)[:, None] >= column
        tall = op.Where(below, op.Div(tall, root), op.constant(0.0, a.dtype))
        columns.append(tall)
        if column + 1 < rows:
            a = op.Sub(a, op.MatMul(tall, turned(op, tall)))
    lower = op.Concat(*columns, axis=-1) if rows > 1 else columns[0]
    return [turned(op, lower) if upper else lower, nothing_wrong(op, a)]


@lowers("aten.cholesky_solve.default", "aten._cholesky_solve_helper.default")
def cholesky_solve(op: Emitter, b: ir.Value, factor: ir.Value, upper: bool = False) -> ir.Value:
    """Two triangles, one after the other."""
    rows = rows_of(op, factor)
    lower = turned(op, factor) if upper else factor
    lower = op.Trilu(lower, op.constant(0, _INT64), upper=0)
    lower, b = equations(op, lower, b, left=True, vector=False)
    return solved(op, turned(op, lower), solved(op, lower, b, rows), rows)
