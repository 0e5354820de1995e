"""Writes at given places: scatter, index_add, index_copy, index_fill, slice_scatter, copy, fill."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.replace import diagonal_replaced, select_replaced, slice_replaced
from graphforge.frontend.aten.view import strided_positions
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers
from graphforge.ir.dtypes import HALVES

__all__ = ["neutral_of", "reduced_in"]

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64
_REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}


def reduced_in(dtype: ir.DataType) -> ir.DataType:
    """The dtype to add, multiply or compare many elements in, one after the other."""
    return ir.DataType.INT32 if dtype == _BOOL else ir.DataType.FLOAT if dtype in HALVES else dtype


# -- element by element ------------------------------------------------------------------------------------------------


def scattered(
    op: Emitter, x: ir.Value, dim: int, index: ir.Value, source: ir.Value, reduction: str | None = None
) -> ir.Value:
    """ScatterElements for every rank; a source larger than the index is cut to it."""
    dtype = x.dtype
    assert dtype is not None
    carrier = reduced_in(dtype) if reduction is not None else dtype
    rank = op.rank(x)
    data, places, updates = op.cast(x, carrier), op.cast(index, _INT64), op.cast(source, carrier)
    if op.rank(places) == 0:
        places = op.unsqueeze(places, [0])
    if op.rank(updates) == 0:
        updates = op.unsqueeze(updates, [0])
    if rank == 0:
        data = op.unsqueeze(data, [0])
    updates = _cut(op, updates, places)
    result = op.ScatterElements(data, places, updates, axis=dim % max(rank, 1), reduction=reduction)
    return op.cast(op.squeeze(result, [0]) if rank == 0 else result, dtype)


def _cut(op: Emitter, updates: ir.Value, places: ir.Value) -> ir.Value:
    axes = []
    ends: list[Dim] = []
    for axis, (have, want) in enumerate(zip(op.dims(updates), op.dims(places), strict=True)):
        if isinstance(have, int) and isinstance(want, int) and have == want:
            continue
        if not isinstance(have, int) and not isinstance(want, int) and have.label == want.label:
            continue
        axes.append(axis)
        ends.append(want)
    if not axes:
        return updates
    return op.Slice(updates, [0] * len(axes), op.vector(ends), axes, [1] * len(axes))


def _full(op: Emitter, value: Any, index: ir.Value, dtype: ir.DataType) -> ir.Value:
    filled = op.operand(value, dtype)
    return op.expand(filled, op.dims(index)) if op.rank(index) else filled


@lowers("aten.scatter.src")
def scatter(op: Emitter, x: ir.Value, dim: int, index: ir.Value, src: ir.Value) -> ir.Value:
    """Elements written along one axis, each to its own index."""
    return scattered(op, x, dim, index, src)


@lowers("aten.scatter.value")
def scatter_value(op: Emitter, x: ir.Value, dim: int, index: ir.Value, value: Any) -> ir.Value:
    """One value written to every index."""
    assert x.dtype is not None
    return scattered(op, x, dim, index, _full(op, value, index, x.dtype))


@lowers("aten.scatter.reduce")
def scatter_with(op: Emitter, x: ir.Value, dim: int, index: ir.Value, src: ir.Value, *, reduce: str) -> ir.Value:
    """Elements added or multiplied in."""
    return scattered(op, x, dim, index, src, _REDUCTIONS[reduce])


@lowers("aten.scatter.value_reduce")
def scatter_value_with(op: Emitter, x: ir.Value, dim: int, index: ir.Value, value: Any, *, reduce: str) -> ir.Value:
    """One value added or multiplied in."""
    assert x.dtype is not None
    return scattered(op, x, dim, index, _full(op, value, index, x.dtype), _REDUCTIONS[reduce])


@lowers("aten.scatter_add.default")
def scatter_add(op: Emitter, x: ir.Value, dim: int, index: ir.Value, src: ir.Value) -> ir.Value:
    """Elements added in."""
    return scattered(op, x, dim, index, src, "add")


@lowers("aten.scatter_reduce.two")
def scatter_reduce(
    op: Emitter, x: ir.Value, dim: int, index: ir.Value, src: ir.Value, reduce: str, *, include_self: bool = True
) -> ir.Value:
    """Elements combined with what is there, or (``include_self=False``) only with each other."""
    result_dtype = x.dtype
    assert result_dtype is not None
    dtype = reduced_in(result_dtype)
    start = x = op.cast(x, dtype)
    src = op.cast(src, dtype)
    if not include_self:
        neutral = op.scalar(neutral_of(reduce, dtype), dtype)
        start = scattered(op, x, dim, index, _full(op, neutral, index, dtype))
    if reduce != "mean":
        return op.cast(scattered(op, start, dim, index, src, _REDUCTIONS[reduce]), result_dtype)
    total = scattered(op, start, dim, index, src, "add")
    ones = op.expand(op.scalar(1, dtype), op.dims(x))
    if not include_self:
        ones = scattered(op, ones, dim, index, _full(op, 0, index, dtype))
    counts = scattered(op, ones, dim, index, _full(op, 1, index, dtype), "add")
    if not include_self:
        counts = op.Max(counts, op.scalar(1, dtype))
    return op.cast(divided_mean(op, total, counts), result_dtype)


def divided_mean(op: Emitter, total: ir.Value, counts: ir.Value) -> ir.Value:
    """total / counts; whole numbers are rounded down, as torch does."""
    assert total.dtype is not None
    if total.dtype.is_floating_point():
        return op.Div(total, counts)
    return op.Div(op.Sub(total, op.Mod(total, counts)), counts)


def neutral_of(reduce: str, dtype: ir.DataType) -> float | int | bool:
    """The element that changes nothing under a reduction."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if dtype == _BOOL:
        return reduce == "amin"
    if dtype.is_floating_point():
        return -np.inf if reduce == "amax" else np.inf
    limits = np.iinfo(dtype.numpy())
    return int(limits.min if reduce == "amax" else limits.max)


# -- slab by slab ------------------------------------------------------------------------------------------------------


def _slabs(op: Emitter, x: ir.Value, dim: int, index: ir.Value, source: ir.Value, reduction: str | None) -> ir.Value:
    """``x[..., index, ...] op= source`` on one axis."""
    if op.rank(x) == 0:
        written = _slabs(op, op.unsqueeze(x, [0]), 0, index, op.reshape(source, [1]), reduction)
        return op.squeeze(written, [0])
    if op.rank(index) == 0:
        index = op.unsqueeze(index, [0])
    if op.rank(source) < op.rank(x):
        source = op.unsqueeze(source, [dim % op.rank(x)])
    perm = list(range(op.rank(x)))
    perm[0], perm[dim] = perm[dim], perm[0]
    rows = op.unsqueeze(op.cast(index, _INT64), [1])
    written = op.ScatterND(op.transpose(x, perm), rows, op.transpose(source, perm), reduction=reduction)
    return op.transpose(written, perm)


@lowers("aten.index_copy.default")
def index_copy(op: Emitter, x: ir.Value, dim: int, index: ir.Value, source: ir.Value) -> ir.Value:
    """Slabs replaced."""
    return _slabs(op, x, dim, index, source, None)


@lowers("aten.index_add.default")
def index_add(op: Emitter, x: ir.Value, dim: int, index: ir.Value, source: ir.Value, *, alpha: Any = 1) -> ir.Value:
    """Slabs added."""
    assert x.dtype is not None
    carrier = reduced_in(x.dtype)
    scaled = op.cast(source, carrier)
    if alpha != 1:
        scaled = op.Mul(scaled, op.scalar(alpha, carrier))
    return op.cast(_slabs(op, op.cast(x, carrier), dim, index, scaled, "add"), x.dtype)


@lowers("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(op: Emitter, x: ir.Value, dim: int, index: ir.Value, value: Any) -> ir.Value:
    """Slabs filled with one value."""
    assert x.dtype is not None
    if op.rank(x) == 0:
        return op.operand(value, x.dtype)
    if op.rank(index) == 0:
        index = op.unsqueeze(index, [0])
    dims = op.dims(x)
    dims[dim] = op.size(index, 0)
    return _slabs(op, x, dim, index, op.expand(op.operand(value, x.dtype), dims), None)


@lowers("aten.index_reduce.default")
def index_reduce(
    op: Emitter, x: ir.Value, dim: int, index: ir.Value, source: ir.Value, reduce: str, *, include_self: bool = True
) -> ir.Value:
    """Slabs combined with what is there, or only with each other."""
    result_dtype = x.dtype
    assert result_dtype is not None
    dtype = reduced_in(result_dtype)
    x, source = op.cast(x, dtype), op.cast(source, dtype)

    def filled(value: float) -> ir.Value:
        return op.expand(op.scalar(value, dtype), op.dims(source))

    start = x if include_self else _slabs(op, x, dim, index, filled(neutral_of(reduce, dtype)), None)
    if reduce != "mean":
        return op.cast(_slabs(op, start, dim, index, source, _REDUCTIONS[reduce]), result_dtype)
    ones = op.expand(op.scalar(1, dtype), op.dims(x))
    if not include_self:
        ones = _slabs(op, ones, dim, index, filled(0), None)
    counts = _slabs(op, ones, dim, index, filled(1), "add")
    counts = counts if include_self else op.Max(counts, op.scalar(1, dtype))
    return op.cast(divided_mean(op, _slabs(op, start, dim, index, source, "add"), counts), result_dtype)


# -- whole tensors -----------------------------------------------------------------------------------------------------


@lowers("aten.copy.default")
def copy(op: Emitter, x: ir.Value, src: ir.Value, non_blocking: bool = False) -> ir.Value:
    """The source in the dtype and sizes of the first operand."""
    assert x.dtype is not None
    return op.expand(op.cast(src, x.dtype), op.dims(x))


@lowers("aten.fill.Scalar", "aten.fill.Tensor")
def fill(op: Emitter, x: ir.Value, value: Any) -> ir.Value:
    """One value everywhere."""
    assert x.dtype is not None
    return op.expand(op.operand(value, x.dtype), op.dims(x))


@lowers("aten.zero.default")
def zero(op: Emitter, x: ir.Value) -> ir.Value:
    """Zero everywhere."""
    assert x.dtype is not None
    return op.expand(op.scalar(0, x.dtype), op.dims(x))


@lowers("aten.slice_scatter.default")
def slice_scatter(
    op: Emitter,
    x: ir.Value,
    src: ir.Value,
    dim: int = 0,
    start: Dim | None = None,
    end: Dim | None = None,
    step: int = 1,
) -> ir.Value:
    """A range of an axis replaced."""
    axis = dim % op.rank(x)
    source = op.expand(op.cast(src, x.dtype or op.dtype_of()), _with(op.dims(x), axis, op.size(src, axis)))
    return slice_replaced(op, x, source, axis, start, end, step)


def _with(dims: Sequence[Dim], axis: int, size: Dim) -> list[Dim]:
    return [*dims[:axis], size, *dims[axis + 1 :]]


@lowers("aten.select_scatter.default")
def select_scatter(op: Emitter, x: ir.Value, src: ir.Value, dim: int, index: Dim) -> ir.Value:
    """One slab of an axis replaced."""
    axis = dim % op.rank(x)
    return select_replaced(op, x, op.cast(src, x.dtype or op.dtype_of()), axis, index)


@lowers("aten.as_strided_scatter.default")
def as_strided_scatter(
    op: Emitter, x: ir.Value, src: ir.Value, size: Sequence[Dim], stride: Sequence[Dim], offset: Dim | None = None
) -> ir.Value:
    """The elements at fixed strides replaced: one Gather over the tensor and the new elements side by side."""
    positions = strided_positions(op, x, size, stride, offset).reshape(-1)
    count = int(op.inputs[0].numel())
    order = np.arange(count, dtype=np.int64)
    order[positions] = count + np.arange(positions.size, dtype=np.int64)
    flat, new = op.reshape(x, [count]), op.reshape(op.cast(src, x.dtype or op.dtype_of()), [positions.size])
    return op.reshape(op.Gather(op.Concat(flat, new, axis=0), order, axis=0), op.dims(x))


@lowers("aten.diagonal_scatter.default")
def diagonal_scatter(
    op: Emitter, x: ir.Value, src: ir.Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> ir.Value:
    """The diagonal of two axes replaced."""
    return diagonal_replaced(op, x, op.cast(src, x.dtype or op.dtype_of()), offset, dim1, dim2)
