"""Indexing by tensors: index, index_put, index_select, gather, take."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.compare import choose
from graphforge.frontend.aten.mask import compressed, nonzero_rows
from graphforge.frontend.aten.view import broadcast_sizes, empty, merged
from graphforge.frontend.emitter import Dim, Emitter, dim_label_of
from graphforge.frontend.rules import lowers
from graphforge.ir import constant_of

__all__ = ["gather_index"]

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64
_MASKS = {_BOOL, ir.DataType.UINT8}


@dataclass(slots=True)
class _Indices:
    """``x[None, i, j, None]``: the indexed axes of ``x`` and their int64 indices, which broadcast together."""

    x: ir.Value
    axes: list[int]
    values: list[ir.Value]

    @property
    def adjacent(self) -> bool:
        """Whether the indexed axes are neighbours: the result's index axes then stay in place, else go in front."""
        return self.axes == list(range(self.axes[0], self.axes[0] + len(self.axes)))


def _single_mask(op: Emitter, indices: Sequence[ir.Value | None]) -> tuple[int, ir.Value] | None:
    """(axis, mask) when the only index is a mask."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and given[0][1].dtype in _MASKS and op.rank(given[0][1]) > 0:
        return given[0]
    return None


def _resolved(op: Emitter, x: ir.Value, indices: Sequence[ir.Value | None]) -> _Indices:
    """Masks turned into positions, the rest into int64 (int32 is left where one Gather does)."""
    axes: list[int] = []
    values: list[ir.Value] = []
    axis = 0
    for index in indices:
        if index is None:
            axis += 1
            continue
        if index.dtype in _MASKS:
            if op.rank(index) == 0:  # x[True] adds an axis
                x = op.unsqueeze(x, [axis])
                index = op.unsqueeze(index, [0])
            rank = op.rank(index)
            rows = nonzero_rows(op, op.cast(index, _BOOL))
            for position in range(rank):
                axes.append(axis + position)
                values.append(op.reshape(rows, [-1]) if rank == 1 else op.Gather(rows, position, axis=0))
            axis += rank
            continue
        axes.append(axis)
        values.append(index)
        axis += 1
    if len(values) > 1:
        values = [op.cast(value, _INT64) for value in values]
    return _Indices(x, axes, values)


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(op: Emitter, x: ir.Value, indices: Sequence[ir.Value | None]) -> ir.Value:
    """``x[i, :, j]``: Compress for a mask, Gather for one index, GatherND for several."""
    mask = _single_mask(op, indices)
    if mask is not None:
        axis, which = mask
        rank = op.rank(which)
        if rank > 1:
            dims = op.dims(x)
            x = op.reshape(x, [*dims[:axis], merged(dims[axis : axis + rank]), *dims[axis + rank :]])
            which = op.reshape(which, [merged(op.dims(which))])
        return compressed(op, x, which, axis)
    which_axes = _resolved(op, x, indices)
    x = which_axes.x
    if not which_axes.axes:
        return x
    if len(which_axes.axes) == 1:
        return op.Gather(x, gather_index(op, which_axes.values[0]), axis=which_axes.axes[0])
    for form in (_outer, _row_by_row, _flat_constant):
        result = form(op, which_axes)
        if result is not None:
            return result
    return _gather_nd(op, which_axes)


def gather_index(op: Emitter, value: ir.Value) -> ir.Value:
    """An index as Gather takes it: int32 and int64."""
    return value if value.dtype == ir.DataType.INT32 else op.cast(value, _INT64)


def _spans(op: Emitter, value: ir.Value, size: Dim) -> bool:
    """Whether an index is 0, 1, ..., size - 1, whatever axes of size 1 it has beside: it picks everything."""
    constant = constant_of(value)
    if constant is not None:
        return isinstance(size, int) and np.array_equal(constant.reshape(-1), np.arange(size))
    node = value.producer()
    while node is not None and node.op_type in ("Unsqueeze", "Reshape", "Squeeze", "Cast"):
        assert node.inputs[0] is not None
        value = node.inputs[0]
        node = value.producer()
    if node is None or node.op_type != "Range" or op.number(node.inputs[0]) != 0 or op.number(node.inputs[2]) != 1:
        return False
    return dim_label_of(op.size(value, 0)) == dim_label_of(size)


def _outer(op: Emitter, indices: _Indices) -> ir.Value | None:
    """Indices that vary along different axes of the result (``x[i[:, None], j]``): a Gather each."""
    common = max(op.rank(value) for value in indices.values)
    places: list[int | None] = []
    for value in indices.values:
        moving = [axis + common - op.rank(value) for axis, size in enumerate(op.dims(value)) if size != 1]
        if len(moving) > 1:
            return None
        places.append(moving[0] if moving else None)
    taken = [place for place in places if place is not None]
    if len(set(taken)) < len(taken):
        return None
    x = indices.x
    for axis, value in zip(indices.axes, indices.values, strict=True):
        if not _spans(op, value, op.size(x, axis)):
            flat = value if op.rank(value) == 1 else op.reshape(value, [merged(op.dims(value))])
            x = op.Gather(x, flat, axis=axis)
    # the axes in torch's order: those that vary at their places in the indices, one of size 1 for every other place
    start = indices.axes[0] if indices.adjacent else 0
    rest = [axis for axis in range(op.rank(x)) if axis not in indices.axes]
    of_place = {place: axis for axis, place in zip(indices.axes, places, strict=True) if place is not None}
    single = [axis for axis, place in zip(indices.axes, places, strict=True) if place is None]
    varying = [of_place[place] for place in sorted(of_place)]
    x = op.transpose(x, [*rest[:start], *varying, *rest[start:], *single])
    x = op.squeeze(x, list(range(op.rank(x) - len(single), op.rank(x))))
    return op.unsqueeze(x, [start + place for place in range(common) if place not in of_place])


def _row_by_row(op: Emitter, indices: _Indices) -> ir.Value | None:
    """``x[arange(n), i]``: one pick from every slab of the first axis."""
    first, *others = indices.values
    if indices.axes != list(range(len(indices.axes))) or op.rank(first) != 1:
        return None
    length = dim_label_of(op.size(first, 0))
    alike = all(op.rank(value) == 1 and dim_label_of(op.size(value, 0)) == length for value in others)
    if not alike or not _spans(op, first, op.size(indices.x, 0)):
        return None
    return op.GatherND(indices.x, _index_rows(op, others), batch_dims=1)


def _flat_constant(op: Emitter, indices: _Indices) -> ir.Value | None:
    """Constant indices of neighbouring fixed axes: the axes merged and one Gather."""
    axes, x = indices.axes, indices.x
    sizes = [op.size(x, axis) for axis in axes]
    fixed = [size for size in sizes if isinstance(size, int)]
    arrays = [value.const_value.numpy() for value in indices.values if value.const_value is not None]
    if not indices.adjacent or len(fixed) < len(sizes) or len(arrays) < len(axes):
        return None
    linear = np.ravel_multi_index(
        tuple(np.broadcast_arrays(*(array % size for array, size in zip(arrays, fixed, strict=True)))), fixed
    )
    dims = op.dims(x)
    joined = op.reshape(x, [*dims[: axes[0]], merged(fixed), *dims[axes[-1] + 1 :]])
    return op.Gather(joined, np.asarray(linear, dtype=np.int64), axis=axes[0])


def _index_rows(op: Emitter, values: Sequence[ir.Value]) -> ir.Value:
    """Indices broadcast together and stacked on a new last axis, as GatherND and ScatterND want them."""
    if len(values) == 1:
        return op.unsqueeze(op.cast(values[0], _INT64), [op.rank(values[0])])
    dims = broadcast_sizes(op, *values)
    columns = [op.unsqueeze(_spread(op, value, dims), [len(dims)]) for value in values]
    return op.Concat(*columns, axis=len(dims))


def _spread(op: Emitter, value: ir.Value, dims: Sequence[Dim]) -> ir.Value:
    """``expand`` that leaves out the node when the sizes are already these."""
    own = [dim_label_of(size) for size in op.dims(value)]
    if own == [dim_label_of(size) for size in dims]:
        return value
    return op.expand(value, dims)


def _front(op: Emitter, indices: _Indices) -> list[int]:
    """The order of axes that brings the indexed ones to the front."""
    return [*indices.axes, *[axis for axis in range(op.rank(indices.x)) if axis not in indices.axes]]


def _back(op: Emitter, indices: _Indices, index_rank: int) -> list[int]:
    """From ``[index..., rest...]`` to torch's order: the index axes moved behind the axes before them."""
    rest = op.rank(indices.x) - len(indices.axes)
    start = indices.axes[0] if indices.adjacent else 0
    before = [index_rank + axis for axis in range(start)]
    after = [index_rank + axis for axis in range(start, rest)]
    return [*before, *range(index_rank), *after]


def _gather_nd(op: Emitter, indices: _Indices) -> ir.Value:
    rows = _index_rows(op, indices.values)
    gathered = op.GatherND(op.transpose(indices.x, _front(op, indices)), rows)
    return op.transpose(gathered, _back(op, indices, op.rank(rows) - 1))


# -- writing -----------------------------------------------------------------------------------------------------------


@lowers("aten.index_put.default", "aten._unsafe_index_put.default", "aten._index_put_impl.default")
def index_put(
    op: Emitter,
    x: ir.Value,
    indices: Sequence[ir.Value | None],
    values: ir.Value,
    accumulate: bool = False,
    unsafe: bool = False,
) -> ir.Value:
    """``x[i, :, j] = values``: Where for a mask with values that broadcast, else ScatterND."""
    dtype = x.dtype
    assert dtype is not None
    mask = _single_mask(op, indices)
    if mask is not None and not accumulate:
        chosen_value = _put_where(op, x, *mask, values)
        if chosen_value is not None:
            return chosen_value
    which = _resolved(op, x, indices)
    if not which.axes:
        return op.Add(x, values) if accumulate else op.expand(values, op.dims(x))
    rows = _index_rows(op, which.values)
    index_rank = op.rank(rows) - 1
    front, back = _front(op, which), _back(op, which, index_rank)
    moved = op.transpose(which.x, front)
    rest = op.dims(moved)[len(which.axes) :]
    wanted: list[Dim] = [*op.dims(rows)[:-1], *rest]
    # torch broadcasts the values to the result's order of axes; ScatterND wants the index axes first
    updates = _spread(op, op.cast(values, dtype), [wanted[axis] for axis in back])
    updates = op.transpose(updates, [back.index(axis) for axis in range(len(back))])
    written = op.ScatterND(moved, rows, updates, reduction="add" if accumulate else None)
    written = op.transpose(written, [front.index(axis) for axis in range(len(front))])
    return written if which.x is x else op.reshape(written, op.dims(x))


def _put_where(op: Emitter, x: ir.Value, axis: int, mask: ir.Value, values: ir.Value) -> ir.Value | None:
    """``x[mask] = values`` where one value (or one row of the axes behind the mask) goes to every true place."""
    dtype = x.dtype
    assert dtype is not None
    depth = op.rank(mask)
    rest = op.rank(x) - axis - depth
    if op.rank(values) > rest:
        counted = op.rank(values) - rest - 1  # the axis of the values that runs over the true places
        if op.size(values, counted) != 1:
            return None
        values = op.unsqueeze(values, list(range(counted, counted + depth - 1)))
    which = op.unsqueeze(mask, list(range(depth, depth + rest)))
    return choose(op, op.cast(which, _BOOL), op.cast(values, dtype), x)


# -- along one axis ----------------------------------------------------------------------------------------------------


@lowers("aten.index_select.default")
def index_select(op: Emitter, x: ir.Value, dim: int, index: ir.Value) -> ir.Value:
    """Slabs of an axis in the order of ``index``."""
    if op.rank(x) == 0:
        return x
    if op.rank(index) == 0:
        index = op.unsqueeze(index, [0])
    return op.Gather(x, gather_index(op, index), axis=dim % op.rank(x))


@lowers("aten.gather.default")
def gather(op: Emitter, x: ir.Value, dim: int, index: ir.Value, *, sparse_grad: bool = False) -> ir.Value:
    """Elements picked on one axis, each place by its own index."""
    if op.rank(index) == 0 or op.rank(x) == 0:
        data = op.reshape(x, [1]) if op.rank(x) == 0 else x
        picked = op.Gather(data, op.cast(index, _INT64), axis=0)
        return picked if op.rank(index) == 1 or op.rank(x) == 0 else op.reshape(picked, [])
    if op.rank(index) != op.rank(x):  # torch lets an index without elements have any rank
        return empty(op)
    return op.GatherElements(x, gather_index(op, index), axis=dim % op.rank(x))


@lowers("aten.take.default")
def take(op: Emitter, x: ir.Value, index: ir.Value) -> ir.Value:
    """Elements of the flat tensor."""
    return op.Gather(op.reshape(x, [merged(op.dims(x))]), op.cast(index, _INT64), axis=0)


@lowers("aten.take_along_dim.default")
def take_along_dim(op: Emitter, x: ir.Value, indices: ir.Value, dim: int | None = None) -> ir.Value:
    """``gather`` with the other axes broadcast."""
    indices = op.cast(indices, _INT64)
    if dim is None:
        flat = op.reshape(x, [merged(op.dims(x))])
        return op.Gather(flat, op.reshape(indices, [merged(op.dims(indices))]), axis=0)
    axis = dim % op.rank(x)
    common = broadcast_sizes(op, x, indices)

    def spread(value: ir.Value) -> ir.Value:
        dims = list(common)
        dims[axis] = op.size(value, axis)
        return op.expand(value, dims)

    return op.GatherElements(spread(x), spread(indices), axis=axis)
