"""Scattering with a reduction by comparing every place with every index: no loop, for runtimes without either.

out[a] = data[a] + sum over j of (index[j] == a ? update[j] : 0)      and alike for products, largest and smallest
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import Step, Values

__all__ = ["scatter_by_comparing"]

# (combines two, reduces many) by reduction.
_OPERATORS = {
    "add": ("Add", "ReduceSum"),
    "mul": ("Mul", "ReduceProd"),
    "max": ("Max", "ReduceMax"),
    "min": ("Min", "ReduceMin"),
}
# Elements of the largest intermediate value.
_MOST = 1 << 26


def scatter_by_comparing(step: Step) -> Values:
    """ScatterElements or ScatterND with a reduction  ==>  Equal, Where, a reduction, and one more with the data."""
    return [_elements(step) if step.node.op_type == "ScatterElements" else _rows(step)]


def _elements(step: Step) -> ir.Value:
    op, rank = step.op, step.rank(0)
    axis = step.int_of("axis", 0) % rank
    data, indices, updates = step.need(0), step.need(1), step.need(2)
    assert data.shape is not None
    assert indices.shape is not None
    sizes = [_size(data, at) for at in range(rank)]
    for at in range(rank):
        if at != axis and indices.shape[at] != data.shape[at]:
            step.fail("it scatters into a part of the data along other axes", "give indices of the data's size there")
    _check(step, [sizes[axis]], [*sizes, _size(indices, axis)])
    order = [*(at for at in range(rank) if at != axis), axis]
    x, places, new = (op.Transpose(value, perm=order) for value in (data, indices, updates))
    count = sizes[axis]
    assert count is not None
    merged = _merged(
        step, x, op.Unsqueeze(_counted(step, places, count), [rank - 1]), op.Unsqueeze(new, [rank - 1]), count, rank
    )
    back = op.Transpose(merged, perm=[order.index(at) for at in range(rank)])
    assert isinstance(back, ir.Value)
    return back


def _rows(step: Step) -> ir.Value:
    op = step.op
    data, indices, updates = step.need(0), step.need(1), step.need(2)
    depth = _size(indices, step.rank(1) - 1)
    sizes = [_size(data, at) for at in range(step.rank(0))]
    _check(step, [*sizes, depth], [*sizes, *(_size(indices, at) for at in range(step.rank(1) - 1))])
    known = [size for size in sizes if size is not None]
    assert depth is not None
    count, width = math.prod(known[:depth]), math.prod(known[depth:])
    strides = np.array([math.prod(known[at + 1 : depth]) for at in range(depth)], dtype=np.int64)
    turned = op.Where(op.Less(indices, 0), op.Add(indices, np.array(known[:depth], np.int64)), indices)
    line = op.ReduceSum(op.Mul(turned, strides), [-1], keepdims=0)
    places = op.Reshape(line, [1, -1, 1])
    x = op.Transpose(op.Reshape(data, [count, width]), perm=[1, 0])
    new = op.Unsqueeze(op.Transpose(op.Reshape(updates, [-1, width]), perm=[1, 0]), [1])
    merged = _merged(step, x, op.Transpose(places, perm=[0, 2, 1]), new, count, 2)
    whole = op.Reshape(op.Transpose(merged, perm=[1, 0]), np.array(known, np.int64))
    assert isinstance(whole, ir.Value)
    return whole


def _merged(step: Step, x: ir.Value, places: ir.Value, new: ir.Value, count: int, rank: int) -> ir.Value:
    """x [..., N], places and new [..., 1, M]  ->  [..., N]."""
    op, kind = step.op, step.dtype()
    combine, reduce = _OPERATORS[step.text_of("reduction", "none")]
    every = np.arange(count, dtype=np.int64).reshape(count, 1)
    chosen = op.Where(op.Equal(places, every), new, op.constant(_neutral(step, kind), kind))
    if step.opset >= 18 or (reduce == "ReduceSum" and step.opset >= 13):
        many = op.node(reduce, [chosen, np.array([rank], np.int64)], keepdims=0)
    else:
        many = op.node(reduce, [chosen], axes=[rank], keepdims=0)
    merged = op.node(combine, [x, many])
    assert isinstance(merged, ir.Value)
    return merged


def _counted(step: Step, indices: ir.Value, size: int) -> ir.Value:
    """Indices from the end, counted from the start."""
    op = step.op
    counted = op.Where(op.Less(indices, 0), op.Add(indices, size), indices)
    assert isinstance(counted, ir.Value)
    return counted


def _neutral(step: Step, kind: ir.DataType) -> float | int:
    reduction = step.text_of("reduction", "none")
    if reduction in ("add", "mul"):
        return 0 if reduction == "add" else 1
    if kind.is_floating_point():
        return -math.inf if reduction == "max" else math.inf
    limits = np.iinfo(kind.numpy())
    return int(limits.min if reduction == "max" else limits.max)


def _size(value: ir.Value, axis: int) -> int | None:
    size = None if value.shape is None else value.shape[axis]
    return size if isinstance(size, int) else None


def _check(step: Step, needed: Sequence[int | None], sizes: Sequence[int | None]) -> None:
    if any(size is None for size in needed):
        step.fail("its other form compares every place with every index, which needs known sizes", "give fixed sizes")
    if math.prod(size for size in sizes if size is not None) > _MOST:
        step.fail(f"its other form compares every place with every index, which is more than {_MOST} here")
