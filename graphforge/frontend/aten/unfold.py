"""Sliding blocks: im2col (nn.Unfold) and col2im (nn.Fold)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten._windows import per_axis
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__ = ["blocks"]

_INT64 = ir.DataType.INT64


def _block_positions(op: Emitter, size: Dim, kernel: int, dilation: int, stride: int) -> ir.Value:
    """[kernel, blocks]: where each element of each block lies on an axis of (padded) ``size``."""
    taps = np.arange(kernel, dtype=np.int64)[:, None] * dilation
    reach = dilation * (kernel - 1)
    if isinstance(size, int):
        return op.constant(taps + np.arange(0, max(size - reach, 0), stride, dtype=np.int64))
    starts = op.Range(0, op.Sub(op.scalar(size, _INT64), reach), stride)
    positions: ir.Value = op.Add(starts, op.constant(taps))
    return positions


def blocks(
    op: Emitter,
    x: ir.Value,
    kernel: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[int],
    stride: Sequence[int],
) -> ir.Value:
    """[N, C, kernel..., blocks...] of [N, C, spatial...]; ``pads`` as ONNX has them, all begins and then all ends."""
    axes = len(kernel)
    if any(pads):
        x = op.Pad(x, [0, 0, *pads[:axes], 0, 0, *pads[axes:]])
    for axis in range(axes):
        # axes before this one have become two already
        position = 2 + 2 * axis
        size = op.size(x, position)
        x = op.Gather(x, _block_positions(op, size, kernel[axis], dilation[axis], stride[axis]), axis=position)
    order = [*range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2)]
    return op.transpose(x, [0, 1, *order])


@lowers("aten.im2col.default")
def im2col(
    op: Emitter,
    x: ir.Value,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> ir.Value:
    """Gathers along both axes."""
    unbatched = op.rank(x) == 3
    wide = op.unsqueeze(x, [0]) if unbatched else x
    kernel = per_axis(kernel_size, 2)
    cut = blocks(op, wide, kernel, per_axis(dilation, 2), per_axis(padding, 2) * 2, per_axis(stride, 2))
    channels = op.size(wide, 1)
    rows: Dim = channels * kernel[0] * kernel[1] if isinstance(channels, int) else -1
    if rows == -1:
        raise op.fail("needs a fixed number of channels")
    labels = op.result_dims()
    if unbatched:
        return op.reshape(cut, [rows, -1], labels)
    return op.reshape(cut, [op.size(x, 0), rows, -1], labels)


@lowers("aten.col2im.default")
def col2im(
    op: Emitter,
    x: ir.Value,
    output_size: Sequence[Dim],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> ir.Value:
    """Col2Im."""
    unbatched = op.rank(x) == 2
    wide = op.unsqueeze(x, [0]) if unbatched else x
    result: ir.Value = op.Col2Im(
        wide,
        op.vector(list(output_size)),
        op.vector(list(per_axis(kernel_size, 2))),
        dilations=per_axis(dilation, 2),
        pads=per_axis(padding, 2) * 2,
        strides=per_axis(stride, 2),
    )
    return op.squeeze(result, [0]) if unbatched else result
