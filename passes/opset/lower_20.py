"""What opset 20 brought, said in opset 19."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphforge.passes.opset.grid_sample import grid_sample
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _gelu(step: Step) -> Values:
    """x * (1 + erf(x / sqrt 2)) / 2, or its approximation by tanh."""
    op, kind, x = step.op, step.dtype(), step.need(0)
    half, one = op.constant(0.5, kind), op.constant(1.0, kind)
    if step.text_of("approximate", "none") == "tanh":
        cube = op.Mul(op.Mul(op.Mul(x, x), x), op.constant(0.044715, kind))
        inner = op.Tanh(op.Mul(op.Add(x, cube), op.constant(math.sqrt(2.0 / math.pi), kind)))
        return [op.Mul(op.Mul(x, half), op.Add(inner, one))]
    inner = op.Erf(op.Div(x, op.constant(math.sqrt(2.0), kind)))
    return [op.Mul(op.Mul(x, op.Add(inner, one)), half)]


def _grid_sample(step: Step) -> Values | None:
    if step.rank(0) != 4:
        return grid_sample(step)  # opset 19 knows images only
    old = {"linear": "bilinear", "cubic": "bicubic"}
    mode = step.text_of("mode", "linear")
    step.set("mode", old.get(mode, mode))
    return None


def _affine_grid(step: Step) -> Values:
    """Every place of the grid as (x, y, 1) or (x, y, z, 1), times theta."""
    op, kind = step.op, step.dtype()
    spatial = step.dim(0, 1)
    if spatial is None:
        step.fail("the number of its dims is not known", "give theta a fixed shape")
    size = step.need(1)
    places = op.Slice(size, [2], [2 + spatial])
    coordinates = []
    for axis in range(spatial):
        count = op.Squeeze(op.Slice(size, [2 + axis], [3 + axis]), [0])
        steps, length = op.Cast(op.Range(0, count, 1), to=kind.value), op.Cast(count, to=kind.value)
        one, two = op.constant(1.0, kind), op.constant(2.0, kind)
        if step.int_of("align_corners", 0):
            between = op.Max(op.Sub(length, one), one)
            normal = op.Sub(op.Div(op.Mul(steps, two), between), one)
        else:
            normal = op.Sub(op.Div(op.Add(op.Mul(steps, two), one), length), one)
        line = op.Unsqueeze(normal, [other for other in range(spatial) if other != axis])
        coordinates.append(op.Unsqueeze(op.Expand(line, places), [spatial]))
    ones = op.Expand(op.constant(1.0, kind), op.Concat(places, [1], axis=0))
    base = op.Reshape(op.Concat(*reversed(coordinates), ones, axis=spatial), [-1, spatial + 1])
    moved = op.MatMul(base, op.Transpose(step.need(0), perm=[0, 2, 1]))
    return [op.Reshape(moved, op.Concat(op.Slice(size, [0], [1]), places, [spatial], axis=0))]


def _dft(step: Step) -> Values | None:
    axis = step.constant_ints(2)
    if step.input(2) is not None and axis is None:
        step.fail("its axis is computed at run time", "make the axis a constant of the model")
    step.set("axis", axis[0] if axis else -2)
    step.trim(2)
    return None


def _text(step: Step) -> Values | None:
    step.fail("no older operator does this", "do it before the model runs")


STEPS_DOWN: Mapping[str, StepDown] = {
    "AffineGrid": _affine_grid,
    "DFT": _dft,
    "Gelu": _gelu,
    "GridSample": _grid_sample,
    "ImageDecoder": _text,
    "RegexFullMatch": _text,
    "StringConcat": _text,
    "StringSplit": _text,
}
