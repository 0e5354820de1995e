"""Views of the same elements: reshape, squeeze, transpose, expand and their kin."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__ = ["broadcast_sizes", "empty", "grown", "merged", "permuted", "strided_positions"]


# Weights above this size keep their Transpose node: a second copy in the file would cost more than the node.
_PERMUTED_BYTES = 16 << 20

# -- one shape to another ----------------------------------------------------------------------------------------------


@lowers(
    "aten.view.default",
    "aten.view_copy.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten._reshape_alias.default",
    "aten._reshape_copy.default",
)
def reshape(op: Emitter, x: ir.Value, size: Sequence[Dim], *_: Any) -> ir.Value:
    """Reshape with as little shape arithmetic as the sizes allow."""
    return op.reshape(x, size, op.result_dims())


@lowers("aten.view_as.default", "aten.reshape_as.default")
def reshape_as(op: Emitter, x: ir.Value, other: ir.Value) -> ir.Value:
    """Reshape to the sizes of another tensor."""
    return op.reshape(x, op.dims(other), op.result_dims())


@lowers("aten.view.dtype", "aten.view_copy.dtype")
def view_dtype(op: Emitter, x: ir.Value, dtype: Any) -> ir.Value:
    """The same bits read as another dtype of the same width.

    Raises:
        LoweringError: the widths differ.
    """
    wanted = op.dtype_of()
    assert x.dtype is not None
    if x.dtype == wanted:
        return x
    if x.dtype.bitwidth != wanted.bitwidth:
        raise op.fail(f"a view of {x.dtype.name} as {wanted.name} changes the element size, which has no ONNX form")
    if x.dtype == ir.DataType.BOOL:  # a byte of 0 or 1
        return op.cast(x, wanted)
    return op.BitCast(x, to=wanted)


@lowers("aten.flatten.using_ints", "aten.ravel.default")
def flatten(op: Emitter, x: ir.Value, start_dim: int = 0, end_dim: int = -1) -> ir.Value:
    """Merge neighbouring axes."""
    rank = op.rank(x)
    if rank == 0:
        return op.reshape(x, [1])
    dims = op.dims(x)
    start, end = start_dim % rank, end_dim % rank
    return op.reshape(x, [*dims[:start], merged(dims[start : end + 1]), *dims[end + 1 :]], op.result_dims())


@lowers("aten.unflatten.int")
def unflatten(op: Emitter, x: ir.Value, dim: int, sizes: Sequence[Dim]) -> ir.Value:
    """Cut one axis into several."""
    dims = op.dims(x)
    dim %= len(dims)
    return op.reshape(x, [*dims[:dim], *sizes, *dims[dim + 1 :]], op.result_dims())


def empty(op: Emitter) -> ir.Value:
    """The operator's result where it is known to be empty."""
    shape = op.result_dims()
    if 0 not in shape or not all(isinstance(size, int) for size in shape):
        raise op.fail("a result without elements was expected")
    return op.constant(np.zeros([int(size) for size in shape], dtype=op.dtype_of().numpy()), op.dtype_of())


def merged(dims: Sequence[Dim]) -> Dim:
    """The size of merged axes: their product when it is known, else -1."""
    fixed = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(fixed) if len(fixed) == len(dims) else -1


@lowers("aten.squeeze.default", "aten.squeeze_copy.default")
def squeeze(op: Emitter, x: ir.Value) -> ir.Value:
    """Drop every axis of size 1."""
    return op.squeeze(x, [axis for axis, size in enumerate(op.dims(x)) if size == 1])


@lowers("aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze_copy.dim", "aten.squeeze_copy.dims")
def squeeze_dims(op: Emitter, x: ir.Value, dim: int | Sequence[int]) -> ir.Value:
    """Drop the named axes that have size 1."""
    if op.rank(x) == 0:
        return x
    axes = [dim] if isinstance(dim, int) else list(dim)
    return op.squeeze(x, sorted({axis % op.rank(x) for axis in axes if op.size(x, axis) == 1}))


@lowers("aten.unsqueeze.default", "aten.unsqueeze_copy.default")
def unsqueeze(op: Emitter, x: ir.Value, dim: int) -> ir.Value:
    """Insert an axis of size 1."""
    return op.unsqueeze(x, [dim % (op.rank(x) + 1)])


@lowers("aten.atleast_1d.default", "aten.atleast_2d.default", "aten.atleast_3d.default")
def atleast(op: Emitter, x: ir.Value) -> ir.Value:
    """Grow to a rank of at least 1, 2 or 3."""
    return grown(op, x, int(op.target.split("_")[1][0]))


@lowers("aten.atleast_1d.Sequence", "aten.atleast_2d.Sequence", "aten.atleast_3d.Sequence")
def atleast_all(op: Emitter, tensors: Sequence[ir.Value]) -> list[ir.Value]:
    """Grow each to a rank of at least 1, 2 or 3."""
    return [grown(op, x, int(op.target.split("_")[1][0])) for x in tensors]


def grown(op: Emitter, x: ir.Value, rank: int) -> ir.Value:
    """``torch.atleast_<rank>d``."""
    missing = rank - op.rank(x)
    if missing <= 0:
        return x
    if rank == 3:
        return op.unsqueeze(x, {1: [2], 2: [0, 2], 3: [0, 1, 2]}[missing])
    return op.unsqueeze(x, list(range(missing)))


# -- order of axes -----------------------------------------------------------------------------------------------------


def permuted(op: Emitter, x: ir.Value, perm: Sequence[int]) -> ir.Value:
    """Axes in another order; a weight becomes another view of its storage."""
    perm = [axis % len(perm) for axis in perm]
    if perm == list(range(len(perm))):
        return x
    weight = op.weight(x)
    if weight is not None and weight.numel() * weight.element_size() <= _PERMUTED_BYTES:
        return op.tensor(weight.permute(perm), name=f"{x.name}.permuted")
    return op.transpose(x, perm)


@lowers(
    "aten.transpose.int",
    "aten.transpose_copy.int",
    "aten.swapaxes.default",
    "aten.swapdims.default",
)
def transpose(op: Emitter, x: ir.Value, dim0: int, dim1: int) -> ir.Value:
    """Exchange two axes."""
    perm = list(range(op.rank(x)))
    if not perm:
        return x
    perm[dim0], perm[dim1] = perm[dim1], perm[dim0]
    return permuted(op, x, perm)


@lowers("aten.permute.default", "aten.permute_copy.default")
def permute(op: Emitter, x: ir.Value, dims: Sequence[int]) -> ir.Value:
    """Axes in the given order."""
    return permuted(op, x, list(dims))


@lowers("aten.t.default", "aten.t_copy.default", "aten.numpy_T.default", "aten.matrix_H.default")
def reverse_axes(op: Emitter, x: ir.Value) -> ir.Value:
    """Axes in reverse order."""
    return permuted(op, x, list(range(op.rank(x)))[::-1])


@lowers("aten.mT.default", "aten.mH.default", "aten.adjoint.default")
def matrix_transpose(op: Emitter, x: ir.Value) -> ir.Value:
    """Exchange the last two axes."""
    perm = list(range(op.rank(x)))
    if len(perm) < 2:
        return x
    return permuted(op, x, [*perm[:-2], perm[-1], perm[-2]])


@lowers("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def movedim(op: Emitter, x: ir.Value, source: int | Sequence[int], destination: int | Sequence[int]) -> ir.Value:
    """Move axes to new places; the others keep their order."""
    rank = op.rank(x)
    if rank == 0:
        return x
    sources = [axis % rank for axis in ([source] if isinstance(source, int) else source)]
    places = [axis % rank for axis in ([destination] if isinstance(destination, int) else destination)]
    rest = iter(axis for axis in range(rank) if axis not in sources)
    taken = dict(zip(places, sources, strict=True))
    return permuted(op, x, [taken[place] if place in taken else next(rest) for place in range(rank)])


# -- broadcasting ------------------------------------------------------------------------------------------------------


@lowers("aten.expand.default", "aten.expand_copy.default", "aten.broadcast_to.default")
def expand(op: Emitter, x: ir.Value, size: Sequence[Dim], *, implicit: bool = False) -> ir.Value:
    """Broadcast; sizes that are known to be those of the operand cost nothing."""
    known = op.result_dims()
    return op.expand(x, [label if isinstance(label, int) else dim for label, dim in zip(known, size, strict=True)])


@lowers("aten.expand_as.default")
def expand_as(op: Emitter, x: ir.Value, other: ir.Value) -> ir.Value:
    """Broadcast to the sizes of another tensor."""
    return op.expand(x, op.dims(other))


@lowers("aten.broadcast_tensors.default")
def broadcast_tensors(op: Emitter, tensors: Sequence[ir.Value]) -> list[ir.Value]:
    """Broadcast all to their common shape."""
    dims = broadcast_sizes(op, *tensors)
    return [op.expand(x, dims) for x in tensors]


def broadcast_sizes(op: Emitter, *values: ir.Value) -> list[Dim]:
    """The sizes that values broadcast to: on each axis a size that is not 1, a fixed one where there is one."""
    rank = max(op.rank(value) for value in values)
    result: list[Dim] = []
    for position in range(rank):
        best: Dim = 1
        for value in values:
            axis = position - (rank - op.rank(value))
            if axis < 0:
                continue
            size = op.size(value, axis)
            if best == 1 or (isinstance(size, int) and size != 1):
                best = size
        result.append(best)
    return result


@lowers("aten.meshgrid.default", "aten.meshgrid.indexing")
def meshgrid(op: Emitter, tensors: Sequence[ir.Value], *, indexing: str = "ij") -> list[ir.Value]:
    """Coordinate grids."""
    values = [op.unsqueeze(x, [0]) if op.rank(x) == 0 else x for x in tensors]
    swapped = indexing == "xy" and len(values) >= 2
    if swapped:
        values[0], values[1] = values[1], values[0]
    dims = [op.size(x, 0) for x in values]
    grids = []
    for axis, x in enumerate(values):
        others = [position for position in range(len(values)) if position != axis]
        grids.append(op.expand(op.unsqueeze(x, others), dims))
    if swapped:
        grids[0], grids[1] = grids[1], grids[0]
    return grids


# Sizes that a size is tried at, of which algebra does not tell whether it is another (`n // 8 * 8`, of a padded n).
_TRIED = (*range(2, 34), 48, 63, 64, 65, 127, 128, 250, 511, 512, 513, 1000, 1024, 4095)

# -- strides ---------------------------------------------------------------------------------------------------------


def strided_positions(
    op: Emitter, x: ir.Value, size: Sequence[Dim], stride: Sequence[Dim], offset: Dim | None
) -> np.ndarray:
    """Where in the flat tensor the elements of a view by strides stand, as an array of the view's shape.

    Raises:
        LoweringError: sizes or strides are dynamic, or the view reads memory that the operand does not look at.
    """
    fake = op.inputs[0]
    sizes = [item for item in size if isinstance(item, int)]
    strides = [item for item in stride if isinstance(item, int)]
    start = fake.storage_offset() if offset is None else offset
    fixed = len(sizes) == len(size) and len(strides) == len(stride)
    if not fixed or not isinstance(start, int) or not all(isinstance(dim, int) for dim in op.dims(x)):
        raise op.fail("strides of a dynamic tensor have no ONNX form", "use slicing, unfold or expand instead")
    positions = _memory(start, sizes, strides)
    own = _memory(int(fake.storage_offset()), list(fake.shape), list(fake.stride())).reshape(-1)
    # strides count through the memory, whatever the order in which the operand looks at it
    largest = max(own.max(initial=-1), positions.max(initial=-1)) + 1
    place = np.full(largest, -1, dtype=np.int64)
    place[own[::-1]] = np.arange(len(own), dtype=np.int64)[::-1]
    found: np.ndarray = place[positions]
    if (found < 0).any():
        raise op.fail(
            "the strides reach elements that the tensor does not look at",
            "call as_strided on the tensor that it is a view of",
        )
    return found


def _memory(start: int, sizes: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Where in memory the elements of a strided tensor stand."""
    positions = np.full(sizes, start, dtype=np.int64)
    for axis, (count, jump) in enumerate(zip(sizes, strides, strict=True)):
        steps = np.arange(count, dtype=np.int64) * jump
        positions += steps.reshape([-1 if place == axis else 1 for place in range(len(sizes))])
    return positions


def _dynamic_memory(op: Emitter, start: Dim, sizes: Sequence[Dim], strides: Sequence[Dim]) -> ir.Value:
    """The same, computed when the model runs."""
    positions = op.scalar(start, ir.DataType.INT64)
    for axis, (count, jump) in enumerate(zip(sizes, strides, strict=True)):
        steps = op.Range(0, op.scalar(count, ir.DataType.INT64), 1)
        steps = op.Mul(steps, op.scalar(jump, ir.DataType.INT64))
        positions = op.Add(positions, op.unsqueeze(steps, list(range(1, len(sizes) - axis))))
    return positions


def _order_in_memory(fake: torch.Tensor) -> list[int] | None:
    """The axes in the order in which a tensor's elements stand in memory, which nothing else is in; None elsewhere."""
    large = {symbol: _TRIED[-1] for size in fake.stride() for symbol in _expression(size).free_symbols}
    strides = [int(_expression(size).xreplace(large)) for size in fake.stride()]
    order = sorted(range(fake.dim()), key=lambda axis: -strides[axis])
    expected: Any = 1
    for axis in reversed(order):
        if not _is_same(fake.stride(axis), expected):
            return None
        expected = expected * fake.shape[axis]
    whole = fake.storage_offset() == 0 and _is_same(fake.untyped_storage().nbytes(), expected * fake.itemsize)
    return order if whole else None


def _expression(size: Any) -> Any:
    import sympy

    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two sizes are one number, whatever their symbols are: proved where algebra does, else tried."""
    import sympy

    apart = sympy.expand(_expression(one) - _expression(other))
    symbols = sorted(apart.free_symbols, key=str)
    draw = random.Random(0)
    tries = [{symbol: draw.choice(_TRIED) for symbol in symbols} for _ in range(len(_TRIED) if symbols else 1)]
    return all(apart.xreplace({k: sympy.Integer(v) for k, v in values.items()}) == 0 for values in tries)


@lowers("aten.as_strided.default", "aten.as_strided_copy.default")
def as_strided(
    op: Emitter, x: ir.Value, size: Sequence[Dim], stride: Sequence[Dim], storage_offset: Dim | None = None
) -> ir.Value:
    """A view by strides of what the operand looks at: one Gather of its elements."""
    dynamic = not all(isinstance(one, int) for one in (*size, *stride, *op.dims(x)))
    order = _order_in_memory(op.inputs[0]) if dynamic else None
    if order is not None:
        memory = op.reshape(op.transpose(x, order), [-1])
        return op.Gather(memory, _dynamic_memory(op, storage_offset or 0, size, stride), axis=0)
    positions = strided_positions(op, x, size, stride, storage_offset)
    count = int(op.inputs[0].numel())
    flat = op.reshape(x, [count])
    if np.array_equal(positions.reshape(-1), np.arange(count)):
        return op.reshape(flat, [int(extent) for extent in positions.shape])
    return op.Gather(flat, positions, axis=0)
