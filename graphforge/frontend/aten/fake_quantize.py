"""Fake quantisation of training-aware models: a number rounded to one that an integer could stand for.

    fake_quantize(x, scale, zero)   ==>   (clip(round(x * (1 / scale)) + zero, low, high) - zero) * scale

In plain arithmetic, which gives the bits that torch gives: QuantizeLinear divides where torch multiplies by the
reciprocal, and the two round differently where a quotient lies between two integers.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.errors import LoweringError
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_BOOL = ir.DataType.BOOL


def _rounded(op: Emitter, x: ir.Value, scale: Any, zero: Any, low: int, high: int, axis: int | None) -> ir.Value:
    dtype = x.dtype or op.dtype_of()
    by, offset = op.operand(scale, dtype), op.operand(zero, dtype)
    if axis is not None and op.rank(x) > 1:
        shape = [-1 if place == axis % op.rank(x) else 1 for place in range(op.rank(x))]
        by, offset = op.Reshape(by, shape), op.Reshape(offset, shape)
    elif op.rank(x) != 1:  # one number, be it in a tensor of one element
        by, offset = (op.Reshape(one, []) if op.rank(one) else one for one in (by, offset))
    steps = op.Add(op.Round(op.Mul(x, op.Reciprocal(by))), offset)
    kept = op.Clip(steps, op.scalar(float(low), dtype), op.scalar(float(high), dtype))
    result: ir.Value = op.Mul(op.Sub(kept, offset), by)
    return result


def _where_enabled(op: Emitter, enabled: Any, x: ir.Value, rounded: ir.Value) -> ir.Value:
    known = op.number(enabled)
    if known is not None:
        return rounded if known else x
    result: ir.Value = op.Where(op.cast(enabled, _BOOL), rounded, x)
    return result


@lowers("aten.fake_quantize_per_tensor_affine.default", "aten.fake_quantize_per_tensor_affine.tensor_qparams")
def fake_quantize(op: Emitter, x: ir.Value, scale: Any, zero: Any, low: int, high: int) -> ir.Value:
    """One scale for all."""
    return _rounded(op, x, scale, zero, low, high, None)


@lowers("aten.fake_quantize_per_tensor_affine_cachemask.default")
def with_mask(op: Emitter, x: ir.Value, scale: Any, zero: Any, low: int, high: int) -> tuple[Any, ...]:
    """One scale for all; the mask serves gradients only."""
    return _rounded(op, x, scale, zero, low, high, None), None


@lowers("aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default")
def with_switch(
    op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value, enabled: ir.Value, low: int, high: int
) -> tuple[Any, ...]:
    """One scale for all, in a tensor, and a switch."""
    return _where_enabled(op, enabled, x, _rounded(op, x, scale, zero, low, high, None)), None


@lowers("aten.fake_quantize_per_channel_affine.default")
def by_channel(op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value, axis: int, low: int, high: int) -> ir.Value:
    """A scale for each channel."""
    return _rounded(op, x, scale, zero, low, high, axis)


@lowers("aten.fake_quantize_per_channel_affine_cachemask.default")
def by_channel_with_mask(
    op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value, axis: int, low: int, high: int
) -> tuple[Any, ...]:
    """A scale for each channel; the mask serves gradients only."""
    return _rounded(op, x, scale, zero, low, high, axis), None


def _observed(
    op: Emitter,
    x: ir.Value,
    observer_on: ir.Value,
    enabled: ir.Value,
    running_min: Any,
    running_max: Any,
    scale: ir.Value,
    zero: ir.Value,
    averaging: float,
    low: int,
    high: int,
    axis: int,
    per_row: bool = False,
    symmetric: bool = False,
) -> ir.Value:
    if op.number(observer_on) != 0:
        raise LoweringError(
            "the model still observes ranges while it runs, which changes its scales from call to call",
            "fix them first: model.apply(torch.ao.quantization.disable_observer)",
        )
    return _where_enabled(op, enabled, x, _rounded(op, x, scale, zero, low, high, axis if per_row else None))


@lowers("aten.fused_moving_avg_obs_fake_quant.default")
def fused(op: Emitter, *arguments: Any) -> ir.Value:
    """Observer and rounding in one, the observer off."""
    return _observed(op, *arguments)


@lowers("aten._fused_moving_avg_obs_fq_helper.default")
def fused_with_mask(op: Emitter, *arguments: Any) -> tuple[Any, ...]:
    """The same with a mask for gradients."""
    return _observed(op, *arguments), None
