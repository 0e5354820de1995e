"""Attention said with matrix products and Softmax.

The usual cases are written here in few nodes; caches, windows, extra outputs and the like go by ONNX's own definition.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import HALF_FLOATS, Step, Values

__all__ = ["attention"]


def attention(step: Step) -> Values | None:
    """softmax(q k' + mask) v  with heads split off and, for grouped queries, keys and values repeated."""
    if not _is_usual(step):
        return None
    op = step.op
    q, k, v = step.need(0), step.need(1), step.need(2)
    flat = step.rank(0) == 3
    if flat:
        q = _heads(step, q, step.int_of("q_num_heads", 0))
        k = _heads(step, k, step.int_of("kv_num_heads", 0))
        v = _heads(step, v, step.int_of("kv_num_heads", 0))
    groups = _groups(step, q, k)
    if groups != 1:
        k, v = _repeated(step, k, groups), _repeated(step, v, groups)
    q, k = _scaled(step, q, k)
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2]))
    softcap = step.float_of("softcap", 0.0)
    if softcap:
        cap = op.constant(softcap, step.dtype())
        scores = op.Mul(cap, op.Tanh(op.Div(scores, cap)))
    masked = False
    mask = step.input(3)
    if mask is not None:
        scores, masked = _add_mask(step, scores, mask), True
    if step.int_of("is_causal", 0):
        scores = _causal(step, scores)
    weights = _softmax(step, scores, masked)
    y = op.MatMul(weights, v)
    if flat:
        y = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
    return [y, *[None] * (len(step.node.outputs) - 1)]


def _is_usual(step: Step) -> bool:
    if any(step.is_read(output) for output in range(1, len(step.node.outputs))):
        return False
    if any(step.input(position) is not None for position in (4, 5, 6)):
        return False
    if step.node.inputs[0] is None or step.node.inputs[0].shape is None or step.rank(0) not in (3, 4):
        return False
    precision = step.int_of("softmax_precision", 0)
    if precision not in (0, step.dtype().value) or step.dtype() in HALF_FLOATS:
        return False
    if step.int_of("left_window_size", -1) != -1 or step.int_of("right_window_size", -1) != -1:
        return False
    mask = step.input(3)
    if mask is not None and (mask.dtype not in (ir.DataType.BOOL, step.dtype()) or mask.shape is None):
        return False
    # A mask may be shorter than the keys; without both sizes nobody can tell.
    if mask is not None and (mask.shape is None or not isinstance(mask.shape[-1], int)):
        return False
    if mask is not None and step.dim(1, -2 if step.rank(1) == 4 else 1) != step.dim(3, -1):
        return False
    return _group_count(step) is not None


def _group_count(step: Step) -> int | None:
    if step.rank(0) == 3:
        heads, keys = step.int_of("q_num_heads", 0), step.int_of("kv_num_heads", 0)
    else:
        first, second = step.dim(0, 1), step.dim(1, 1)
        if first is None or second is None:
            return None
        heads, keys = first, second
    return heads // keys if keys and heads % keys == 0 else None


def _groups(step: Step, q: ir.Value, k: ir.Value) -> int:
    found = _group_count(step)
    assert found is not None
    return found


def _heads(step: Step, value: ir.Value, count: int) -> ir.Value:
    """(batch, length, heads * size)  ==>  (batch, heads, length, size)."""
    split = step.op.Reshape(value, [0, 0, count, -1])
    result = step.op.Transpose(split, perm=[0, 2, 1, 3])
    assert isinstance(result, ir.Value)
    return result


def _repeated(step: Step, value: ir.Value, groups: int) -> ir.Value:
    """Each head ``groups`` times in a row."""
    op = step.op
    wide = op.Unsqueeze(value, [2])
    shape = op.Shape(value)
    size = op.Concat(op.Slice(shape, [0], [2]), [groups], op.Slice(shape, [2], [4]), axis=0)
    final = op.Concat(op.Slice(shape, [0], [1]), [-1], op.Slice(shape, [2], [4]), axis=0)
    result = op.Reshape(op.Expand(wide, size), final)
    assert isinstance(result, ir.Value)
    return result


def _scaled(step: Step, q: ir.Value, k: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Both sides by the root of the scale, as the definition has it: the product then stays in range."""
    op = step.op
    scale = step.float_of("scale", 0.0) if "scale" in step.node.attributes else None
    if scale is None:
        size = q.shape[3] if q.shape is not None else None
        if isinstance(size, int):
            scale = 1.0 / math.sqrt(size)
    if scale is not None and scale >= 0:
        root = op.constant(math.sqrt(scale), step.dtype())
        return op.Mul(q, root), op.Mul(k, root)
    if scale is not None:
        return op.Mul(q, op.constant(scale, step.dtype())), k
    size = op.Cast(op.Slice(op.Shape(q), [3], [4]), to=step.dtype().value)
    root = op.Sqrt(op.Div(op.constant(1.0, step.dtype()), op.Sqrt(size)))
    return op.Mul(q, root), op.Mul(k, root)


def _add_mask(step: Step, scores: ir.Value, mask: ir.Value) -> ir.Value:
    if mask.dtype != ir.DataType.BOOL:
        result = step.op.Add(scores, mask)
    else:
        result = step.op.Where(mask, scores, step.op.constant(-np.inf, step.dtype()))
    assert isinstance(result, ir.Value)
    return result


def _causal(step: Step, scores: ir.Value) -> ir.Value:
    """Query i attends keys up to i."""
    op = step.op
    shape = op.Shape(scores)
    rows = op.Range(0, op.Squeeze(op.Slice(shape, [2], [3]), [0]), 1)
    columns = op.Range(0, op.Squeeze(op.Slice(shape, [3], [4]), [0]), 1)
    seen = op.LessOrEqual(op.Unsqueeze(columns, [0]), op.Unsqueeze(rows, [1]))
    result = op.Where(seen, scores, op.constant(-np.inf, step.dtype()))
    assert isinstance(result, ir.Value)
    return result


def _softmax(step: Step, scores: ir.Value, masked: bool) -> ir.Value:
    """Softmax; a query whose every key is masked attends nothing, where Softmax alone would give NaN."""
    op = step.op
    weights = op.Softmax(scores, axis=-1)
    if masked:
        nothing = op.Equal(op.ReduceMax(scores, [-1], keepdims=1), op.constant(-np.inf, step.dtype()))
        weights = op.Where(nothing, op.constant(0.0, step.dtype()), weights)
    assert isinstance(weights, ir.Value)
    return weights
