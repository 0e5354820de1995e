"""Bitwise logic on integers by arithmetic: bit k of x is floor(x / 2^k) mod 2."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import Step, Values

__all__ = ["bitwise", "bitwise_not"]


def bitwise_not(step: Step) -> Values:
    """Signed: -1 - x.  Unsigned: the largest value minus x."""
    kind, op = step.dtype(), step.op
    if kind.name.startswith("U"):
        top = np.array((1 << kind.bitwidth) - 1, dtype=np.dtype(kind.numpy()))
        return [op.Sub(op.constant(top, kind), step.need(0))]
    return [op.Sub(op.constant(-1, kind), step.need(0))]


def bitwise(step: Step) -> Values:
    """Both operands bit by bit in a new last dim, combined there and added up again."""
    kind, op = step.dtype(), step.op
    a, b = step.need(0), step.need(1)
    if kind != ir.DataType.UINT64:
        total = _combined(step, _as_int64(step, a), _as_int64(step, b), kind)
        return [op.Cast(total, to=kind.value) if kind != ir.DataType.INT64 else total]
    # Larger than what int64 holds: the upper and the lower half on their own.
    half = op.constant(1 << 32, kind)
    first, second = op.Div(a, half), op.Div(b, half)
    upper = _combined(step, _as_int64(step, first), _as_int64(step, second), ir.DataType.UINT32)
    first, second = op.Sub(a, op.Mul(first, half)), op.Sub(b, op.Mul(second, half))
    lower = _combined(step, _as_int64(step, first), _as_int64(step, second), ir.DataType.UINT32)
    return [op.Add(op.Mul(op.Cast(upper, to=kind.value), half), op.Cast(lower, to=kind.value))]


def _combined(step: Step, a: ir.Value, b: ir.Value, kind: ir.DataType) -> ir.Value:
    """int64 operands that hold elements of ``kind``; the result as int64 too."""
    op = step.op
    a, b = _bits(step, a, kind), _bits(step, b, kind)
    if step.node.op_type == "BitwiseAnd":
        both = op.Mul(a, b)
    elif step.node.op_type == "BitwiseOr":
        both = op.Sub(op.Add(a, b), op.Mul(a, b))
    else:
        both = op.Mod(op.Add(a, b), op.constant(2))
    weights = _weights(kind)
    if kind.name.startswith("INT"):
        weights[-1] = np.iinfo(np.int64).min >> (64 - kind.bitwidth)  # the sign bit
    # Halves added to halves: ONNX Runtime's ReduceSum adds int64 by way of float64 and loses the last digits.
    total = op.Mul(both, weights)
    for _ in range(kind.bitwidth.bit_length() - 1):
        upper, lower = op.Split(total, axis=-1, _outputs=2)
        total = op.Add(upper, lower)
    total = op.Squeeze(total, [-1])
    assert isinstance(total, ir.Value)
    return total


def _as_int64(step: Step, value: ir.Value) -> ir.Value:
    if value.dtype == ir.DataType.INT64:
        return value
    wide = step.op.Cast(value, to=ir.DataType.INT64.value)
    assert isinstance(wide, ir.Value)
    return wide


def _weights(kind: ir.DataType) -> np.ndarray:
    # 2^63 wraps around to the most negative number, which is its own negative: right either way.
    return np.array([1 << bit for bit in range(kind.bitwidth)], dtype=np.uint64).astype(np.int64)


def _bits(step: Step, value: ir.Value, kind: ir.DataType) -> ir.Value:
    """(...) of int64  ==>  (..., bits), each 0 or 1."""
    op = step.op
    wide = op.Unsqueeze(value, [-1])
    weights = _weights(kind)
    low = weights[:-1] if kind == ir.DataType.INT64 else weights
    # Division rounds towards zero: take the remainder away first, so that it is exact.
    found = op.Mod(op.Div(op.Sub(wide, op.Mod(wide, low)), low), op.constant(2))
    if kind == ir.DataType.INT64:
        sign = op.Cast(op.Less(wide, op.constant(0)), to=ir.DataType.INT64.value)
        found = op.Concat(found, sign, axis=-1)
    assert isinstance(found, ir.Value)
    return found
