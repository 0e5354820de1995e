"""What opset 21 brought, said in opset 20: GroupNormalization by channel, quantisation in blocks, 4-bit integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.quantize import dequantize_21, quantize_21
from graphforge.passes.opset.step import HALF_FLOATS, Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _group_normalization(step: Step) -> Values:
    """InstanceNormalization over (batch, groups, everything else), then scale and bias by channel.

    Not the GroupNormalization of 18: its scale and bias are one per group, which was a mistake.
    """
    op, kind = step.op, step.dtype()
    groups, rank = step.int_of("num_groups", 1), step.rank(0)
    x, scale, bias = step.need(0), step.need(1), step.need(2)
    inside = kind
    if kind in HALF_FLOATS and step.int_of("stash_type", 1) == ir.DataType.FLOAT.value:
        inside = ir.DataType.FLOAT
        x = op.Cast(x, to=inside.value)
    element = np.dtype(inside.numpy())
    normal = op.InstanceNormalization(
        op.Reshape(x, [0, groups, -1]),
        op.constant(np.ones(groups, dtype=element), inside),
        op.constant(np.zeros(groups, dtype=element), inside),
        epsilon=step.float_of("epsilon", 1e-5),
    )
    normal = op.Reshape(normal, _shape_of(step, x))
    if inside != kind:
        normal = op.Cast(normal, to=kind.value)
    trailing = list(range(1, rank - 1))
    if trailing:
        scale, bias = op.Unsqueeze(scale, trailing), op.Unsqueeze(bias, trailing)
    return [op.Add(op.Mul(normal, scale), bias)]


def _shape_of(step: Step, x: ir.Value) -> ir.Value | np.ndarray:
    """The shape to go back to: a constant with at most the batch left open, where that is known."""
    dims = step.need(0).shape
    assert dims is not None
    sizes = [0 if axis == 0 else dim for axis, dim in enumerate(dims)]
    known = [dim for dim in sizes if isinstance(dim, int)]
    if len(known) >= len(sizes) - 1 and 0 not in known[1:]:
        return np.array([dim if isinstance(dim, int) else -1 for dim in sizes], dtype=np.int64)
    shape = step.op.Shape(x)
    assert isinstance(shape, ir.Value)
    return shape


STEPS_DOWN: Mapping[str, StepDown] = {
    "CastLike": cast_like,
    "DequantizeLinear": dequantize_21,
    "GroupNormalization": _group_normalization,
    "QuantizeLinear": quantize_21,
}
