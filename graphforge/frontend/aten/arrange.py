"""Elements laid out anew: repeat, repeat_interleave, roll, flip, rot90, pixel and channel shuffles."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.pieces import sliced
from graphforge.frontend.aten.view import merged
from graphforge.frontend.emitter import Dim, Emitter, SymbolicScalar
from graphforge.frontend.rules import lowers
from graphforge.ir import constant_of

__all__ = []


_MAX_INT64 = 2**63 - 1


@lowers("aten.repeat.default", "aten.tile.default")
def repeat(op: Emitter, x: ir.Value, repeats: Sequence[Dim]) -> ir.Value:
    """The tensor laid side by side; new axes come first."""
    rank = op.rank(x)
    counts: list[Dim] = [*[1] * (rank - len(repeats)), *repeats]
    value = op.unsqueeze(x, list(range(len(counts) - rank)))
    if all(count == 1 for count in counts):
        return value
    return op.Tile(value, op.vector(counts))


@lowers("aten.repeat_interleave.self_int")
def repeat_interleave(
    op: Emitter, x: ir.Value, repeats: Dim, dim: int | None = None, *, output_size: Dim | None = None
) -> ir.Value:
    """Every element of an axis a number of times: one Gather where the size is fixed."""
    if dim is None or op.rank(x) == 0:
        x, dim = op.reshape(x, [merged(op.dims(x))]), 0
    axis = dim % op.rank(x)
    dims = op.dims(x)
    size = dims[axis]
    if repeats == 1:
        return x
    if isinstance(size, int) and isinstance(repeats, int):
        return op.Gather(x, np.repeat(np.arange(size, dtype=np.int64), repeats), axis=axis)
    ones: list[Dim] = [1] * (axis + 1)
    wide = op.expand(op.unsqueeze(x, [axis + 1]), [*ones, repeats, *[1] * (op.rank(x) - axis - 1)])
    total = merged([size, repeats])
    return op.reshape(wide, [*dims[:axis], total, *dims[axis + 1 :]], op.result_dims())


@lowers("aten.repeat_interleave.self_Tensor")
def repeat_interleave_each(
    op: Emitter, x: ir.Value, repeats: ir.Value, dim: int | None = None, *, output_size: Dim | None = None
) -> ir.Value:
    """Every element of an axis its own number of times."""
    if dim is None or op.rank(x) == 0:
        x, dim = op.reshape(x, [merged(op.dims(x))]), 0
    axis = dim % op.rank(x)
    counts = op.reshape(repeats, [1]) if op.rank(repeats) == 0 else repeats
    if op.size(counts, 0) == 1:
        counts = op.expand(counts, [op.size(x, axis)])
    return op.Gather(x, interleaved(op, counts), axis=axis)


@lowers("aten.repeat_interleave.Tensor")
def repeat_interleave_positions(op: Emitter, repeats: ir.Value, *, output_size: Dim | None = None) -> ir.Value:
    """Every position a number of times."""
    return op.cast(interleaved(op, repeats), op.dtype_of())


def interleaved(op: Emitter, counts: ir.Value) -> ir.Value:
    """0 ``counts[0]`` times, 1 ``counts[1]`` times, ...: the running sum of marks set where each run starts."""
    constant = constant_of(counts)
    if constant is not None:
        return op.constant(np.repeat(np.arange(constant.size, dtype=np.int64), constant))
    counts = op.cast(counts, ir.DataType.INT64)
    total = op.ReduceSum(counts, [0], keepdims=1)
    starts = op.CumSum(counts, op.constant(0), exclusive=1)
    # runs without elements at the end start behind the last place: one place more, cut off below
    marks = op.Expand(op.constant(0), op.Add(total, 1))
    ones = op.Expand(op.constant(1), op.Shape(counts))
    marks = op.ScatterElements(marks, starts, ones, axis=0, reduction="add")
    return op.Sub(op.Slice(op.CumSum(marks, op.constant(0)), [0], total, [0], [1]), 1)


@lowers("aten.roll.default")
def roll(op: Emitter, x: ir.Value, shifts: Sequence[Dim] | Dim, dims: Sequence[int] | int = ()) -> ir.Value:
    """Elements moved round along axes: one Gather each where the size is fixed, else the two parts exchanged."""
    moves = [shifts] if isinstance(shifts, int | SymbolicScalar) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if op.rank(x) == 0:
        return x
    if not axes:
        flat = op.reshape(x, [merged(op.dims(x))])
        return op.reshape(_rolled(op, flat, moves[0], 0), op.dims(x), op.result_dims())
    for shift, axis in zip(moves, axes, strict=True):
        x = _rolled(op, x, shift, axis % op.rank(x))
    return x


def _rolled(op: Emitter, x: ir.Value, shift: Dim, axis: int) -> ir.Value:
    size = op.size(x, axis)
    if isinstance(size, int) and isinstance(shift, int):
        if size == 0 or shift % size == 0:
            return x
        inner = merged(op.dims(x)[axis + 1 :])
        cut = size - shift % size
        if isinstance(inner, int) and 0 <= inner < 16:
            # a Gather of single elements is slower than two copies
            return op.Concat(op.slice(x, axis, cut, _MAX_INT64), op.slice(x, axis, 0, cut), axis=axis)
        return op.Gather(x, np.roll(np.arange(size, dtype=np.int64), shift), axis=axis)
    if shift == 0:
        return x
    length = op.constant(op.vector([size]))
    moved = op.Neg(op.constant(op.vector([shift]))) if not isinstance(shift, int) else op.constant([-shift])
    # Mod takes the sign of the divisor, so any shift lands in 0..size-1; an empty axis must not divide by 0
    split_at = op.Mod(moved, op.Max(length, 1))
    return op.Concat(sliced(op, x, axis, split_at, None), sliced(op, x, axis, 0, split_at), axis=axis)


@lowers("aten.flip.default", "aten.fliplr.default", "aten.flipud.default")
def flip(op: Emitter, x: ir.Value, dims: Sequence[int] | None = None) -> ir.Value:
    """Axes in reverse: one Slice with negative steps."""
    if dims is None:
        dims = [1] if "fliplr" in op.target else [0]
    axes = [axis % op.rank(x) for axis in dims] if op.rank(x) else []
    if not axes:
        return x
    count = len(axes)
    return op.Slice(x, [-1] * count, [-_MAX_INT64] * count, axes, [-1] * count)


@lowers("aten.rot90.default")
def rot90(op: Emitter, x: ir.Value, k: int = 1, dims: Sequence[int] = (0, 1)) -> ir.Value:
    """Quarter turns in the plane of two axes."""
    first, second = (axis % op.rank(x) for axis in dims)
    turns = k % 4
    if turns == 0:
        return x
    flipped = {1: [second], 2: [first, second], 3: [first]}[turns]
    value = flip(op, x, flipped)
    if turns == 2:
        return value
    perm = list(range(op.rank(x)))
    perm[first], perm[second] = perm[second], perm[first]
    return op.transpose(value, perm)


# -- channels and pixels -----------------------------------------------------------------------------------------------

_PIXEL_TYPES = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.INT8, ir.DataType.UINT8}


@lowers("aten.pixel_shuffle.default")
def pixel_shuffle(op: Emitter, x: ir.Value, factor: int) -> ir.Value:
    """Channels to pixels."""
    if op.rank(x) == 4 and x.dtype in _PIXEL_TYPES:
        return op.DepthToSpace(x, blocksize=factor, mode="CRD")
    *lead, channels, height, width = op.dims(x)
    known = op.result_dims()
    outer = merged([*lead, _scaled(channels, 1, factor**2, known[-3])])
    cut = op.reshape(x, [outer, factor, factor, height, width])
    turned = op.transpose(cut, [0, 3, 1, 4, 2])
    sizes = [_scaled(size, factor, 1, label) for size, label in zip((height, width), known[-2:], strict=True)]
    return op.reshape(turned, [*lead, _scaled(channels, 1, factor**2, known[-3]), *sizes], known)


@lowers("aten.pixel_unshuffle.default")
def pixel_unshuffle(op: Emitter, x: ir.Value, factor: int) -> ir.Value:
    """Pixels to channels."""
    if op.rank(x) == 4 and op.size(x, 1) == 1 and x.dtype in _PIXEL_TYPES:
        return op.SpaceToDepth(x, blocksize=factor)
    *lead, channels, height, width = op.dims(x)
    known = op.result_dims()
    rows, columns = (_scaled(size, 1, factor, label) for size, label in zip((height, width), known[-2:], strict=True))
    cut = op.reshape(x, [merged([*lead, channels]), rows, factor, columns, factor])
    turned = op.transpose(cut, [0, 2, 4, 1, 3])
    return op.reshape(turned, [*lead, _scaled(channels, factor**2, 1, known[-3]), rows, columns], known)


def _scaled(size: Dim, times: int, over: int, label: int | str) -> Dim:
    """``size * times // over``, whose label is known."""
    if isinstance(size, int):
        return size * times // over
    if isinstance(label, int):
        return label

    def make(emit: Emitter) -> ir.Value:
        value = size.vector(emit)
        value = emit.Mul(value, times) if times > 1 else value
        return emit.Div(value, over) if over > 1 else value

    return SymbolicScalar(label, vector=make)


@lowers("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(op: Emitter, x: ir.Value, groups: int) -> ir.Value:
    """Channels dealt out anew over groups."""
    channels = op.size(x, 1)
    if not isinstance(channels, int):
        raise op.fail("needs a fixed number of channels")
    order = np.arange(channels, dtype=np.int64).reshape(groups, channels // groups).T.reshape(-1)
    return op.Gather(x, order, axis=1)
