"""Parts of axes: select, slice, narrow, unbind, split, chunk, unfold."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.emitter import Dim, Emitter, SymbolicScalar, dim_label_of
from graphforge.frontend.rules import lowers

__all__ = ["sliced"]


_MAX_INT64 = 2**63 - 1


@lowers("aten.select.int", "aten.select_copy.int")
def select(op: Emitter, x: ir.Value, dim: int, index: Dim) -> ir.Value:
    """One slab of an axis."""
    if isinstance(index, int):
        return op.Gather(x, index, axis=dim % op.rank(x))
    return op.Gather(x, op.scalar(index, ir.DataType.INT64), axis=dim % op.rank(x))


def sliced(
    op: Emitter, x: ir.Value, axis: int, start: Dim | ir.Value | None, end: Dim | ir.Value | None, step: Dim = 1
) -> ir.Value:
    """``x[start:end:step]`` on one axis; None stands for the axis' own bound."""
    start = 0 if start is None else start
    end = _MAX_INT64 if end is None else end
    if isinstance(end, SymbolicScalar) and end.label == dim_label_of(op.size(x, axis)):
        end = _MAX_INT64
    if isinstance(start, ir.Value) or isinstance(end, ir.Value):
        return op.Slice(x, op.vector([start]), op.vector([end]), [axis], op.vector([step]))
    return op.slice(x, axis, start, end, step)


@lowers("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_(
    op: Emitter, x: ir.Value, dim: int = 0, start: Dim | None = None, end: Dim | None = None, step: Dim = 1
) -> ir.Value:
    """A range of an axis."""
    return sliced(op, x, dim % op.rank(x), start, end, step)


@lowers("aten.narrow.default", "aten.narrow_copy.default", "aten.narrow.Tensor")
def narrow(op: Emitter, x: ir.Value, dim: int, start: Dim | ir.Value, length: Dim) -> ir.Value:
    """``length`` elements of an axis from ``start`` on."""
    axis = dim % op.rank(x)
    if isinstance(start, ir.Value):
        known = op.number(start)
        start = int(known) if known is not None else op.reshape(op.cast(start, ir.DataType.INT64), [1])
    if isinstance(start, int) and isinstance(length, int):
        end = start + length
        return sliced(op, x, axis, start, _MAX_INT64 if start < 0 and end >= 0 else end)
    if isinstance(start, int) and start == 0:
        return sliced(op, x, axis, 0, length)
    size = op.size(x, axis)
    first = op.vector([start])
    if isinstance(start, int):
        # a negative start counts from the end: make it count from the front before the length is added
        first = op.Add(op.vector([size]), start) if start < 0 else op.constant([start])
    first = op.constant(first)
    end_value: ir.Value = op.Add(first, op.constant(op.vector([length])))
    return sliced(op, x, axis, first, end_value)


@lowers("aten.unbind.int", "aten.unbind_copy.int")
def unbind(op: Emitter, x: ir.Value, dim: int = 0) -> list[ir.Value]:
    """Every slab of an axis."""
    axis = dim % op.rank(x)
    count = len(op.result)
    if count == 1:
        return [op.squeeze(x, [axis])]
    return [op.Gather(x, index, axis=axis) for index in range(count)]


def _pieces(op: Emitter, x: ir.Value, axis: int, sizes: Sequence[Dim]) -> list[ir.Value]:
    """Cut an axis into pieces of the given sizes, which must add up to it."""
    if len(sizes) == 1:
        return [x]
    first = sizes[0]
    if all(dim_label_of(size) == dim_label_of(first) for size in sizes):
        return list(op.Split(x, axis=axis, num_outputs=len(sizes), _outputs=len(sizes)))
    return list(op.Split(x, op.vector(sizes), axis=axis, _outputs=len(sizes)))


@lowers(
    "aten.split.Tensor",
    "aten.split_copy.Tensor",
    "aten.unsafe_split.Tensor",
)
def split(op: Emitter, x: ir.Value, split_size: Dim, dim: int = 0) -> list[ir.Value]:
    """Pieces of one size; the last may be shorter."""
    axis = dim % op.rank(x)
    count = len(op.result)
    known = [op.result_dims(index)[axis] for index in range(count)]
    if all(isinstance(size, int) for size in known):
        return _pieces(op, x, axis, [int(size) for size in known])
    if len(set(known)) == 1:
        return _pieces(op, x, axis, [split_size] * count)
    last: Dim
    if isinstance(known[-1], int):
        last = known[-1]
    else:
        label = str(known[-1])

        def rest(emit: Emitter) -> ir.Value:
            before = emit.Mul(emit.constant(emit.vector([split_size])), count - 1)
            return emit.Sub(emit.constant(emit.vector([emit.size(x, axis)])), before)

        last = SymbolicScalar(label, vector=rest)
    return _pieces(op, x, axis, [*[split_size] * (count - 1), last])


@lowers(
    "aten.split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
    "aten.unsafe_split_with_sizes.default",
    "aten.split.sizes",
)
def split_with_sizes(op: Emitter, x: ir.Value, sizes: Sequence[Dim], dim: int = 0) -> list[ir.Value]:
    """Pieces of the given sizes."""
    axis = dim % op.rank(x)
    known = [op.result_dims(index)[axis] for index in range(len(sizes))]
    return _pieces(op, x, axis, [k if isinstance(k, int) else s for k, s in zip(known, sizes, strict=True)])


@lowers("aten.chunk.default", "aten.unsafe_chunk.default")
def chunk(op: Emitter, x: ir.Value, chunks: int, dim: int = 0) -> list[ir.Value]:
    """At most ``chunks`` pieces of equal size; the last may be shorter (ONNX Split cuts in the same way)."""
    axis = dim % op.rank(x)
    count = len(op.result)
    known = [op.result_dims(index)[axis] for index in range(count)]
    if all(isinstance(size, int) for size in known):
        return _pieces(op, x, axis, [int(size) for size in known])
    if count != chunks:
        raise op.fail(f"{chunks} chunks of a dynamic axis gave {count} pieces", "give the axis a fixed size")
    if count == 1:
        return [x]
    return list(op.Split(x, axis=axis, num_outputs=count, _outputs=count))


@lowers("aten.tensor_split.sections", "aten.hsplit.int", "aten.vsplit.int", "aten.dsplit.int")
def tensor_split(op: Emitter, x: ir.Value, sections: int, dim: int = 0) -> list[ir.Value]:
    """As many pieces as asked for; the first ones are longer by one where the sizes do not go up."""
    axis = _split_axis(op, x, dim)
    count = len(op.result)
    known = [op.result_dims(index)[axis] for index in range(count)]
    if all(isinstance(size, int) for size in known):
        return _pieces(op, x, axis, [int(size) for size in known])
    if len(set(known)) == 1:
        return list(op.Split(x, axis=axis, num_outputs=count, _outputs=count)) if count > 1 else [x]
    # piece i ends after i * (size // count) elements and one of the remaining ones for each piece before it
    whole = op.constant(op.vector([op.size(x, axis)]))
    steps = np.arange(count, dtype=np.int64)
    lengths = op.Div(op.Sub(whole, steps - (count - 1)), count)
    return list(op.Split(x, lengths, axis=axis, _outputs=count))


@lowers("aten.tensor_split.indices", "aten.hsplit.array", "aten.vsplit.array", "aten.dsplit.array")
def tensor_split_indices(op: Emitter, x: ir.Value, indices: Sequence[Dim], dim: int = 0) -> list[ir.Value]:
    """Pieces between the given positions."""
    axis = _split_axis(op, x, dim)
    known = [op.result_dims(index)[axis] for index in range(len(indices) + 1)]
    total = op.size(x, axis)
    if all(isinstance(size, int) for size in known) and sum(int(size) for size in known) == total:
        return _pieces(op, x, axis, [int(size) for size in known])
    bounds = [None, *indices, None]
    return [sliced(op, x, axis, low, high) for low, high in itertools.pairwise(bounds)]


def _split_axis(op: Emitter, x: ir.Value, dim: int) -> int:
    if "hsplit" in op.target:
        return min(1, op.rank(x) - 1)
    if "dsplit" in op.target:
        return 2
    return dim % op.rank(x)


@lowers("aten.unfold.default", "aten.unfold_copy.default")
def unfold(op: Emitter, x: ir.Value, dimension: int, size: int, step: int) -> ir.Value:
    """Windows of an axis, as a new last axis."""
    rank = op.rank(x)
    if rank == 0:
        return op.reshape(x, [size])
    axis = dimension % rank
    length = op.size(x, axis)
    offsets = np.arange(size, dtype=np.int64)
    if isinstance(length, int):
        count = (length - size) // step + 1
        if size == step and count * size == length:
            dims = op.dims(x)
            windows = op.reshape(x, [*dims[:axis], count, size, *dims[axis + 1 :]])
        else:
            fixed = np.arange(count, dtype=np.int64) * step
            windows = op.Gather(x, fixed[:, None] + offsets[None, :], axis=axis)
    else:
        end = op.Sub(length.scalar(op), size - 1)
        starts = op.Unsqueeze(op.Range(op.constant(0), end, op.constant(step)), [1])
        windows = op.Gather(x, op.Add(starts, offsets[None, :]), axis=axis)
    order = [place for place in range(rank + 1) if place != axis + 1]
    return op.transpose(windows, [*order, axis + 1])
