"""Inverses and linear equations over pairs, by real matrices of twice the size: a + ib -> [[a, -b], [b, a]]."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.solve import equations, is_vector, nothing_wrong, rows_of, solved
from graphforge.frontend.complex.algebra import Algebra
from graphforge.frontend.complex.pair import Pair, as_pair, component_dtype, zeros_like
from graphforge.frontend.complex.registry import lowers_pairs
from graphforge.frontend.emitter import Emitter

__all__: list[str] = []


def _solved(op: Emitter, a: Pair, b: Pair, rows: int) -> Pair:
    upper, lower = op.Concat(a.real, op.Neg(a.imag), axis=-1), op.Concat(a.imag, a.real, axis=-1)
    x = solved(op, op.Concat(upper, lower, axis=-2), op.Concat(b.real, b.imag, axis=-2), 2 * rows)
    return Pair(op.Slice(x, [0], [rows], [-2]), op.Slice(x, [rows], [2 * rows], [-2]))


@lowers_pairs("aten.linalg_inv_ex.default")
def linalg_inv_ex(op: Emitter, a: Pair, *, check_errors: bool = False) -> list[Any]:
    """The inverse, and that nothing went wrong."""
    rows = rows_of(op, a.real)
    assert a.real.dtype is not None
    unit = op.expand(op.constant(np.eye(rows, dtype=a.real.dtype.numpy())), op.dims(a.real))
    return [_solved(op, a, Pair(unit, zeros_like(op, unit)), rows), nothing_wrong(op, a.real)]


@lowers_pairs("aten._linalg_solve_ex.default")
def linalg_solve_ex(op: Emitter, a: Any, b: Any, *, left: bool = True, check_errors: bool = False) -> list[Any]:
    """X of ``a X = b`` or ``X a = b``; the factors that come with it are not handed out."""
    if any(op.wants(index) for index in (1, 2)):
        raise op.fail("the factors of the matrix are not computed", "use the solution alone")
    dtype = component_dtype(op)
    first, second = as_pair(op, a, dtype), as_pair(op, b, dtype)
    rows = rows_of(op, first.real)
    vector = is_vector(op, op.rank(first.real), op.rank(second.real))
    (real, real_side), (imag, imag_side) = (
        equations(op, one, other, left=left, vector=vector)
        for one, other in ((first.real, second.real), (first.imag, second.imag))
    )
    x = _solved(op, Pair(real, imag), Pair(real_side, imag_side), rows)
    return [_each(x, lambda part: _shaped(op, part, left, vector)), None, None, nothing_wrong(op, real)]


def _shaped(op: Emitter, x: ir.Value, left: bool, vector: bool) -> ir.Value:
    if not left:
        rank = op.rank(x)
        x = op.transpose(x, [*range(rank - 2), rank - 1, rank - 2])
    return op.Squeeze(x, [-1]) if vector else x


def _each(z: Pair, change: Any) -> Pair:
    return Pair(change(z.real), change(z.imag))


@lowers_pairs("aten._linalg_det.default")
def linalg_det(op: Emitter, a: Pair) -> list[Any]:
    """The determinant of up to three rows, by its cofactors; the factors that come with it are not handed out."""
    rows = op.size(a.real, -1)
    if not isinstance(rows, int) or rows > 3 or any(op.wants(index) for index in (1, 2)):
        raise op.fail("determinants of complex matrices are computed for at most three rows", "use real matrices")
    algebra = Algebra(op, component_dtype(op))

    def entry(row: int, column: int) -> Pair:
        return _each(a, lambda part: op.Gather(op.Gather(part, row, axis=-2), column, axis=-1))

    def minor(row: int, columns: list[int]) -> Pair:
        if len(columns) == 1:
            return entry(row, columns[0])
        total: Pair | None = None
        for place, column in enumerate(columns):
            rest = minor(row + 1, [one for one in columns if one != column])
            term = algebra.mul(entry(row, column), rest)
            if total is None:
                total = term
            else:
                total = algebra.sub(total, term) if place % 2 else algebra.add(total, term)
        assert total is not None
        return total

    return [minor(0, list(range(rows))), None, None]
