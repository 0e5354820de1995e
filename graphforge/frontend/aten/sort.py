"""Order: sort, topk, kthvalue, median, unique, searchsorted."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten.mask import compressed, nonzero_rows
from graphforge.frontend.aten.view import merged
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.kernels import kernel_dtype
from graphforge.frontend.rules import lowers

__all__ = ["top"]

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64


def top(
    op: Emitter, x: ir.Value, k: Dim | ir.Value, axis: int, *, largest: bool, is_sorted: bool = True
) -> tuple[ir.Value, ir.Value]:
    """The k first elements of an axis in order, and where they stood; ties keep their order."""
    dtype = x.dtype
    assert dtype is not None
    carrier = kernel_dtype("TopK", dtype)
    count = op.vector([k]) if not isinstance(k, ir.Value) else op.reshape(op.cast(k, _INT64), [1])
    values, places = op.TopK(
        op.cast(x, carrier),
        count,
        axis=axis,
        largest=None if largest else 0,
        sorted=None if is_sorted else 0,
        _outputs=2,
    )
    return op.cast(values, dtype), places


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


# -- distinct elements -------------------------------------------------------------------------------------------------


def _unique(op: Emitter, x: ir.Value, axis: int | None) -> tuple[ir.Value, ir.Value, ir.Value]:
    dtype = x.dtype
    assert dtype is not None
    carrier = kernel_dtype("Unique", dtype)
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
    inverse = op.Sub(op.CumSum(op.cast(first, _INT64), op.constant(0)), 1)
    starts = op.reshape(nonzero_rows(op, first), [-1])
    ends = op.Concat(op.slice(starts, 0, 1, 2**63 - 1), op.Shape(first), axis=0)
    shaped = op.reshape(inverse, op.dims(x)) if dim is None else inverse
    return compressed(op, data, first, axis), shaped, op.Sub(ends, starts)


# -- places in a sorted sequence ---------------------------------------------------------------------------------------


def _placed(op: Emitter, boundaries: ir.Value, values: ir.Value, right: bool, dtype: ir.DataType) -> ir.Value:
    """How many boundaries lie below each value (``right``: not above it)."""
    kind = op.compute_dtype(boundaries, values)
    kind = kernel_dtype("Less", kind)
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
