"""What opset 23 brought, said in opset 22: attention, its normalisation and its positions, and float4."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphforge.passes.opset.attention import attention
from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.quantize import dequantize_23, quantize_23
from graphforge.passes.opset.step import HALF_FLOATS, Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _rms_normalization(step: Step) -> Values:
    """x / sqrt(mean(x^2) + epsilon) * scale, over the axes from ``axis`` on; half floats in float inside."""
    op, kind = step.op, step.dtype()
    x = step.need(0)
    rank = step.rank(0)
    axis = step.int_of("axis", -1) % rank
    inside = kind
    if kind in HALF_FLOATS and step.int_of("stash_type", 1) == ir.DataType.FLOAT.value:
        inside = ir.DataType.FLOAT
        x = op.Cast(x, to=inside.value)
    squares = op.ReduceMean(op.Mul(x, x), list(range(axis, rank)), keepdims=1)
    deviation = op.Sqrt(op.Add(squares, op.constant(step.float_of("epsilon", 1e-5), inside)))
    normal = op.Div(x, deviation)
    if inside != step.dtype(1):
        normal = op.Cast(normal, to=step.dtype(1).value)
    return [op.Mul(normal, step.need(1))]


STEPS_DOWN: Mapping[str, StepDown] = {
    "Attention": attention,
    "CastLike": cast_like,
    "DequantizeLinear": dequantize_23,
    "QuantizeLinear": quantize_23,
    "RMSNormalization": _rms_normalization,
}
