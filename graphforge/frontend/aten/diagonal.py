"""Diagonals: taken out of a matrix, and made into one."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.view import merged, permuted
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__ = ["diagonal_of", "diagonal_steps"]


@lowers("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(op: Emitter, x: ir.Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> ir.Value:
    """The diagonal of two axes, as a new last axis: every (columns + 1)-th element of the flat matrix."""
    return diagonal_of(op, x, offset, dim1, dim2)


@lowers("aten.linalg_diagonal.default")
def linalg_diagonal(op: Emitter, x: ir.Value, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> ir.Value:
    """``diagonal`` of the last two axes unless told."""
    return diagonal_of(op, x, offset, dim1, dim2)


def diagonal_of(op: Emitter, x: ir.Value, offset: int, dim1: int, dim2: int) -> ir.Value:
    """See ``diagonal``."""
    rank = op.rank(x)
    first, second = dim1 % rank, dim2 % rank
    rest = [axis for axis in range(rank) if axis not in (first, second)]
    matrix = permuted(op, x, [*rest, first, second])
    dims = op.dims(matrix)
    rows, columns = dims[-2], dims[-1]
    flat = op.reshape(matrix, [*dims[:-2], merged([rows, columns])])
    start, count, step = diagonal_steps(op, rows, columns, offset)
    if isinstance(start, int) and isinstance(count, int) and isinstance(step, int):
        end: Any = start + (count - 1) * step + 1 if count > 0 else start
        return op.Slice(flat, [start], [end], [len(rest)], [step])
    starts, counts, steps = (op.constant(op.vector([item])) for item in (start, count, step))
    end = op.Add(starts, op.Mul(counts, steps))
    return op.Slice(flat, starts, end, [len(rest)], steps)


def diagonal_steps(
    op: Emitter, rows: Dim, columns: Dim, offset: int
) -> tuple[Dim | ir.Value, Dim | ir.Value, Dim | ir.Value]:
    """(first position in the flat matrix, number of elements, distance) of a diagonal."""
    if isinstance(rows, int) and isinstance(columns, int):
        count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
        start = offset if offset >= 0 else -offset * columns
        return (start if count else 0), count, columns + 1
    height, width = (op.constant(op.vector([size])) for size in (rows, columns))
    if offset >= 0:
        first: Dim | ir.Value = offset
        count_value = op.Min(height, op.Sub(width, offset) if offset else width)
    else:
        first = op.Mul(width, -offset)
        count_value = op.Min(op.Add(height, offset), width)
    return first, op.Max(count_value, 0) if offset else count_value, op.Add(width, 1)


@lowers("aten.diag.default", "aten.diag_embed.default", "aten.diagflat.default")
def diag(op: Emitter, x: ir.Value, *arguments: int, **keywords: int) -> ir.Value:
    """A vector as a diagonal matrix (``diag`` of a matrix: its diagonal)."""
    names = (
        ("offset", "dim1", "dim2") if "embed" in op.target else ("offset",) if "flat" in op.target else ("diagonal",)
    )
    given = {**dict(zip(names, arguments, strict=False)), **keywords}
    offset = given.get("offset", given.get("diagonal", 0))
    if op.target == "aten.diag.default" and op.rank(x) == 2:
        return diagonal_of(op, x, offset, 0, 1)
    if "flat" in op.target:
        x = op.reshape(x, [-1])
    matrix = _diagonal_matrix(op, x, offset)
    rank = op.rank(x) + 1
    dim1, dim2 = given.get("dim1", -2) % rank, given.get("dim2", -1) % rank
    places = [axis for axis in range(rank) if axis not in (dim1, dim2)]
    order = [0] * rank
    for position, place in enumerate([*places, dim1, dim2]):
        order[place] = position
    return op.transpose(matrix, order)


def _diagonal_matrix(op: Emitter, x: ir.Value, offset: int) -> ir.Value:
    """The last axis on the ``offset``-th diagonal of a new matrix in the last two axes."""
    dtype = x.dtype
    assert dtype is not None
    zero = op.scalar(0, dtype)
    values = x
    rank = op.rank(x)
    if offset:
        pads = [0] * (2 * rank)
        pads[2 * rank - 1 if offset < 0 else rank - 1] = abs(offset)
        # below the main diagonal the column runs from 0, above it the row does
        values = op.Pad(values, pads, zero)
    size = op.size(values, -1)
    if isinstance(size, int):
        mask: Any = np.eye(size, k=offset, dtype=bool)
    else:
        steps = op.Range(op.constant(0), size.scalar(op), op.constant(1))
        rows = op.Unsqueeze(steps, [1])
        mask = op.Equal(op.Add(rows, offset) if offset else rows, steps)
    spread = op.Unsqueeze(values, [rank - 1])
    return op.Where(op.constant(mask), spread, zero)
