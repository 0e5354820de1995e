"""What opset 19 brought, said in opset 18."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.deform_conv import deform_conv
from graphforge.passes.opset.pool import pool_by_convolution
from graphforge.passes.opset.quantize import dequantize_19, quantize_19
from graphforge.passes.opset.resize import resize_19
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _average_pool(step: Step) -> Values | None:
    if any(dilation != 1 for dilation in step.ints_of("dilations") or []):
        return pool_by_convolution(step)
    step.set("dilations", None)
    return None


def _cast(step: Step) -> Values | None:
    step.set("saturate", None)
    return None


def _pad(step: Step) -> Values | None:
    """Mode wrap: the end in front of the start and the start behind the end, one axis after the other."""
    if step.text_of("mode", "constant") != "wrap":
        return None
    pads = step.constant_ints(1)
    rank = step.rank(0)
    axes = list(range(rank)) if step.input(3) is None else step.constant_ints(3)
    if pads is None or axes is None:
        step.fail("mode wrap with pads computed at run time", "make the pads constants of the model")
    x = step.need(0)
    for position, axis in enumerate(axes):
        x = _wrapped(step, x, axis % rank, pads[position], pads[position + len(axes)])
    return [x if x is not step.need(0) else step.op.Identity(x)]


def _wrapped(step: Step, x: ir.Value, axis: int, before: int, after: int) -> ir.Value:
    op = step.op
    size = step.dim(0, axis)
    if before < 0 or after < 0:
        x = op.Slice(x, [max(-before, 0)], [after if after < 0 else np.iinfo(np.int64).max], [axis])
        size = None if size is None else size + min(before, 0) + min(after, 0)
    before, after = max(before, 0), max(after, 0)
    if before == 0 and after == 0:
        return x
    if size is not None:
        # Every element of the result by its index: also right where the pads are longer than the axis.
        indices = np.arange(-before, size + after, dtype=np.int64) % max(size, 1)
        gathered = op.Gather(x, indices, axis=axis)
        assert isinstance(gathered, ir.Value)
        return gathered
    length = op.Squeeze(op.Slice(op.Shape(x), [axis], [axis + 1]), [0])
    around = op.Mod(op.Range(-before, op.Add(length, after), 1), length)
    turned = op.Gather(x, around, axis=axis)
    assert isinstance(turned, ir.Value)
    return turned


STEPS_DOWN: Mapping[str, StepDown] = {
    "AveragePool": _average_pool,
    "Cast": _cast,
    "CastLike": cast_like,
    "DeformConv": deform_conv,
    "DequantizeLinear": dequantize_19,
    "Pad": _pad,
    "QuantizeLinear": quantize_19,
    "Resize": resize_19,
}
