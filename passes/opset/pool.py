"""Pools with gaps between their elements, or a rounded-up size, as convolutions of each channel with a kernel of ones.

average:  conv(x) / conv(1)          Lp:  conv(|x|^p) ^ (1/p)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import HALF_FLOATS, Step, Values

__all__ = ["pool_by_convolution"]


def pool_by_convolution(step: Step) -> Values:
    """AveragePool or LpPool  ==>  Reshape, Conv, Div or Pow, Reshape."""
    kernel = step.ints_of("kernel_shape") or []
    spatial = len(kernel)
    if step.text_of("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        step.fail("it pools with gaps and automatic padding", "give the pads in numbers")
    sizes = [step.dim(0, 2 + axis) for axis in range(spatial)]
    if step.int_of("ceil_mode", 0) and any(size is None for size in sizes):
        step.fail("it pools a dynamic size, rounded up, with gaps", "pool with ceil_mode=0")
    op, kind = step.op, step.dtype()
    inside = ir.DataType.FLOAT if kind in HALF_FLOATS else kind
    x = step.need(0) if inside == kind else op.Cast(step.need(0), to=inside.value)
    shape = op.Shape(x)
    image = op.Slice(shape, [2], [2 + spatial])
    x = op.Reshape(x, op.Concat([-1, 1], image, axis=0))
    window = _Window(step, kernel, sizes)
    if step.node.op_type == "LpPool":
        power = step.int_of("p", 2)
        total = window.sum(op.Pow(op.Abs(x), op.constant(float(power), inside)), inside, window.pads)
        y = op.Pow(total, op.constant(1.0 / power, inside))
    else:
        y = op.Div(window.sum(x, inside, window.pads), _counts(step, window, image, inside))
    result = op.Shape(y)
    y = op.Reshape(y, op.Concat(op.Slice(shape, [0], [2]), op.Slice(result, [2], [2 + spatial]), axis=0))
    return [y if inside == kind else op.Cast(y, to=kind.value)]


class _Window:
    """Where the pool's windows lie; a rounded-up size becomes padding at the end."""

    def __init__(self, step: Step, kernel: list[int], sizes: list[int | None]) -> None:
        spatial = len(kernel)
        self.step = step
        self.kernel = kernel
        self.strides = step.ints_of("strides") or [1] * spatial
        self.dilations = step.ints_of("dilations") or [1] * spatial
        self.asked = step.ints_of("pads") or [0] * (2 * spatial)
        self.pads = list(self.asked)
        if not step.int_of("ceil_mode", 0):
            return
        for axis, size in enumerate(sizes):
            assert size is not None
            reach = self.dilations[axis] * (kernel[axis] - 1) + 1
            before, after = self.asked[axis], self.asked[axis + spatial]
            count = -(-(size + before + after - reach) // self.strides[axis]) + 1
            if (count - 1) * self.strides[axis] >= size + before:
                count -= 1
            self.pads[axis + spatial] = max(after, (count - 1) * self.strides[axis] + reach - size - before)

    def sum(self, x: ir.Value, kind: ir.DataType, pads: list[int]) -> ir.Value:
        """The sum over each window."""
        ones = self.step.op.constant(np.ones((1, 1, *self.kernel), dtype=np.dtype(kind.numpy())), kind)
        total = self.step.op.Conv(
            x, ones, kernel_shape=self.kernel, strides=self.strides, dilations=self.dilations, pads=pads
        )
        assert isinstance(total, ir.Value)
        return total


def _counts(step: Step, window: _Window, image: ir.Value, kind: ir.DataType) -> ir.Value:
    """How many elements each window has: of the image, and of the padding that was asked for when that counts."""
    op = step.op
    ones = op.Expand(op.constant(1.0, kind), op.Concat([1, 1], image, axis=0))
    pads = window.pads
    if step.int_of("count_include_pad", 0):
        spatial = len(window.kernel)
        full = [0, 0, *window.asked[:spatial], 0, 0, *window.asked[spatial:]]
        ones = op.Pad(ones, full, op.constant(1.0, kind))
        pads = [after - asked for after, asked in zip(window.pads, window.asked, strict=True)]
    return window.sum(ones, kind, pads)
