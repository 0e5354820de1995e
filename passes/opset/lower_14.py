"""What opset 14 brought, said in opset 13."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]

_INTEGERS = (ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64)


def _hard_swish(step: Step) -> Values:
    """x * hard_sigmoid(x) with slope 1/6."""
    x = step.need(0)
    return [step.op.Mul(x, step.op.HardSigmoid(x, alpha=1.0 / 6.0, beta=0.5))]


def _relu(step: Step) -> Values | None:
    if step.dtype() not in _INTEGERS:
        return None
    x, zero = step.need(0), step.op.constant(0, step.dtype())
    return [step.op.Where(step.op.Greater(x, zero), x, zero)]


def _reshape(step: Step) -> Values | None:
    """A zero in the shape that means zero."""
    if not step.int_of("allowzero", 0):
        step.set("allowzero", None)
        return None
    shape = step.constant_ints(1)
    if shape is None:
        step.rewriter.note("Reshape takes zeros in a computed shape as 'keep this dim': empty tensors need opset 14")
    elif 0 in shape:
        # The result has no element: its shape is all there is to it.
        empty = step.op.ConstantOfShape(
            np.array(shape, dtype=np.int64), value=ir.Tensor(np.zeros(1, dtype=np.dtype(step.dtype().numpy())))
        )
        return [empty]
    step.set("allowzero", None)
    return None


def _trilu(step: Step) -> Values:
    """Where(column - row <= k, x, 0) for the lower part, >= for the upper."""
    op, x, kind = step.op, step.need(0), step.dtype()
    upper = step.int_of("upper", 1)
    zero = op.constant(0, kind)
    height, width = step.dim(0, -2), step.dim(0, -1)
    k = step.constant_ints(1) if step.input(1) is not None else [0]
    if height is not None and width is not None and k is not None:
        distance = np.arange(width)[None, :] - np.arange(height)[:, None]
        keep = op.constant(distance >= k[0] if upper else distance <= k[0])
        return [op.Where(keep, x, zero)]
    shape = op.Shape(x)
    rows = op.Range(0, op.Squeeze(op.Slice(shape, [-2], [-1]), [0]), 1)
    columns = op.Range(0, op.Squeeze(op.Slice(shape, [-1], [np.iinfo(np.int64).max]), [0]), 1)
    offset = step.input(1)
    first = op.Unsqueeze(rows, [1]) if offset is None else op.Add(op.Unsqueeze(rows, [1]), offset)
    second = op.Unsqueeze(columns, [0])
    keep = op.LessOrEqual(first, second) if upper else op.GreaterOrEqual(first, second)
    return [op.Where(keep, x, zero)]


def _batch_normalization(step: Step) -> Values | None:
    if not step.int_of("training_mode", 0):
        step.set("training_mode", None)
        if len(step.node.outputs) > 1:
            if any(step.is_read(output) for output in range(1, len(step.node.outputs))):
                x = step.same(*step.node.inputs, training_mode=None)
                return [x, step.need(3), step.need(4)][: len(step.node.outputs)]
            step.rewriter.keep_outputs(step.node, 1)
        return None
    return _training(step)


def _training(step: Step) -> Values:
    """Statistics of the batch itself."""
    op, x, kind = step.op, step.need(0), step.dtype()
    rank = step.rank(0)
    others = [axis for axis in range(rank) if axis != 1]
    mean = op.ReduceMean(x, axes=others, keepdims=1)
    centred = op.Sub(x, mean)
    variance = op.ReduceMean(op.Mul(centred, centred), axes=others, keepdims=1)
    trailing = list(range(1, rank - 1))
    scale, bias = (op.Unsqueeze(step.need(p), trailing) if trailing else step.need(p) for p in (1, 2))
    normal = op.Div(centred, op.Sqrt(op.Add(variance, op.constant(step.float_of("epsilon", 1e-5), kind))))
    values: list[ir.Value | None] = [op.Add(op.Mul(normal, scale), bias)]
    momentum = step.float_of("momentum", 0.9)
    for output, (running, batch) in enumerate(((step.need(3), mean), (step.need(4), variance)), start=1):
        if output < len(step.node.outputs):
            inside = running.dtype or kind
            fresh = op.Squeeze(batch, others)
            if inside != kind:
                fresh = op.Cast(fresh, to=inside.value)
            kept = op.Mul(running, op.constant(momentum, inside))
            values.append(op.Add(kept, op.Mul(fresh, op.constant(1.0 - momentum, inside))))
    return values


def _batch_first(step: Step) -> Values | None:
    """Recurrent operators with the batch in front: transposed on the way in and out."""
    if not step.int_of("layout", 0):
        step.set("layout", None)
        return None
    op = step.op

    def swapped(position: int) -> ir.Value | None:
        value = step.input(position)
        return None if value is None else op.Transpose(value, perm=[1, 0, 2])

    inputs = list(step.node.inputs)
    inputs[0] = swapped(0)
    for position in (5, 6):
        if position < len(inputs):
            inputs[position] = swapped(position)
    attributes = {name: attribute for name, attribute in step.node.attributes.items() if name != "layout"}
    made = op.node(step.node.op_type, inputs, _outputs=len(step.node.outputs), **attributes)
    results = made if isinstance(made, tuple) else (made,)
    values: list[ir.Value | None] = []
    for output, value in enumerate(results):
        if not step.is_read(output):
            values.append(None)
        else:
            values.append(op.Transpose(value, perm=[2, 0, 1, 3] if output == 0 else [1, 0, 2]))
    return values


STEPS_DOWN: Mapping[str, StepDown] = {
    "BatchNormalization": _batch_normalization,
    "GRU": _batch_first,
    "HardSwish": _hard_swish,
    "LSTM": _batch_first,
    "RNN": _batch_first,
    "Relu": _relu,
    "Reshape": _reshape,
    "Trilu": _trilu,
}
