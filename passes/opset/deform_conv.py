"""DeformConv by gathering:  every tap of every window sampled at its own place, then one matrix product by group."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.grid_sample import Sampler
from graphforge.passes.opset.step import HALF_FLOATS, Step, Values

__all__ = ["deform_conv"]


def deform_conv(step: Step) -> Values:
    """DeformConv(x, w, offset, bias, mask)  ==>  MatMul(w, sampled x * mask) + bias, for images."""
    if step.rank(0) != 4:
        step.fail("it convolves no image; the lower form is for four dims")
    filters, depth, kernel = step.dim(1, 0), step.dim(1, 1), _kernel(step)
    if filters is None or depth is None:
        step.fail("the shape of its weights is dynamic", "give the weights a fixed shape")
    op, kind = step.op, step.dtype()
    inside = ir.DataType.FLOAT if kind in HALF_FLOATS else kind
    x, weights, offset, bias, mask = (_cast(step, position, inside) for position in range(5))
    groups, parts = step.int_of("group", 1), step.int_of("offset_group", 1)
    taps = kernel[0] * kernel[1]
    shape, windows = op.Shape(x), op.Slice(op.Shape(offset), [2], [4])
    # Channels that share their offsets become images of their own.
    image = op.Reshape(x, op.Concat([-1, depth * groups // parts], op.Slice(shape, [2], [4]), axis=0))
    moves = op.Reshape(offset, op.Concat([-1, taps, 2], windows, axis=0))
    sampler = Sampler(op, image, inside, mode="linear", padding="zeros", align=True)
    sampled = sampler.sample([_places(step, moves, axis, kernel, windows, inside) for axis in range(2)])
    if mask is not None:
        size = op.Shape(sampled)
        spread = op.Concat(op.Slice(size, [0], [1]), [1], op.Slice(size, [2], [3]), axis=0)
        sampled = op.Mul(sampled, op.Reshape(mask, spread))
    batch = op.Slice(shape, [0], [1])
    columns = op.Reshape(sampled, op.Concat(batch, [groups, depth * taps, -1], axis=0))
    matrix = op.Reshape(weights, [groups, filters // groups, depth * taps])
    y = op.Reshape(op.MatMul(matrix, columns), op.Concat(batch, [filters], windows, axis=0))
    if bias is not None:
        y = op.Add(y, op.Unsqueeze(bias, [1, 2]))
    return [y if inside == kind else op.Cast(y, to=kind.value)]


def _kernel(step: Step) -> list[int]:
    named = step.ints_of("kernel_shape")
    if named is not None:
        return named
    sizes = [step.dim(1, axis) for axis in (2, 3)]
    known = [size for size in sizes if size is not None]
    if len(known) != 2:
        step.fail("the size of its kernel is dynamic", "give the weights a fixed shape")
    return known


def _cast(step: Step, position: int, kind: ir.DataType) -> ir.Value | None:
    value = step.input(position)
    if value is None or value.dtype == kind:
        return value
    cast = step.op.Cast(value, to=kind.value)
    assert isinstance(cast, ir.Value)
    return cast


def _places(
    step: Step, moves: ir.Value, axis: int, kernel: list[int], windows: ir.Value, kind: ir.DataType
) -> ir.Value:
    """(images, 1, taps * rows * columns): where along one axis each tap of each window looks, in pixels."""
    op = step.op
    stride = (step.ints_of("strides") or [1, 1])[axis]
    dilation = (step.ints_of("dilations") or [1, 1])[axis]
    pad = (step.ints_of("pads") or [0, 0, 0, 0])[axis]
    count = op.Squeeze(op.Slice(windows, [axis], [axis + 1]), [0])
    starts = op.Sub(op.Mul(op.Range(0, count, 1), op.constant(stride)), op.constant(pad))
    starts = op.Cast(op.Unsqueeze(starts, [1 - axis]), to=kind.value)
    element = np.dtype(kind.numpy())
    steps = np.indices(kernel)[axis].reshape(-1, 1, 1) * dilation
    moved = op.Add(op.Gather(moves, axis, axis=2), op.constant(steps.astype(element), kind))
    places = op.Reshape(op.Add(moved, starts), [0, 1, -1])
    assert isinstance(places, ir.Value)
    return places
