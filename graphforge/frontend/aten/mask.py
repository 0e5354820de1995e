"""Elements chosen by a mask: masked_fill, masked_select, masked_scatter, nonzero, triu and tril."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten.compare import choose
from graphforge.frontend.aten.view import broadcast_sizes, merged
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__ = ["compressed", "nonzero_rows"]

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64


def compressed(op: Emitter, x: ir.Value, mask: ir.Value, axis: int) -> ir.Value:
    """The slabs of ``axis`` where the vector ``mask`` is true."""
    return op.Compress(x, op.cast(mask, _BOOL), axis=axis)


def nonzero_rows(op: Emitter, x: ir.Value) -> ir.Value:
    """Positions of the elements that are not zero: int64 [rank, count]."""
    return op.NonZero(x)


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(op: Emitter, x: ir.Value, mask: ir.Value, value: Any) -> ir.Value:
    """One value wherever the mask is true."""
    dtype = op.dtype_of()
    return choose(op, op.cast(mask, _BOOL), op.operand(value, dtype), op.cast(x, dtype))


@lowers("aten.masked_select.default")
def masked_select(op: Emitter, x: ir.Value, mask: ir.Value) -> ir.Value:
    """The elements where the mask is true, as a vector."""
    dims = broadcast_sizes(op, x, mask)
    total: list[Dim] = [merged(dims)]
    return compressed(op, op.reshape(op.expand(x, dims), total), op.reshape(op.expand(mask, dims), total), 0)


@lowers("aten.masked_scatter.default")
def masked_scatter(op: Emitter, x: ir.Value, mask: ir.Value, source: ir.Value) -> ir.Value:
    """The elements of ``source``, in order, wherever the mask is true: the n-th true place takes the n-th element."""
    assert x.dtype is not None
    dims = broadcast_sizes(op, x, mask)
    full = op.expand(mask, dims)
    flat = op.reshape(op.cast(full, _INT64), [merged(dims)])
    order = op.Sub(op.CumSum(flat, op.constant(0)), 1)
    # where the mask is false the position may be -1 or beyond the end: it is not looked at
    given = op.reshape(source, [merged(op.dims(source))])
    order = op.Max(op.Min(order, op.Sub(op.scalar(op.size(given, 0), _INT64), 1)), 0)
    values = op.Gather(given, order, axis=0)
    return choose(op, op.cast(full, _BOOL), op.reshape(values, dims, op.result_dims()), x)


@lowers("aten.nonzero.default", "aten.argwhere.default")
def nonzero(op: Emitter, x: ir.Value) -> ir.Value:
    """Positions of the elements that are not zero, one a row."""
    if op.rank(x) == 0:
        rows = nonzero_rows(op, op.unsqueeze(x, [0]))
        return op.Slice(op.transpose(rows, [1, 0]), [0], [0], [1], [1])
    return op.transpose(nonzero_rows(op, x), [1, 0])


@lowers("aten.nonzero_numpy.default", "aten.where.default")
def nonzero_numpy(op: Emitter, x: ir.Value) -> list[ir.Value]:
    """Positions of the elements that are not zero, one vector for each axis."""
    if op.rank(x) == 0:
        x = op.unsqueeze(x, [0])
    rows = nonzero_rows(op, x)
    count = op.rank(x)
    if count == 1:
        return [op.reshape(rows, [-1])]
    return [op.Gather(rows, axis, axis=0) for axis in range(count)]


@lowers("aten.triu.default", "aten.tril.default")
def triangle(op: Emitter, x: ir.Value, diagonal: Any = 0) -> ir.Value:
    """The upper or lower triangle of the last two axes, zero elsewhere."""
    k = None if diagonal == 0 else op.scalar(diagonal, _INT64)
    upper = None if "triu" in op.target else 0
    return op.Trilu(x, k, upper=upper)
