"""What opset 12 brought, said in opset 11."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.einsum import einsum
from graphforge.passes.opset.step import HALF_FLOATS, Step, StepDown, Values

__all__ = ["STEPS_DOWN"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, *HALF_FLOATS)


def _arg_extreme(step: Step) -> Values | None:
    """The last of equal extremes is the first one of the reversed axis, counted from the end."""
    if not step.int_of("select_last_index", 0):
        step.set("select_last_index", None)
        return None
    op, x = step.op, step.need(0)
    axis = step.int_of("axis", 0) % step.rank(0)
    lowest = np.iinfo(np.int64).min
    backwards = op.Slice(x, [-1], [lowest], [axis], [-1])
    found = step.same(backwards, select_last_index=None)
    last = op.Sub(op.Slice(op.Shape(x), [axis], [axis + 1]), [1])
    return [op.Sub(last if step.int_of("keepdims", 1) else op.Squeeze(last, axes=[0]), found)]


def _or_equal(step: Step) -> Values:
    """Not the negation of the opposite: that would hold for NaN."""
    op, a, b = step.op, step.need(0), step.need(1)
    strict = op.Greater(a, b) if step.node.op_type == "GreaterOrEqual" else op.Less(a, b)
    return [op.Or(strict, op.Equal(a, b))]


def _clip(step: Step) -> Values | None:
    if step.dtype() in _FLOATS:
        return None
    x = step.need(0)
    low, high = step.input(1), step.input(2)
    if low is not None:
        x = step.op.Where(step.op.Less(x, low), low, x)
    if high is not None:
        x = step.op.Where(step.op.Greater(x, high), high, x)
    return [x if x is not step.need(0) else step.op.Identity(x)]


def _extreme(step: Step) -> Values | None:
    if step.dtype() in _FLOATS:
        return None
    compare = step.op.Greater if step.node.op_type == "Max" else step.op.Less
    best = step.need(0)
    for position in range(1, len(step.node.inputs)):
        other = step.need(position)
        best = step.op.Where(compare(best, other), best, other)
    return [best if best is not step.need(0) else step.op.Identity(best)]


def _dropout(step: Step) -> Values | None:
    training = step.input(2)
    known = step.constant(2)
    if training is not None and (known is None or known.any()):
        step.fail("it trains, which opset 11 cannot say", "export the model in eval mode")
    x = step.need(0)
    values: list[ir.Value | None] = [step.op.Identity(x)]
    if len(step.node.outputs) > 1:
        true = ir.Tensor(np.ones(1, dtype=np.bool_))
        values.append(step.op.ConstantOfShape(step.op.Shape(x), value=true) if step.is_read(1) else None)
    return values


def _gather_nd(step: Step) -> Values | None:
    """Batch dims become index columns."""
    batch = step.int_of("batch_dims", 0)
    if batch == 0:
        step.set("batch_dims", None)
        return None
    op, indices = step.op, step.need(1)
    rank = step.rank(1)
    shape = op.Shape(indices)
    spread = op.Concat(op.Slice(shape, [0], [rank - 1]), [1], axis=0)
    columns = []
    for axis in range(batch):
        count = op.Squeeze(op.Slice(shape, [axis], [axis + 1]), axes=[0])
        numbers = op.Unsqueeze(op.Range(0, count, 1), axes=[other for other in range(rank) if other != axis])
        columns.append(op.Expand(numbers, spread))
    return [op.GatherND(step.need(0), op.Concat(*columns, indices, axis=-1))]


def _pow(step: Step) -> Values | None:
    """Before 12, base and exponent were floats of one type."""
    op, base, exponent = step.op, step.need(0), step.need(1)
    kind = step.dtype(0)
    if kind in _FLOATS:
        if exponent.dtype == kind:
            return None
        if exponent.dtype == ir.DataType.DOUBLE or kind in HALF_FLOATS:
            wide = ir.DataType.DOUBLE if exponent.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
            power = op.Pow(op.Cast(base, to=wide.value), op.Cast(exponent, to=wide.value))
            return [op.Cast(power, to=kind.value)]
        return [op.Pow(base, op.Cast(exponent, to=kind.value))]
    known = step.constant(1)
    if known is None or known.size != 1 or float(known.reshape(-1)[0]) not in range(64) or known.ndim > step.rank(0):
        step.fail("it raises integers to powers that are no small constant", "raise floats, or multiply")
    count = int(known.reshape(-1)[0])
    if count == 0:
        return [op.Add(op.Mul(base, op.constant(0, kind)), op.constant(1, kind))]
    result = base
    for _ in range(count - 1):
        result = op.Mul(result, base)
    return [result if result is not base else op.Identity(base)]


STEPS_DOWN: Mapping[str, StepDown] = {
    "ArgMax": _arg_extreme,
    "ArgMin": _arg_extreme,
    "Clip": _clip,
    "Dropout": _dropout,
    "Einsum": einsum,
    "GatherND": _gather_nd,
    "GreaterOrEqual": _or_equal,
    "LessOrEqual": _or_equal,
    "Max": _extreme,
    "Min": _extreme,
    "Pow": _pow,
}
