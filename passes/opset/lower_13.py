"""What opset 13 brought, said in opset 12: axes and sizes as inputs, softmax along one axis, scales by channel."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphforge.passes.opset.quantize import dequantize_13, quantize_13
from graphforge.passes.opset.reduce import reduce_axes_to_attribute
from graphforge.passes.opset.resize import resize_13
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _axes(step: Step) -> Values | None:
    step.input_to_attribute(1, "axes")
    return None


def _softmax(step: Step) -> Values | None:
    """Before 13, all dims from the axis on were one: only the last axis says what it says now."""
    rank = step.rank(0)
    axis = step.int_of("axis", -1) % max(rank, 1)
    if axis == rank - 1 or rank == 0:
        step.set("axis", max(rank - 1, 0))
        return None
    order = [other for other in range(rank) if other != axis] + [axis]
    back = [order.index(other) for other in range(rank)]
    along = step.same(step.op.Transpose(step.need(0), perm=order), axis=rank - 1)
    return [step.op.Transpose(along, perm=back)]


def _split(step: Step) -> Values | None:
    if step.input(1) is None or step.constant_ints(1) is not None:
        step.input_to_attribute(1, "split")
        return None
    # Sizes known at run time only: each part is a slice between two partial sums.
    op, axis = step.op, step.int_of("axis", 0)
    end: ir.Value | list[int] = [0]
    parts: list[ir.Value | None] = []
    for position in range(len(step.node.outputs)):
        start = end
        end = op.Add(start, op.Slice(step.need(1), [position], [position + 1]))
        parts.append(op.Slice(step.need(0), start, end, [axis]))
    return parts


STEPS_DOWN: Mapping[str, StepDown] = {
    "DequantizeLinear": dequantize_13,
    "Hardmax": _softmax,
    "LogSoftmax": _softmax,
    "QuantizeLinear": quantize_13,
    "ReduceSum": reduce_axes_to_attribute,
    "Resize": resize_13,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _axes,
    "Unsqueeze": _axes,
}
