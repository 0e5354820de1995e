"""Order: sort, topk, kthvalue, median, unique, searchsorted."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten.mask import compressed, nonzero_rows
from graphforge.frontend.aten.scatter import neutral_of
from graphforge.frontend.aten.view import empty, merged
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers
from graphforge.ir.dtypes import is_float

__all__ = ["top"]

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64


def top(
    op: Emitter, x: ir.Value, k: Dim | ir.Value, axis: int, *, largest: bool, is_sorted: bool = True
) -> tuple[ir.Value, ir.Value]:
    """The k first elements of an axis in order, and where they stood; ties keep their order."""
    count = op.vector([k]) if not isinstance(k, ir.Value) else op.reshape(op.cast(k, _INT64), [1])
    values, places = op.TopK(
        x,
        count,
        axis=axis,
        largest=None if largest else 0,
        sorted=None if is_sorted else 0,
        _outputs=2,
    )
    return values, places


def _sorted(op: Emitter, x: ir.Value, dim: int, descending: bool) -> tuple[ir.Value, ir.Value]:
    if op.rank(x) == 0:
        return x, op.constant(0)
    axis = dim % op.rank(x)
    return top(op, x, op.size(x, axis), axis, largest=descending)


@lowers("aten.sort.default", "aten.argsort.default", "aten.msort.default")
def sort(op: Emitter, x: ir.Value, dim: int = -1, descending: bool = False) -> Any:
    """Sorted values and where they stood (TopK of all of them)."""
    if "msort" in op.target:
        dim = 0
    values, places = _sorted(op, x, dim, descending)
    return {"aten.argsort": places, "aten.msort": values}.get(op.target.rpartition(".")[0], (values, places))


@lowers("aten.sort.stable", "aten.argsort.stable")
def sort_stable(
    op: Emitter, x: ir.Value, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """Stable sort: TopK keeps the order of equal elements."""
    values, places = _sorted(op, x, dim, descending)
    return places if "argsort" in op.target else (values, places)


@lowers("aten.topk.default")
def topk(
    op: Emitter, x: ir.Value, k: Dim, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[ir.Value, ir.Value]:
    """The k largest or smallest elements; ordered in any case, as eager torch gives them."""
    if op.rank(x) == 0:
        return x, op.constant(0)
    return top(op, x, k, dim % op.rank(x), largest=largest)


def _kth(op: Emitter, x: ir.Value, k: Dim | ir.Value, dim: int, keepdim: bool) -> tuple[ir.Value, ir.Value]:
    if op.rank(x) == 0:
        return x, op.constant(0)
    axis = dim % op.rank(x)
    pair = top(op, x, k, axis, largest=False)
    last = [-1] if keepdim else -1
    values, places = (op.Gather(item, last, axis=axis) for item in pair)
    return values, places


@lowers("aten.kthvalue.default")
def kthvalue(op: Emitter, x: ir.Value, k: Dim, dim: int = -1, keepdim: bool = False) -> tuple[ir.Value, ir.Value]:
    """The k-th smallest element."""
    return _kth(op, x, k, dim, keepdim)


def _middle(op: Emitter, size: Dim) -> Dim | ir.Value:
    if isinstance(size, int):
        return (size + 1) // 2
    return op.Div(op.Add(size.vector(op), 1), 2)


@lowers("aten.median.dim")
def median_dim(op: Emitter, x: ir.Value, dim: int, keepdim: bool = False) -> tuple[ir.Value, ir.Value]:
    """The lower median of an axis."""
    if op.rank(x) == 0:
        return x, op.constant(0)
    return _kth(op, x, _middle(op, op.size(x, dim)), dim, keepdim)


@lowers("aten.median.default")
def median(op: Emitter, x: ir.Value) -> ir.Value:
    """The lower median of all elements."""
    flat = op.reshape(x, [merged(op.dims(x))])
    return _kth(op, flat, _middle(op, op.size(flat, 0)), 0, False)[0]


@lowers("aten.nanmedian.default")
def nanmedian(op: Emitter, x: ir.Value) -> ir.Value:
    """The lower median of all elements that are numbers."""
    flat = op.reshape(x, [merged(op.dims(x))])
    return _nanmedian(op, flat, 0, False)[0]


@lowers("aten.nanmedian.dim")
def nanmedian_dim(op: Emitter, x: ir.Value, dim: int, keepdim: bool = False) -> tuple[ir.Value, ir.Value]:
    """The lower median of an axis, of what is a number."""
    if op.rank(x) == 0:
        return x, op.constant(0)
    return _nanmedian(op, x, dim % op.rank(x), keepdim)


def _nanmedian(op: Emitter, x: ir.Value, axis: int, keepdim: bool) -> tuple[ir.Value, ir.Value]:
    if not is_float(x.dtype):
        return _kth(op, x, _middle(op, op.size(x, axis)), axis, keepdim)
    assert x.dtype is not None
    missing = op.IsNaN(x)
    known = op.Where(missing, op.scalar(float("inf"), x.dtype), x)
    values, places = top(op, known, op.size(x, axis), axis, largest=False)
    count = op.ReduceSum(op.cast(op.Not(missing), _INT64), [axis], keepdims=1)
    # no number at all: the position must stay inside, and the median is NaN
    middle = op.Max(op.Div(op.Sub(count, 1), 2), 0)
    value = op.GatherElements(values, middle, axis=axis)
    nothing = op.Equal(count, 0)
    value = op.Where(nothing, op.scalar(float("nan"), x.dtype), value)
    place = op.GatherElements(places, middle, axis=axis)
    return (value, place) if keepdim else (op.squeeze(value, [axis]), op.squeeze(place, [axis]))


@lowers("aten.mode.default")
def mode(op: Emitter, x: ir.Value, dim: int = -1, keepdim: bool = False) -> tuple[ir.Value, ir.Value]:
    """The smallest of the most frequent elements of an axis, and where it stands last: all pairs compared."""
    if op.rank(x) == 0:
        return x, op.constant(0)
    dtype = x.dtype
    assert dtype is not None
    carrier = ir.DataType.INT32 if dtype == _BOOL else dtype
    axis = dim % op.rank(x)
    last = op.rank(x) - 1
    swap = list(range(op.rank(x)))
    swap[axis], swap[last] = swap[last], swap[axis]
    rows = op.transpose(op.cast(x, carrier), swap)
    pairs = op.Equal(op.Unsqueeze(rows, [last + 1]), op.Unsqueeze(rows, [last]))
    counts = op.ReduceSum(op.cast(pairs, _INT64), [-1], keepdims=0)
    most = op.Equal(counts, op.ReduceMax(counts, [-1], keepdims=1))
    value = op.ReduceMin(op.Where(most, rows, op.scalar(neutral_of("amin", carrier), carrier)), [-1], keepdims=1)
    place = op.ArgMax(op.cast(op.Equal(rows, value), ir.DataType.INT32), axis=-1, keepdims=1, select_last_index=1)
    value, place = op.cast(op.transpose(value, swap), dtype), op.transpose(place, swap)
    return (value, place) if keepdim else (op.squeeze(value, [axis]), op.squeeze(place, [axis]))


# -- distinct elements -------------------------------------------------------------------------------------------------


def _unique(op: Emitter, x: ir.Value, axis: int | None) -> tuple[ir.Value, ir.Value, ir.Value]:
    dtype = x.dtype
    assert dtype is not None
    carrier = ir.DataType.INT8 if dtype == _BOOL else dtype
    values, _, inverse, counts = op.Unique(op.cast(x, carrier), axis=axis, sorted=1, _outputs=4)
    return op.cast(values, dtype), inverse, counts


@lowers("aten._unique2.default", "aten._unique.default")
def unique(
    op: Emitter, x: ir.Value, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> tuple[ir.Value, ...]:
    """The distinct elements in order, where each element went, and how many there are of each."""
    values, inverse, counts = _unique(op, x, None)
    results = (values, op.reshape(inverse, op.dims(x)), counts)
    return results if "unique2" in op.target else results[:2]


@lowers("aten.unique_dim.default")
def unique_dim(
    op: Emitter,
    x: ir.Value,
    dim: int,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> tuple[ir.Value, ...]:
    """The distinct slabs of an axis."""
    return _unique(op, x, dim % op.rank(x))


@lowers("aten.unique_consecutive.default")
def unique_consecutive(
    op: Emitter, x: ir.Value, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> tuple[ir.Value, ...]:
    """The first element (or slab) of every run of equal ones."""
    data = op.reshape(x, [merged(op.dims(x))]) if dim is None else x
    axis = 0 if dim is None else dim % op.rank(x)
    changed = op.Not(op.Equal(op.slice(data, axis, 1, 2**63 - 1), op.slice(data, axis, 0, -1)))
    if op.rank(data) > 1:
        others = [place for place in range(op.rank(data)) if place != axis]
        changed = op.cast(op.ReduceMax(op.cast(changed, ir.DataType.INT32), others, keepdims=0), _BOOL)
    first = op.Concat(op.constant([True]), changed, axis=0)
    if not isinstance(length := op.size(data, axis), int) or length == 0:
        first = op.slice(first, 0, 0, length)  # nothing begins where there is nothing
    inverse = op.Sub(op.CumSum(op.cast(first, _INT64), op.constant(0)), 1)
    starts = op.reshape(nonzero_rows(op, first), [-1])
    ends = op.Concat(op.slice(starts, 0, 1, 2**63 - 1), op.Shape(first), axis=0)
    shaped = op.reshape(inverse, op.dims(x)) if dim is None else inverse
    return compressed(op, data, first, axis), shaped, op.Sub(ends, starts)


# -- places in a sorted sequence ---------------------------------------------------------------------------------------


def _placed(op: Emitter, boundaries: ir.Value, values: ir.Value, right: bool, dtype: ir.DataType) -> ir.Value:
    """How many boundaries lie below each value (``right``: not above it)."""
    if 0 in op.result_dims():
        return empty(op)
    kind = op.compute_dtype(boundaries, values)
    kind = ir.DataType.INT32 if kind == _BOOL else kind
    each = op.unsqueeze(op.cast(values, kind), [op.rank(values)])
    edges = op.cast(boundaries, kind)
    if op.rank(boundaries) > 1:
        edges = op.unsqueeze(edges, [op.rank(boundaries) - 1])
    below = op.LessOrEqual(edges, each) if right else op.Less(edges, each)
    return op.ReduceSum(op.cast(below, dtype), [-1], keepdims=0)


@lowers("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def bucketize(
    op: Emitter, values: Any, boundaries: ir.Value, *, out_int32: bool = False, right: bool = False
) -> ir.Value:
    """The bucket of each value."""
    value = values if isinstance(values, ir.Value) else op.scalar(values)
    return _placed(op, boundaries, value, right, op.dtype_of())


@lowers("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(
    op: Emitter,
    sequence: ir.Value,
    values: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: ir.Value | None = None,
) -> ir.Value:
    """Where each value would be inserted to keep the sequence sorted."""
    if sorter is not None:
        sequence = op.GatherElements(sequence, sorter, axis=-1)
    value = values if isinstance(values, ir.Value) else op.scalar(values)
    return _placed(op, sequence, value, right or side == "right", op.dtype_of())
