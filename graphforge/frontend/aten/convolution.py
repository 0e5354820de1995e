"""Convolutions: every form of aten.conv*, plain and transposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten._windows import per_axis
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []


def _with_batch(op: Emitter, x: ir.Value, axes: int) -> tuple[ir.Value, bool]:
    """``x`` with a batch dim, and whether it had none."""
    if op.rank(x) == axes + 2:
        return x, False
    return op.unsqueeze(x, [0]), True


def _kernel_shape(op: Emitter, weight: ir.Value) -> list[int] | None:
    sizes = [op.size(weight, axis) for axis in range(2, op.rank(weight))]
    return [size for size in sizes if isinstance(size, int)] if all(isinstance(s, int) for s in sizes) else None


def _conv(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> ir.Value:
    axes = op.rank(weight) - 2
    x, unbatched = _with_batch(op, x, axes)
    result: ir.Value = op.Conv(
        x,
        weight,
        bias,
        strides=per_axis(stride, axes),
        pads=list(pads),
        dilations=per_axis(dilation, axes),
        group=groups,
        kernel_shape=_kernel_shape(op, weight),
    )
    return op.squeeze(result, [0]) if unbatched else result


@lowers("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
def conv(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> ir.Value:
    """Conv."""
    return _conv(op, x, weight, bias, stride, per_axis(padding, op.rank(weight) - 2) * 2, dilation, groups)


@lowers("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def conv_padding(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1,),
    padding: str = "valid",
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> ir.Value:
    """Conv whose padding is spelled ``same`` or ``valid``; an odd total puts its extra element at the end."""
    axes = op.rank(weight) - 2
    if padding == "valid":
        return _conv(op, x, weight, bias, stride, [0] * (2 * axes), dilation, groups)
    totals = [step * (op.static_size(weight, axis + 2) - 1) for axis, step in enumerate(per_axis(dilation, axes))]
    pads = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    return _conv(op, x, weight, bias, stride, pads, dilation, groups)


def _conv_transpose(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> ir.Value:
    axes = op.rank(weight) - 2
    x, unbatched = _with_batch(op, x, axes)
    extra, strides = per_axis(output_padding, axes), per_axis(stride, axes)
    begin = per_axis(padding, axes)
    end, beyond = begin, [0] * axes
    if any(more >= step for more, step in zip(extra, strides, strict=True)):
        # ONNX Runtime takes output padding below the stride only: take it off the end's padding, add what is left after
        end = [max(0, pad - more) for pad, more in zip(begin, extra, strict=True)]
        beyond = [max(0, more - pad) for pad, more in zip(begin, extra, strict=True)]
        extra = [0] * axes
    later = bias if any(beyond) else None
    result: ir.Value = op.ConvTranspose(
        x,
        weight,
        None if any(beyond) else bias,
        strides=strides,
        pads=[*begin, *end],
        dilations=per_axis(dilation, axes),
        output_padding=extra if any(extra) else None,
        group=groups,
        kernel_shape=_kernel_shape(op, weight),
    )
    if any(beyond):
        result = op.Pad(result, [0] * (axes + 4) + beyond)
    if later is not None:
        result = op.Add(result, op.unsqueeze(later, list(range(1, axes + 1))))
    return op.squeeze(result, [0]) if unbatched else result


@lowers("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def conv_transpose(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> ir.Value:
    """ConvTranspose."""
    return _conv_transpose(op, x, weight, bias, stride, padding, output_padding, groups, dilation)


@lowers("aten.convolution.default", "aten._convolution.default", "aten._convolution.deprecated")
def convolution(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: Any,
) -> ir.Value:
    """The general form that all others decompose to."""
    if transposed:
        return _conv_transpose(op, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(op, x, weight, bias, stride, per_axis(padding, op.rank(weight) - 2) * 2, dilation, groups)
