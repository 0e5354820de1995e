"""What opset 20 brought, said in opset 19."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphforge.passes.opset.step import Rule, Step, Values

__all__ = ["RULES"]


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
        step.fail("it samples a volume, opset 19 knows images only")
    old = {"linear": "bilinear", "cubic": "bicubic"}
    mode = step.text_of("mode", "linear")
    step.set("mode", old.get(mode, mode))
    return None


def _dft(step: Step) -> Values | None:
    axis = step.constant_ints(2)
    if step.input(2) is not None and axis is None:
        step.fail("its axis is computed at run time", "make the axis a constant of the model")
    step.set("axis", axis[0] if axis else -2)
    step.trim(2)
    return None


def _text(step: Step) -> Values | None:
    step.fail("no older operator does this", "do it before the model runs")


RULES: Mapping[str, Rule] = {
    "DFT": _dft,
    "Gelu": _gelu,
    "GridSample": _grid_sample,
    "ImageDecoder": _text,
    "RegexFullMatch": _text,
    "StringConcat": _text,
    "StringSplit": _text,
}
