"""The gradients of a convolution, for models that compute some of their own: again convolutions."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten._windows import per_axis
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []


@lowers("aten.convolution_backward.default")
def convolution_backward(
    op: Emitter,
    grad: ir.Value,
    x: ir.Value,
    weight: ir.Value,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> list[ir.Value | None]:
    """Gradients by input, weight and bias, those that are asked for."""
    axes = op.rank(weight) - 2
    strides, pads, steps = (per_axis(value, axes) for value in (stride, padding, dilation))
    by_input = by_weight = by_bias = None
    if output_mask[0] and transposed:
        by_input = op.Conv(grad, weight, strides=strides, pads=pads * 2, dilations=steps, group=groups)
    elif output_mask[0]:
        by_input = _by_input(op, grad, x, weight, strides, pads, steps, groups)
    if output_mask[1]:
        ends = (x, grad) if transposed else (grad, x)
        by_weight = _by_weight(op, *ends, weight, strides, pads, steps, groups)
    if output_mask[2]:
        by_bias = op.ReduceSum(grad, [0, *range(2, axes + 2)], keepdims=0)
    return [by_input, by_weight, by_bias]


def _by_input(
    op: Emitter,
    grad: ir.Value,
    x: ir.Value,
    weight: ir.Value,
    strides: list[int],
    pads: list[int],
    steps: list[int],
    groups: int,
) -> ir.Value:
    """The transposed convolution without padding: padded at its end to what strides left out, the pads cut off."""
    whole = op.ConvTranspose(grad, weight, strides=strides, dilations=steps, group=groups)
    axes = len(strides)
    whole = op.Pad(whole, [0] * (axes + 4) + [one + step for one, step in zip(pads, strides, strict=True)])
    begin = op.constant(pads, ir.DataType.INT64)
    sizes = op.Shape(x, start=2, end=2 + axes)
    return op.Slice(whole, begin, op.Add(sizes, begin), list(range(2, axes + 2)))


def _by_weight(
    op: Emitter,
    small: ir.Value,
    large: ir.Value,
    weight: ir.Value,
    strides: list[int],
    pads: list[int],
    steps: list[int],
    groups: int,
) -> ir.Value:
    """``large`` convolved with ``small``, channels in the place of the batch, strides and dilations exchanged."""
    axes = len(strides)
    spatial = list(range(2, axes + 2))
    if groups == 1:
        image = op.transpose(large, [1, 0, *spatial])
    else:  # [batch, groups * channels, ...]  ->  [channels, groups * batch, ...]
        parts = op.Reshape(large, op.Concat(op.constant([0, groups, -1]), op.Shape(large, start=2), axis=0))
        turned = op.Transpose(parts, perm=[2, 1, 0, *(axis + 1 for axis in spatial)])
        image = op.Reshape(turned, op.Concat(op.constant([0, -1]), op.Shape(large, start=2), axis=0))
    kernel = op.transpose(small, [1, 0, *spatial])
    found = op.Conv(image, kernel, strides=steps, pads=pads * 2, dilations=strides, group=groups)
    sizes = [op.static_size(weight, axis) for axis in spatial]
    found = op.Slice(found, [0] * axes, sizes, spatial)  # strides may leave room for more
    return op.transpose(found, [1, 0, *spatial])
