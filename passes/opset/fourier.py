"""Fourier transforms of a known length as matrix products.   y[k] = sum_n x[n] exp(-2 pi i k n / N)"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import Step, Values

__all__ = ["dft", "stft"]


def dft(step: Step) -> Values:
    """DFT along one axis; real and imaginary parts are the last dim."""
    op, kind, rank = step.op, step.dtype(), step.rank(0)
    axis = step.int_of("axis", 1) % rank
    inverse, onesided = step.int_of("inverse", 0), step.int_of("onesided", 0)
    size, parts = step.dim(0, axis), step.dim(0, rank - 1)
    length = _length(step, size)
    if parts is None:
        step.fail("nobody can tell whether its input is real or complex", "give the last dim a fixed size")
    x = _fitted(step, step.need(0), axis, size, length)
    order = [other for other in range(rank) if other not in (axis, rank - 1)] + [axis, rank - 1]
    x = op.Transpose(x, perm=order)
    real, imaginary = x, None
    if parts == 2:
        real, imaginary = op.Split(x, axis=-1, _outputs=2)
        imaginary = op.Squeeze(imaginary, [-1])
    real = op.Squeeze(real, [-1])
    if inverse and onesided:
        y = _real_inverse(step, real, imaginary, length)
        y = op.Unsqueeze(y, [-1])
    else:
        bins = length // 2 + 1 if onesided else length
        y = _transform(step, real, imaginary, length, bins, inverse=bool(inverse))
    back = [order.index(other) for other in range(rank)]
    return [op.Transpose(y, perm=back)] if kind else []


def _length(step: Step, size: int | None) -> int:
    known = step.constant_ints(1)
    if known:
        return known[0]
    if step.input(1) is not None or size is None:
        step.fail("its length is only known at run time", "give the signal a fixed length")
    if step.int_of("inverse", 0) and step.int_of("onesided", 0):
        return 2 * (size - 1)
    return size


def _fitted(step: Step, x: ir.Value, axis: int, size: int | None, length: int) -> ir.Value:
    """Cut off or filled up with zeros to the transform's length."""
    op, rank = step.op, step.rank(0)
    wanted = length // 2 + 1 if step.int_of("inverse", 0) and step.int_of("onesided", 0) else length
    if size == wanted:
        return x
    if size is None:
        step.fail("the length of its signal is dynamic", "give the signal a fixed length")
    if size > wanted:
        cut = op.Slice(x, [0], [wanted], [axis])
        assert isinstance(cut, ir.Value)
        return cut
    pads = [0] * (2 * rank)
    pads[rank + axis] = wanted - size
    filled = op.Pad(x, pads)
    assert isinstance(filled, ir.Value)
    return filled


def _waves(length: int, bins: int, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
    # k * n modulo N first: the angle then keeps all its digits.
    phase = np.outer(np.arange(length), np.arange(bins)) % length
    angle = 2 * np.pi * phase / length
    scale = 1 / length if inverse else 1.0
    return np.cos(angle) * scale, (np.sin(angle) if inverse else -np.sin(angle)) * scale


def _transform(
    step: Step, real: ir.Value, imaginary: ir.Value | None, length: int, bins: int, *, inverse: bool
) -> ir.Value:
    op, kind = step.op, step.dtype()
    cosine, sine = (op.constant(wave.astype(np.dtype(kind.numpy()))) for wave in _waves(length, bins, inverse))
    first, second = op.MatMul(real, cosine), op.MatMul(real, sine)
    if imaginary is not None:
        first = op.Sub(first, op.MatMul(imaginary, sine))
        second = op.Add(second, op.MatMul(imaginary, cosine))
    joined = op.Concat(op.Unsqueeze(first, [-1]), op.Unsqueeze(second, [-1]), axis=-1)
    assert isinstance(joined, ir.Value)
    return joined


def _real_inverse(step: Step, real: ir.Value, imaginary: ir.Value | None, length: int) -> ir.Value:
    """A real signal from half of its spectrum: all bins but the first, and the last of an even length, count twice."""
    op, kind = step.op, step.dtype()
    bins = length // 2 + 1
    weights = np.full(bins, 2.0)
    weights[0] = 1.0
    if length % 2 == 0:
        weights[-1] = 1.0
    phase = np.outer(np.arange(bins), np.arange(length)) % length
    angle = 2 * np.pi * phase / length
    element = np.dtype(kind.numpy())
    cosine = op.constant((weights[:, None] * np.cos(angle) / length).astype(element))
    y = op.MatMul(real, cosine)
    if imaginary is not None:
        sine = op.constant((-weights[:, None] * np.sin(angle) / length).astype(element))
        y = op.Add(y, op.MatMul(imaginary, sine))
    assert isinstance(y, ir.Value)
    return y


def stft(step: Step) -> Values:
    """Frames of the signal, each times the window, each transformed."""
    op, kind = step.op, step.dtype()
    hop, length = step.constant_ints(1), step.constant_ints(3)
    size, parts = step.dim(0, 1), step.dim(0, 2) if step.rank(0) == 3 else 1
    window = step.input(2)
    if length is None and window is not None and window.shape is not None and isinstance(window.shape[0], int):
        length = [window.shape[0]]
    if not hop or not length or size is None or parts is None:
        step.fail("its frames are only known at run time", "give signal, frame and step fixed lengths")
    frame = length[0]
    count = (size - frame) // hop[0] + 1
    places = np.arange(count)[:, None] * hop[0] + np.arange(frame)[None, :]
    frames = op.Gather(step.need(0), places.astype(np.int64), axis=1)  # (batch, count, frame[, parts])
    if step.rank(0) == 2:
        frames = op.Unsqueeze(frames, [-1])
    split = op.Split(frames, axis=-1, _outputs=2) if parts == 2 else (frames,)
    pieces = [op.Squeeze(piece, [-1]) for piece in split]
    if window is not None:
        pieces = [op.Mul(piece, window) for piece in pieces]
    bins = frame // 2 + 1 if step.int_of("onesided", 1) else frame
    assert kind is not None
    return [_transform(step, pieces[0], pieces[1] if parts == 2 else None, frame, bins, inverse=False)]
