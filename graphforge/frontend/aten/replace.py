"""A part of a tensor replaced: the inverses of select, slice and diagonal."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.diagonal import diagonal_steps
from graphforge.frontend.aten.pieces import sliced
from graphforge.frontend.aten.view import merged
from graphforge.frontend.emitter import Dim, Emitter

__all__ = ["diagonal_replaced", "select_replaced", "slice_replaced", "windows_replaced"]

_MAX_INT64 = 2**63 - 1
_DATA_DEPENDENT = re.compile(r"\bu\d+\b")


def slice_replaced(
    op: Emitter, base: ir.Value, new: ir.Value, axis: int, start: Dim | None, end: Dim | None, step: Dim
) -> ir.Value:
    """``base`` with ``base[start:end:step]`` of one axis replaced by ``new``.

    Slices and a Concat where the step is 1; where it is not, one Gather over base and new side by side.
    """
    size = op.size(base, axis)
    start = 0 if start is None else start
    end = _MAX_INT64 if end is None else end
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
        low, high, _ = slice(start, end, None).indices(size)
        high = max(low, high)
        if (low, high, step) == (0, size, 1):
            return new
        if step == 1:
            return _between(op, base, new, axis, low, high, size)
        order = np.arange(size, dtype=np.int64)
        order[low:high:step] = size + np.arange(len(range(low, high, step)), dtype=np.int64)
        return op.Gather(op.Concat(base, new, axis=axis), order, axis=axis)
    if op.size(new, axis) == 0 or (isinstance(start, int) and isinstance(end, int) and _never_starts(start, end)):
        return base
    labels = [dim.label for dim in (size, start, end) if not isinstance(dim, int)]
    if step == 1 and not any(_DATA_DEPENDENT.search(label) for label in labels):
        return _between(op, base, new, axis, start, end, size)
    positions = op.Range(op.constant(0), op.scalar(size, ir.DataType.INT64), op.constant(1))
    return _rows_replaced(op, base, new, axis, sliced(op, positions, 0, start, end, step))


def _never_starts(start: int, end: int) -> bool:
    """Whether ``start:end`` is empty whatever the size is."""
    return end == 0 or (start >= end and (start < 0) == (end < 0))


def _between(op: Emitter, base: ir.Value, new: ir.Value, axis: int, start: Dim, end: Dim, size: Dim) -> ir.Value:
    pieces = []
    if start != 0:
        pieces.append(sliced(op, base, axis, 0, start))
    pieces.append(new)
    overlong = isinstance(size, int) and isinstance(end, int) and end >= size
    same = not isinstance(size, int) and not isinstance(end, int) and end.label == size.label
    if end != _MAX_INT64 and not overlong and not same:
        rest: Dim | ir.Value = end
        if isinstance(start, int) and isinstance(end, int) and start != 0 and (start < 0) != (end < 0):
            # one counts from the front, one from the end: at some sizes start lies behind end, and nothing is replaced
            rest = op.Add(op.vector([size]), min(start, end)) if min(start, end) < 0 else end
            rest = op.Max(rest, op.constant([max(start, end)]))
        pieces.append(sliced(op, base, axis, rest, None))
    return op.Concat(*pieces, axis=axis) if len(pieces) > 1 else new


def _rows_replaced(op: Emitter, base: ir.Value, new: ir.Value, axis: int, positions: ir.Value) -> ir.Value:
    """Slabs of an axis replaced at the positions of a vector."""
    perm = [axis, *[place for place in range(op.rank(base)) if place != axis]]
    back = [perm.index(place) for place in range(len(perm))]
    rows = op.Unsqueeze(positions, [1])
    return op.transpose(op.ScatterND(op.transpose(base, perm), rows, op.transpose(new, perm)), back)


def select_replaced(op: Emitter, base: ir.Value, new: ir.Value, axis: int, index: Dim) -> ir.Value:
    """``base`` with one slab of an axis replaced by ``new``."""
    slab = op.unsqueeze(new, [axis])
    if isinstance(index, int):
        return slice_replaced(op, base, slab, axis, index, None if index == -1 else index + 1, 1)
    size = op.scalar(op.size(base, axis), ir.DataType.INT64)
    position = op.Mod(op.scalar(index, ir.DataType.INT64), size)  # a negative index counts from the end
    return _rows_replaced(op, base, slab, axis, op.Unsqueeze(position, [0]))


def windows_replaced(op: Emitter, base: ir.Value, new: ir.Value, axis: int, size: int, step: int) -> ir.Value:
    """``base`` with its windows along one axis (``unfold``) replaced by ``new``; torch lets none overlap in a write."""
    rank = op.rank(base)
    length = op.scalar(op.size(base, axis), ir.DataType.INT64)
    starts = op.Range(0, op.Sub(length, size - 1), step)
    positions = op.Reshape(op.Add(op.Unsqueeze(starts, [1]), np.arange(size, dtype=np.int64)), [-1])
    # [..., windows, ..., size] -> [..., windows * size, ...]
    order = [*range(axis + 1), rank, *range(axis + 1, rank)]
    dims = op.dims(base)
    rows = op.Reshape(op.transpose(new, order), op.vector([*dims[:axis], -1, *dims[axis + 1 :]]))
    assert base.shape is not None
    rows.shape = ir.Shape([None if place == axis else base.shape[place] for place in range(rank)])
    return _rows_replaced(op, base, rows, axis, positions)


def diagonal_replaced(op: Emitter, base: ir.Value, new: ir.Value, offset: int, dim1: int, dim2: int) -> ir.Value:
    """``base`` with a diagonal of two axes replaced by ``new`` (whose last axis runs along it)."""
    rank = op.rank(base)
    first, second = dim1 % rank, dim2 % rank
    perm = [*[axis for axis in range(rank) if axis not in (first, second)], first, second]
    matrix = op.transpose(base, perm)
    dims = op.dims(matrix)
    flat = op.reshape(matrix, [*dims[:-2], merged(dims[-2:])])
    start, count, step = diagonal_steps(op, dims[-2], dims[-1], offset)
    axis = rank - 2
    if isinstance(start, int) and isinstance(count, int) and isinstance(step, int):
        written = slice_replaced(op, flat, new, axis, start, start + max(count - 1, 0) * step + min(count, 1), step)
    else:
        starts, counts, steps = (op.constant(op.vector([item])) for item in (start, count, step))
        scalars: list[Any] = [op.Squeeze(item, [0]) for item in (counts, steps, starts)]
        zero_on = op.Range(op.constant(0), scalars[0], op.constant(1))
        written = _rows_replaced(op, flat, new, axis, op.Add(op.Mul(zero_on, scalars[1]), scalars[2]))
    return op.transpose(op.reshape(written, dims), [perm.index(place) for place in range(rank)])
