"""Fourier transforms as products with cosines and sines.   X[k] = sum_j x[j] exp(-2 pi i j k / n)

Not ONNX's DFT: below opset 17 there is none, and ONNX Runtime's of a length that is not a power of two is off by 1e-3
of the largest value at length 16,000 (seen with 1.32), where the products are off by 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.complex.algebra import Algebra
from graphforge.frontend.complex.pair import Pair, Stored, component_dtype, is_complex, stacked
from graphforge.frontend.complex.registry import lowers_pairs
from graphforge.frontend.emitter import Dim, Emitter, SymbolicScalar
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_INT64 = ir.DataType.INT64
# One matrix up to here (8 MB in float32, twice); longer transforms go in two steps where their length has factors.
_ONE_MATRIX = 1024


def _waves(op: Emitter, length: Dim, rows: Dim, columns: Dim, dtype: ir.DataType) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine of 2 pi j k / length for j, k below ``rows`` and ``columns``.

    j k is brought below the length first, in integers, so that the angle keeps all its digits.
    """
    if isinstance(length, int) and isinstance(rows, int) and isinstance(columns, int):
        phase = np.outer(np.arange(rows), np.arange(columns)) % length
        angle = 2 * np.pi * phase / length
        element = dtype.numpy()
        return op.constant(np.cos(angle).astype(element)), op.constant(np.sin(angle).astype(element))
    j = op.Unsqueeze(op.Range(0, op.scalar(rows, _INT64), 1), [1])
    k = op.Range(0, op.scalar(columns, _INT64), 1)
    count = op.scalar(length, _INT64)
    turns = op.Div(op.Cast(op.Mod(op.Mul(j, k), count), to=dtype), op.Cast(count, to=dtype))
    whole = op.Mul(turns, 2 * math.pi)
    return op.Cos(whole), op.Sin(whole)


def _factor(length: int) -> int:
    """The factor of a length that is nearest to its root; 1 for a prime."""
    return next(small for small in range(math.isqrt(length), 0, -1) if length % small == 0)


def _last(op: Emitter, x: Stored, length: Dim, bins: Dim, sign: int, dtype: ir.DataType) -> Pair:
    """The transform along the last axis, unscaled: its first ``bins`` results.  ``sign`` is that of the exponent."""
    if isinstance(length, int) and length > _ONE_MATRIX and _factor(length) > 1:
        return _in_two_steps(op, x, length, bins, sign, dtype)
    cosine, sine = _waves(op, length, length, bins, dtype)
    if isinstance(x, ir.Value):
        turned = op.MatMul(x, sine)
        return Pair(op.MatMul(x, cosine), turned if sign > 0 else op.Neg(turned))
    straight = op.MatMul(x.real, cosine), op.MatMul(x.imag, cosine)
    crossed = op.MatMul(x.imag, sine), op.MatMul(x.real, sine)
    if sign > 0:
        return Pair(op.Sub(straight[0], crossed[0]), op.Add(straight[1], crossed[1]))
    return Pair(op.Add(straight[0], crossed[0]), op.Sub(straight[1], crossed[1]))


def _in_two_steps(op: Emitter, x: Stored, length: int, bins: Dim, sign: int, dtype: ir.DataType) -> Pair:
    """By Cooley and Tukey: with length = a b, j = b j1 + j2 and k = k1 + a k2, over j1, then a turn, then over j2."""
    a = _factor(length)
    b = length // a
    dims = op.dims(x if isinstance(x, ir.Value) else x.real)[:-1]

    def shaped(value: ir.Value, last: Sequence[int]) -> ir.Value:
        return op.reshape(value, [*dims, *last])

    def swapped(value: ir.Value) -> ir.Value:
        rank = op.rank(value)
        return op.transpose(value, [*range(rank - 2), rank - 1, rank - 2])

    def each(value: Stored, function: Any) -> Any:
        return Pair(function(value.real), function(value.imag)) if isinstance(value, Pair) else function(value)

    first = _last(op, each(x, lambda part: swapped(shaped(part, [a, b]))), a, a, sign, dtype)  # [..., j2, k1]
    angle = 2 * np.pi * (np.outer(np.arange(b), np.arange(a)) % length) / length
    element = dtype.numpy()
    turn = Pair(op.constant(np.cos(angle).astype(element)), op.constant((sign * np.sin(angle)).astype(element)))
    turned = Algebra(op, dtype).mul(first, turn)
    second = _last(op, each(turned, swapped), b, b, sign, dtype)  # [..., k1, k2]
    whole: Pair = each(second, lambda part: shaped(swapped(part), [length]))
    return whole if bins == length else each(whole, lambda part: op.slice(part, -1, 0, bins))


def _along(op: Emitter, x: Stored, axis: int, length: Dim, bins: Dim, sign: int, dtype: ir.DataType) -> Pair:
    """The transform along any axis."""
    rank = op.rank(x if isinstance(x, ir.Value) else x.real)
    order = [other for other in range(rank) if other != axis % rank] + [axis % rank]
    back = [order.index(other) for other in range(rank)]
    moved: Stored = (
        op.transpose(x, order)
        if isinstance(x, ir.Value)
        else Pair(op.transpose(x.real, order), op.transpose(x.imag, order))
    )
    y = _last(op, moved, length, bins, sign, dtype)
    return Pair(op.transpose(y.real, back), op.transpose(y.imag, back))


def _half_of(op: Emitter, length: Dim) -> Dim:
    """length // 2 + 1"""
    if isinstance(length, int):
        return length // 2 + 1
    whole = op.scalar(length, _INT64)
    half = op.Add(op.Div(whole, 2), 1)
    return SymbolicScalar(f"{length.label}//2 + 1", scalar=lambda _: half)


def _normalized(op: Emitter, y: Any, lengths: Sequence[Dim], normalization: int, dtype: ir.DataType) -> Any:
    """torch's three: 0 leaves the sum as it is, 1 divides by the root of the count, 2 by the count."""
    if not normalization:
        return y
    fixed = math.prod(size for size in lengths if isinstance(size, int))
    factor: Any = op.constant(float(fixed), dtype)
    for size in lengths:
        if not isinstance(size, int):
            factor = op.Mul(factor, op.scalar(size, dtype))
    if normalization == 1:
        factor = op.Sqrt(factor)
    return Pair(op.Div(y.real, factor), op.Div(y.imag, factor)) if isinstance(y, Pair) else op.Div(y, factor)


@lowers_pairs("aten._fft_r2c.default")
def real_to_complex(op: Emitter, x: ir.Value, dim: Sequence[int], normalization: int, onesided: bool) -> Pair:
    """Of real values; the last axis named may keep the first half only."""
    dtype = component_dtype(op)
    x = op.cast(x, dtype)
    lengths = [op.size(x, axis) for axis in dim]
    last = lengths[-1]
    y = _along(op, x, dim[-1], last, _half_of(op, last) if onesided else last, -1, dtype)
    for axis, length in zip(dim[:-1], lengths, strict=False):
        y = _along(op, y, axis, length, length, -1, dtype)
    made: Pair = _normalized(op, y, lengths, normalization, dtype)
    return made


@lowers_pairs("aten._fft_c2c.default")
def complex_to_complex(op: Emitter, x: Pair, dim: Sequence[int], normalization: int, forward: bool) -> Pair:
    """Forwards or backwards along several axes."""
    dtype = component_dtype(op)
    lengths = [op.size(x.real, axis) for axis in dim]
    for axis, length in zip(dim, lengths, strict=True):
        x = _along(op, x, axis, length, length, -1 if forward else 1, dtype)
    made: Pair = _normalized(op, x, lengths, normalization, dtype)
    return made


@lowers_pairs("aten._fft_c2r.default")
def complex_to_real(op: Emitter, x: Pair, dim: Sequence[int], normalization: int, last_dim_size: Dim) -> ir.Value:
    """Backwards to real values, from the first half of the last axis named."""
    dtype = component_dtype(op, x)
    lengths = [*(op.size(x.real, axis) for axis in dim[:-1]), last_dim_size]
    for axis, length in zip(dim[:-1], lengths, strict=False):
        x = _along(op, x, axis, length, length, 1, dtype)
    made: ir.Value = _normalized(op, _real_along(op, x, dim[-1], last_dim_size, dtype), lengths, normalization, dtype)
    return made


def _real_along(op: Emitter, x: Pair, axis: int, length: Dim, dtype: ir.DataType) -> ir.Value:
    """Every bin but the first, and the last of an even length, stands for its mirror image as well."""
    rank = op.rank(x.real)
    order = [other for other in range(rank) if other != axis % rank] + [axis % rank]
    real, imag = op.transpose(x.real, order), op.transpose(x.imag, order)
    bins = _half_of(op, length)
    real, imag = (op.slice(part, -1, 0, bins) for part in (real, imag))
    cosine, sine = _waves(op, length, bins, length, dtype)
    if isinstance(length, int) and isinstance(bins, int):
        weights = np.full((1, bins), 2.0)
        weights[0, 0] = 1.0
        if length % 2 == 0:
            weights[0, -1] = 1.0
        weight: ir.Value = op.constant(weights[0].astype(dtype.numpy()))
    else:
        place = op.Range(0, op.scalar(bins, _INT64), 1)
        alone = op.Equal(op.Mod(op.Mul(place, 2), op.scalar(length, _INT64)), 0)
        weight = op.Where(alone, op.constant(1.0, dtype), op.constant(2.0, dtype))
    y = op.Sub(op.MatMul(op.Mul(real, weight), cosine), op.MatMul(op.Mul(imag, weight), sine))
    return op.transpose(y, [order.index(other) for other in range(rank)])


# -- short-time transforms ---------------------------------------------------------------------------------------------


def _window(op: Emitter, window: ir.Value | None, n_fft: int, win_length: int | None, dtype: ir.DataType) -> ir.Value:
    """The window, in the middle of a frame."""
    width = n_fft if win_length is None else win_length
    left = (n_fft - width) // 2
    value = op.constant(np.ones(width, dtype.numpy())) if window is None else op.cast(window, dtype)
    return value if width == n_fft else op.Pad(value, [left, n_fft - width - left])


def _stft(
    op: Emitter,
    x: Stored,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: ir.Value | None,
    normalized: bool,
    onesided: bool | None,
) -> Stored:
    fake = op.result
    dtype = component_dtype(op, x) if is_complex(fake) or isinstance(x, Pair) else op.dtype_of(fake)
    parts = [x.real, x.imag] if isinstance(x, Pair) else [op.cast(x, dtype)]
    hop = n_fft // 4 if hop_length is None else hop_length
    frames = [_frames(op, part, n_fft, hop) for part in parts]
    shade = _window(op, window, n_fft, win_length, dtype)
    frames = [op.Mul(frame, shade) for frame in frames]
    half = not isinstance(x, Pair) if onesided is None else onesided
    spectrum: Stored = frames[0] if len(frames) == 1 else Pair(frames[0], frames[1])
    y = _last(op, spectrum, n_fft, n_fft // 2 + 1 if half else n_fft, -1, dtype)
    if normalized:
        y = _normalized(op, y, [n_fft], 1, dtype)
    rank = op.rank(y.real)
    order = [*range(rank - 2), rank - 1, rank - 2]
    made = Pair(op.transpose(y.real, order), op.transpose(y.imag, order))
    return made if is_complex(fake) else stacked(op, made)


def _frames(op: Emitter, x: ir.Value, length: int, hop: int) -> ir.Value:
    """[..., frames, length] of [..., time]"""
    size = op.size(x, -1)
    inside = np.arange(length, dtype=np.int64)
    if isinstance(size, int):
        starts = np.arange(0, size - length + 1, hop, dtype=np.int64)
        return op.Gather(x, starts[:, None] + inside[None, :], axis=-1)
    first = op.Range(0, op.Sub(op.scalar(size, _INT64), length - 1), hop)
    return op.Gather(x, op.Add(op.Unsqueeze(first, [1]), op.constant(inside)), axis=-1)


@lowers("aten.stft.default")
@lowers_pairs("aten.stft.default")
def stft(
    op: Emitter,
    x: Stored,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: ir.Value | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Stored:
    """Frames of the signal, each times the window, each transformed."""
    if align_to_window:
        raise op.fail("a short-time transform whose frames are aligned to the window")
    return _stft(op, x, n_fft, hop_length, win_length, window, normalized, onesided)


@lowers("aten.stft.center")
@lowers_pairs("aten.stft.center")
def stft_center(
    op: Emitter,
    x: Stored,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: ir.Value | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Stored:
    """The same of a signal that is padded by half a frame at both ends."""
    if align_to_window:
        raise op.fail("a short-time transform whose frames are aligned to the window")
    if center:
        modes = {"reflect": "reflect", "constant": "constant", "replicate": "edge"}
        if pad_mode not in modes:
            raise op.fail(f"a short-time transform with padding {pad_mode!r}")

        def padded(part: ir.Value) -> ir.Value:
            before = [0] * (op.rank(part) - 1) + [n_fft // 2]
            return op.Pad(part, [*before, *before], mode=modes[pad_mode])

        x = Pair(padded(x.real), padded(x.imag)) if isinstance(x, Pair) else padded(x)
    return _stft(op, x, n_fft, hop_length, win_length, window, normalized, onesided)


@lowers_pairs("aten.istft.default")
def istft(
    op: Emitter,
    x: Pair,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: ir.Value | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Dim | None = None,
    return_complex: bool = False,
) -> Stored:
    """Frames transformed back, times the window, added where they overlap, over what the windows add up to there."""
    dtype = component_dtype(op, x)
    hop = n_fft // 4 if hop_length is None else hop_length
    shade = _window(op, window, n_fft, win_length, dtype)
    batched = op.rank(x.real) == 3
    rank = op.rank(x.real)
    order = [*range(rank - 2), rank - 1, rank - 2]
    turned = Pair(op.transpose(x.real, order), op.transpose(x.imag, order))
    if return_complex:
        frames = _normalized(op, _last(op, turned, n_fft, n_fft, 1, dtype), [n_fft], 1 if normalized else 2, dtype)
        parts = [frames.real, frames.imag]
    else:
        real = _real_along(op, turned, -1, n_fft, dtype)
        parts = [_normalized(op, real, [n_fft], 1 if normalized else 2, dtype)]
    count = op.size(x.real, -1)
    total: Any = (
        (count - 1) * hop + n_fft
        if isinstance(count, int)
        else op.Add(op.Mul(op.Sub(op.scalar(count, _INT64), 1), hop), n_fft)
    )
    ones = op.expand(op.constant(1.0, dtype), [count, n_fft])
    envelope = _overlapped(op, op.Mul(ones, op.Mul(shade, shade)), hop, n_fft, total, dtype)
    start = n_fft // 2 if center else 0
    made = []
    for part in parts:
        added = _overlapped(op, op.Mul(part, shade), hop, n_fft, total, dtype)
        made.append(_cut(op, added, envelope, start, center, length, total, dtype))
    if not batched:
        made = [op.Reshape(part, [-1]) for part in made]
    return made[0] if len(made) == 1 else Pair(made[0], made[1])


def _overlapped(op: Emitter, frames: ir.Value, hop: int, n_fft: int, total: Any, dtype: ir.DataType) -> ir.Value:
    """[..., time] of [..., frames, length]: each frame is cut into pieces of a hop, and like pieces are added."""
    pieces = -(-n_fft // hop)
    rank = op.rank(frames)
    if pieces * hop != n_fft:
        frames = op.Pad(frames, [0] * (2 * rank - 1) + [pieces * hop - n_fft])
    lead = op.dims(frames)[:-2]
    whole: ir.Value | None = None
    for piece in range(pieces):
        cut = op.slice(frames, -1, piece * hop, (piece + 1) * hop)
        # the piece number p of frame f lies at hop f + p
        shifted = op.Pad(cut, [*[0] * (rank - 2), piece, 0, *[0] * (rank - 2), pieces - 1 - piece, 0])
        whole = shifted if whole is None else op.Add(whole, shifted)
    assert whole is not None
    flat = op.reshape(whole, [*lead, -1])
    end = op.vector([total]) if isinstance(total, int) else op.Reshape(total, [1])
    cut_off: ir.Value = op.Slice(flat, [0], end, [-1])
    return cut_off


def _cut(
    op: Emitter,
    added: ir.Value,
    envelope: ir.Value,
    start: int,
    center: bool,
    length: Dim | None,
    total: Any,
    dtype: Any,
) -> ir.Value:
    if length is None:
        end: Any = -start if center and start else 2**63 - 1
        y: ir.Value = op.Div(op.Slice(added, [start], [end], [-1]), op.Slice(envelope, [start], [end], [-1]))
        return y
    stop = op.Reshape(op.Add(op.scalar(length, _INT64), start), [1])
    y = op.Div(op.Slice(added, [start], stop, [-1]), op.Slice(envelope, [start], stop, [-1]))
    if isinstance(length, int) and isinstance(total, int) and start + length <= total:
        return y
    have = op.Shape(y, start=-1)
    missing = op.Max(op.Sub(op.Reshape(op.scalar(length, _INT64), [1]), have), op.constant([0]))
    rank = op.rank(added)
    filled: ir.Value = op.Pad(y, op.Concat(op.constant([0] * (2 * rank - 1)), missing, axis=0))
    return filled
