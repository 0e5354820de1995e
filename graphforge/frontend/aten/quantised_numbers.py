"""Quantised numbers in tensors of integers, as programs that torch's own tools quantised have them.

    quantize_per_tensor(x, scale, zero, -128, 127, int8)      ==>   QuantizeLinear(x, scale, zero)
    quantize_per_tensor(x, scale, zero, low, high, dtype)     ==>   cast(clip(round(x * (1 / scale)) + zero, low, high))
    dequantize_per_tensor(q, scale, zero, ..., int8)          ==>   DequantizeLinear(q, scale, zero)
    dequantize_per_tensor(q, scale, zero, ..., dtype)         ==>   (cast(q) - zero) * scale

QuantizeLinear is what runtimes know a quantised layer by.  It has no ends but those of the type, and takes eight bits
in every opset: fewer numbers than the type has, and wider types, are plain arithmetic.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT
_ENDS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}


def _one(op: Emitter, value: Any, dtype: ir.DataType) -> ir.Value:
    """One number, be it in a tensor of one element."""
    given = op.operand(value, dtype)
    return op.Reshape(given, []) if op.rank(given) else given


def _beside(op: Emitter, value: ir.Value, x: ir.Value, axis: int) -> ir.Value:
    """One number for each channel, in the place of the channels."""
    result: ir.Value = op.Reshape(value, [-1 if place == axis % op.rank(x) else 1 for place in range(op.rank(x))])
    return result


@lowers("quantized_decomposed.quantize_per_tensor.default", "quantized_decomposed.quantize_per_tensor.tensor")
def quantize(op: Emitter, x: ir.Value, scale: Any, zero: Any, low: int, high: int, _: Any) -> ir.Value:
    """One scale for all."""
    x, dtype = op.cast(x, _FLOAT), op.dtype_of()
    if _ENDS.get(dtype) == (low, high):
        result: ir.Value = op.QuantizeLinear(x, _one(op, scale, _FLOAT), _one(op, zero, dtype))
        return result
    return _rounded(op, x, _one(op, scale, _FLOAT), _one(op, zero, _FLOAT), (low, high), dtype)


@lowers("quantized_decomposed.quantize_per_channel.default")
def quantize_channels(
    op: Emitter, x: ir.Value, scales: ir.Value, zeros: ir.Value, axis: int, low: int, high: int, _: Any
) -> ir.Value:
    """A scale for each channel."""
    x, dtype = op.cast(x, _FLOAT), op.dtype_of()
    if _ENDS.get(dtype) == (low, high):
        result: ir.Value = op.QuantizeLinear(x, op.cast(scales, _FLOAT), op.cast(zeros, dtype), axis=axis)
        return result
    by, offset = (_beside(op, op.cast(one, _FLOAT), x, axis) for one in (scales, zeros))
    return _rounded(op, x, by, offset, (low, high), dtype)


@lowers("quantized_decomposed.dequantize_per_tensor.default", "quantized_decomposed.dequantize_per_tensor.tensor")
def dequantize(
    op: Emitter, x: ir.Value, scale: Any, zero: Any, low: int, high: int, _: Any, out_dtype: Any = None
) -> ir.Value:
    """One scale for all."""
    assert x.dtype is not None
    if x.dtype in _ENDS:
        result = op.DequantizeLinear(x, _one(op, scale, _FLOAT), _one(op, zero, x.dtype))
    else:
        result = _valued(op, x, _one(op, scale, _FLOAT), _one(op, zero, _FLOAT))
    return op.cast(result, op.dtype_of())


@lowers("quantized_decomposed.dequantize_per_channel.default")
def dequantize_channels(
    op: Emitter,
    x: ir.Value,
    scales: ir.Value,
    zeros: ir.Value | None,
    axis: int,
    low: int,
    high: int,
    _: Any,
    out_dtype: Any = None,
) -> ir.Value:
    """A scale for each channel."""
    assert x.dtype is not None
    by = op.cast(scales, _FLOAT)
    if x.dtype in _ENDS:
        offset = () if zeros is None else (op.cast(zeros, x.dtype),)
        result = op.DequantizeLinear(x, by, *offset, axis=axis)
    else:
        beside = None if zeros is None else _beside(op, op.cast(zeros, _FLOAT), x, axis)
        result = _valued(op, x, _beside(op, by, x, axis), beside)
    return op.cast(result, op.dtype_of())


def _rounded(
    op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value, ends: tuple[int, int], dtype: ir.DataType
) -> ir.Value:
    steps = op.Add(op.Round(op.Mul(x, op.Reciprocal(scale))), zero)
    low, high = (op.scalar(float(end), _FLOAT) for end in ends)
    return op.cast(op.Clip(steps, low, high), dtype)


def _valued(op: Emitter, x: ir.Value, scale: ir.Value, zero: ir.Value | None) -> ir.Value:
    numbers = op.cast(x, _FLOAT)
    result: ir.Value = op.Mul(numbers if zero is None else op.Sub(numbers, zero), scale)
    return result
