"""Scattering with a reduction where the operator has none:  gather, combine, scatter.

Where an index may repeat, a Loop takes the updates one by one, so that each sees what the one before it did.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.ir import Builder
from graphforge.passes.opset.step import Step, Values

__all__ = ["scatter_reducing"]

_COMBINE = {"add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}


def scatter_reducing(step: Step) -> Values:
    """ScatterElements or ScatterND with a reduction  ==>  the same without one, on combined updates."""
    data, indices, updates = step.need(0), step.need(1), step.need(2)
    distinct = _distinct_elements(step) if step.node.op_type == "ScatterElements" else _distinct_rows(step)
    if distinct:
        return [_once(step, step.op, data, indices, updates)]
    return [_one_by_one(step)]


def _once(step: Step, op: Builder, data: ir.Value, indices: ir.Value, updates: ir.Value) -> ir.Value:
    combine = _COMBINE[step.text_of("reduction", "none")]
    if step.node.op_type == "ScatterND":
        old = op.GatherND(data, indices)
        result = op.ScatterND(data, indices, op.node(combine, [old, updates]))
    else:
        axis = step.int_of("axis", 0)
        old = op.GatherElements(data, indices, axis=axis)
        result = op.ScatterElements(data, indices, op.node(combine, [old, updates]), axis=axis)
    assert isinstance(result, ir.Value)
    return result


def _one_by_one(step: Step) -> ir.Value:
    """A Loop over the indices: along the axis, where no index can repeat at one step, or over the rows."""
    op = step.op
    data, indices, updates = step.need(0), step.need(1), step.need(2)
    if step.node.op_type == "ScatterND":
        columns = step.rank(1) - 1
        shape = op.Shape(indices)
        indices = op.Reshape(indices, op.Concat([-1], op.Slice(shape, [columns], [columns + 1]), axis=0))
        rest = op.Slice(op.Shape(updates), [columns], [np.iinfo(np.int64).max])
        count = op.Slice(op.Shape(indices), [0], [1])
        updates = op.Reshape(updates, op.Concat(count, rest, axis=0))
        axis = 0
    else:
        axis = step.int_of("axis", 0) % step.rank(0)
    steps = op.Squeeze(op.Slice(op.Shape(indices), [axis], [axis + 1]), [0])
    number = ir.Value(name=None, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    going = ir.Value(name=None, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    so_far = ir.Value(name=None, type=data.type, shape=data.shape)
    body = ir.Graph([number, going, so_far], [], nodes=[], name=f"{step.node.outputs[0].name}_updates")
    inner = Builder(body, opset=step.opset, origins=op.origins, made_by=op.made_by, constants=op.constants)
    first = inner.Unsqueeze(number, [0])
    last = inner.Add(first, [1])
    here, update = (inner.Slice(value, first, last, [axis]) for value in (indices, updates))
    after = _once(step, inner, so_far, here, update)
    body.outputs.extend([inner.Identity(going), after])
    result = op.Loop(steps, None, data, body=body)
    assert isinstance(result, ir.Value)
    step.rewriter.set_type(result, data.type)
    step.rewriter.set_shape(result, data.shape)
    return result


def _distinct_rows(step: Step) -> bool:
    indices = step.constant(1)
    if indices is None or (indices < 0).any():
        return False
    rows = indices.reshape(-1, indices.shape[-1])
    return len(np.unique(rows, axis=0)) == len(rows)


def _distinct_elements(step: Step) -> bool:
    indices = step.constant(1)
    if indices is None:
        return False
    axis = step.int_of("axis", 0) % indices.ndim
    size = step.dim(0, axis)
    if (indices < 0).any():
        if size is None:
            return False
        indices = np.where(indices < 0, indices + size, indices)
    return bool((np.diff(np.sort(indices, axis=axis), axis=axis) != 0).all())
