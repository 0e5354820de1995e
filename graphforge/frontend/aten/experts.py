"""Grouped matrix products, the heart of mixture-of-experts layers: rows sorted by expert, a matrix for each group.

Every group is cut out at run time and multiplied by itself, so that the work is that of the rows there are, whatever
the routing is: none of an expert, all of them, or rows behind the last group (which are 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_INT64 = ir.DataType.INT64
_MAX_INT64 = 2**63 - 1


def _groups(op: Emitter, offs: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Where each group begins and ends, one element each."""
    count = op.static_size(offs, 0)
    ends = op.cast(offs, _INT64)
    start: ir.Value = op.constant([0])
    for group in range(count):
        end = op.Slice(ends, [group], [group + 1], [0])
        yield start, end
        start = end


def _matrix(op: Emitter, stack: ir.Value, group: int) -> ir.Value:
    return op.Gather(stack, op.constant(group, _INT64), axis=0)


def _joined(op: Emitter, pieces: list[ir.Value], whole: ir.Value, offs: ir.Value, axis: int, source: int) -> ir.Value:
    """The groups' results one after another along ``axis``, zeros behind the last for what no group has."""
    last = op.Slice(op.cast(offs, _INT64), [-1], [_MAX_INT64], [0])
    rest = op.Sub(op.Shape(whole, start=source, end=source + 1), last)
    other = op.Shape(pieces[0], start=1 - axis, end=2 - axis)
    shape = op.Concat(rest, other, axis=0) if axis == 0 else op.Concat(other, rest, axis=0)
    assert pieces[0].dtype is not None
    zeros = op.Expand(op.constant(0.0, pieces[0].dtype), shape)
    return op.Concat(*pieces, zeros, axis=axis)


@lowers("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")
def grouped_mm(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    offs: ir.Value | None = None,
    bias: ir.Value | None = None,
    out_dtype: Any = None,
) -> ir.Value:
    """[rows, k] with [groups, k, n]; [groups, m, k] with [k, columns]; [m, rows] with [rows, n]; or stacks."""
    if bias is not None:
        raise op.fail("a grouped matrix product with a bias")
    if offs is None:
        return op.MatMul(a, b)
    axes = op.rank(a), op.rank(b)
    pieces = []
    for group, (start, end) in enumerate(_groups(op, offs)):
        if axes == (2, 3):
            pieces.append(op.MatMul(op.Slice(a, start, end, [0]), _matrix(op, b, group)))
        elif axes == (3, 2):
            pieces.append(op.MatMul(_matrix(op, a, group), op.Slice(b, start, end, [1])))
        else:
            product = op.MatMul(op.Slice(a, start, end, [1]), op.Slice(b, start, end, [0]))
            pieces.append(op.Unsqueeze(product, [0]))
    if axes == (2, 3):
        return _joined(op, pieces, a, offs, 0, 0)
    if axes == (3, 2):
        return _joined(op, pieces, b, offs, 1, 1)
    return op.Concat(*pieces, axis=0)


@lowers("aten.histc.default")
def histogram(op: Emitter, x: ir.Value, bins: int = 100, min: float = 0, max: float = 0) -> ir.Value:
    """How many elements lie in each of so many equal bins: what counts the rows of each expert."""
    assert x.dtype is not None
    dtype = x.dtype
    flat = op.reshape(x, [-1])
    if min == max:  # the range of what there is
        low, high = op.ReduceMin(flat, keepdims=0), op.ReduceMax(flat, keepdims=0)
        same = op.Equal(low, high)
        low, high = op.Where(same, op.Sub(low, 1.0), low), op.Where(same, op.Add(high, 1.0), high)
    else:
        low, high = op.constant(float(min), dtype), op.constant(float(max), dtype)
    place = op.Div(op.Mul(op.Sub(flat, low), float(bins)), op.Sub(high, low))
    inside = op.And(op.GreaterOrEqual(flat, low), op.LessOrEqual(flat, high))
    last = op.constant(float(bins - 1), dtype)
    chosen = op.Where(inside, op.Min(op.Floor(place), last), op.constant(-1.0, dtype))
    numbers = op.cast(op.constant(list(range(bins))), dtype)
    return op.ReduceSum(op.Cast(op.Equal(op.Unsqueeze(chosen, [1]), numbers), to=dtype), [0], keepdims=0)
