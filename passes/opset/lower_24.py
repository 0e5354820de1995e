"""What opset 24 brought, said in opset 23."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _swish(step: Step) -> Values:
    """x * sigmoid(alpha * x)."""
    x, alpha, op = step.need(0), step.float_of("alpha", 1.0), step.op
    inside = x if alpha == 1.0 else op.Mul(x, op.constant(alpha, step.dtype()))
    return [op.Mul(x, op.Sigmoid(inside))]


def _cast(step: Step) -> Values | None:
    if step.int_of("to", 0) != ir.DataType.FLOAT8E8M0.value:
        step.set("round_mode", None)
    return None


def _tensor_scatter(step: Step) -> Values:
    """ScatterElements at write_indices + 0, 1, 2, ... along the axis, wrapped around where the cache is circular."""
    cache, update, op = step.need(0), step.need(1), step.op
    rank = step.rank(0)
    axis = step.int_of("axis", -2) % rank
    shape = op.Shape(update)
    length = op.Squeeze(op.Slice(shape, [axis], [axis + 1], [0]), [0])
    offsets = op.Unsqueeze(op.Range(0, length, 1), [other for other in range(rank) if other != axis])
    starts = step.input(2)
    if starts is not None:
        start = op.Unsqueeze(op.Cast(starts, to=ir.DataType.INT64.value), list(range(1, rank)))
        offsets = op.Add(start, offsets)
    if step.text_of("mode", "linear") == "circular":
        offsets = op.Mod(offsets, op.Slice(op.Shape(cache), [axis], [axis + 1], [0]))
    return [op.ScatterElements(cache, op.Expand(offsets, shape), update, axis=axis)]


STEPS_DOWN: Mapping[str, StepDown] = {
    "Cast": _cast,
    "CastLike": cast_like,
    "Swish": _swish,
    "TensorScatter": _tensor_scatter,
}
