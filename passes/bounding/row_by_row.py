"""Operators that treat every position of the ragged axis alike, and reductions over it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.ir import constant_of
from graphforge.passes.bounding.common import bounds, data_of, filled, hand_over, in_front, row_by_row
from graphforge.passes.bounding.rows import Extent, Ragged, Refusal
from graphforge.passes.bounding.walk import Walk

__all__: list[str] = []


@bounds("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool")
def _pool(walk: Walk, node: ir.Node) -> None:
    """The ragged axis is the batch, or the channels: masks of the kept, as one picture."""
    row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis in (0, 1))


@bounds("Resize")
def _resize(walk: Walk, node: ir.Node) -> None:
    """The ragged axis keeps its size: its scale is one, or it is not among the axes."""
    value = data_of(node)
    known = walk.ragged.get(value)
    rank = len(walk.sizes(value))
    axes = [axis % rank for axis in node.attributes.get_ints("axes", range(rank))]
    if known is None or len(node.inputs) < 3:
        raise Refusal("Resize by a size that depends on data")
    inputs = [walk.dense(value), *node.inputs[1:]]
    if known.axis in axes:
        place = axes.index(known.axis)
        sizes = walk.elements(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
        scales = constant_of(node.inputs[2]) if node.inputs[2] is not None else None
        own = None if sizes is None else sizes[place]
        if sizes is not None and isinstance(own, Extent):
            counted = walk.rows.counted(own)
            if counted is not known.rows or any(isinstance(one, Extent) for one in sizes[:place] + sizes[place + 1 :]):
                raise Refusal("Resize to a size that depends on data")
            fixed = [known.rows.size if isinstance(one, Extent) else one for one in sizes]
            inputs[3] = walk.op.constant(fixed)
        elif scales is None or scales.size != len(axes) or scales.reshape(-1)[place] != 1:
            raise Refusal("Resize mixes positions of an axis whose size depends on data")
    (result,) = walk.again(node, inputs)
    walk.set(node.outputs[0], result, known.axis, known.rows)


@bounds(
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "DepthToSpace",
    "SpaceToDepth", "GridSample", "graphforge::MultiScaleRoiAlign", "graphforge::HeatmapsToKeypoints", "LRN",
)  # fmt: skip
def _batch(walk: Walk, node: ir.Node) -> None:
    """The ragged axis is the batch."""
    row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis == 0)


@bounds("RoiAlign", "MaxRoiPool")
def _roi_align(walk: Walk, node: ir.Node) -> None:
    if node.inputs[0] in walk.ragged:
        raise Refusal(f"{node.op_type} pools from a batch whose size depends on data")
    row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis == 0)


@bounds("Gemm")
def _gemm(walk: Walk, node: ir.Node) -> None:
    if any(value in walk.ragged for value in node.inputs[1:]) or node.attributes.get_int("transA", 0) != 0:
        raise Refusal("Gemm adds over an axis whose size depends on data")
    row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis == 0)


@bounds("MatMul")
def _mat_mul(walk: Walk, node: ir.Node) -> None:
    left, right = data_of(node), data_of(node, 1)
    ranks = len(walk.shape(left)), len(walk.shape(right))
    known = walk.ragged.get(left), walk.ragged.get(right)
    rank = max(ranks)
    places = [rank - size + one.axis for size, one in zip(ranks, known, strict=True) if one is not None]
    if len(set(places)) != 1:
        raise Refusal("MatMul of tensors that were picked in different ways")
    place = places[0]
    batch = place < rank - 2
    row = known[1] is None and place == rank - 2 and min(ranks) > 1
    column = known[0] is None and place == rank - 1 and min(ranks) > 1
    if not (batch or row or column):
        raise Refusal("MatMul adds over an axis whose size depends on data")
    (result,) = walk.again(node, [walk.now(left), walk.now(right)])
    walk.set(node.outputs[0], result, place, next(one.rows for one in known if one is not None))


@bounds("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "Hardmax", "LpNormalization")
def _along_axis(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal(f"{node.op_type} takes a size that depends on data")
    axis = node.attributes.get_int("axis", -1) % len(walk.shape(value))
    mixes = known.axis >= axis if "Normalization" in node.op_type and node.op_type != "LpNormalization" else False
    if mixes or known.axis == axis:
        raise Refusal(f"{node.op_type} mixes positions of an axis whose size depends on data")
    row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


@bounds("Pad")
def _pad(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known, pads = walk.ragged.get(value), walk.vector_of(node.inputs[1])
    if known is not None and pads is None and _filled_up(walk, node, known):
        return
    if known is None or pads is None:
        raise Refusal("Pad by a size that depends on data")
    rank = len(walk.shape(value))
    axes = walk.vector_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(rank))
    assert axes is not None
    for place, axis in enumerate(axes):
        if axis % rank == known.axis and (pads[place] or pads[place + len(axes)]):
            raise Refusal("Pad of an axis whose size depends on data")
    row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


def _filled_up(walk: Walk, node: ir.Node, known: Ragged) -> bool:
    """``F.pad(x, (0, 0, 0, k - n))``: the rows and so many others that there are k; False where it is not that."""
    rank, found = len(walk.sizes(data_of(node))), walk.elements(node.inputs[1])
    axes = walk.vector_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(rank))
    if found is None or axes is None or known.axis not in [axis % rank for axis in axes]:
        return False
    place = [axis % rank for axis in axes].index(known.axis)
    begin, end = found[place], found[place + len(axes)]
    rest = [one for at, one in enumerate(found) if at not in (place, place + len(axes))]
    total = walk.rows.completing(end, known.rows) if isinstance(end, Extent) else None
    if begin != 0 or total is None or any(isinstance(one, Extent) for one in rest):
        return False
    op, front = walk.op, in_front(walk, known)
    numbers = [one if isinstance(one, int) else 0 for one in found]
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    dense = op.Pad(front.dense, op.constant(numbers), fill, op.constant(axes))
    if front.rows.size < total:
        dense = op.Pad(dense, op.constant([0, total - front.rows.size]), fill, op.constant([known.axis]))
    elif front.rows.size > total:
        dense = op.Slice(dense, [0], [total], [known.axis], [1])
    valid = op.Less(op.constant(np.arange(total, dtype=np.int64)), front.rows.count(op))
    others = [axis for axis in range(rank) if axis != known.axis]
    assert dense.dtype is not None
    filler = op.constant(0, dense.dtype) if fill is None else fill
    hand_over(walk, node.outputs[0], op.Where(op.Unsqueeze(valid, others) if others else valid, dense, filler))
    return True


@bounds("Tile")
def _tile(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known, repeats = walk.ragged.get(value), walk.vector_of(node.inputs[1])
    if known is None or repeats is None or repeats[known.axis] != 1:
        raise Refusal("Tile of an axis whose size depends on data")
    row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


@bounds("OneHot")
def _one_hot(walk: Walk, node: ir.Node) -> None:
    if node.attributes.get_int("axis", -1) != -1:
        raise Refusal("OneHot in the middle of a tensor whose size depends on data")
    row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: True)


@bounds("CumSum")
def _cum_sum(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known, axis = walk.ragged.get(value), walk.single(node.inputs[1])
    if known is None or not isinstance(axis, int):
        raise Refusal("CumSum of a size that depends on data")
    dense = walk.dense(value)
    if axis % len(walk.shape(value)) == known.axis:
        dense = filled(walk, known, dense, 0)
    (result,) = walk.again(node, [dense, node.inputs[1]])
    walk.set(node.outputs[0], result, known.axis, known.rows)


_NEUTRAL: dict[str, Any] = {
    "ReduceMax": "lowest",
    "ReduceMin": "highest",
    "ReduceSum": 0,
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceSumSquare": 0,
    "ReduceProd": 1,
    "ReduceLogSumExp": "lowest",
    "ReduceMean": None,
}


@bounds(*_NEUTRAL)
def _reduce(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal(f"{node.op_type} of a size that depends on data")
    rank = len(walk.shape(value))
    given = walk.vector_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else []
    if given is None:
        raise Refusal(f"the axes of {node.op_type} are computed")
    axes = {axis % rank for axis in given} or (
        set() if node.attributes.get_int("noop_with_empty_axes", 0) else set(range(rank))
    )
    keeps = bool(node.attributes.get_int("keepdims", 1))
    if known.axis not in axes:
        lost = 0 if keeps else sum(1 for axis in axes if axis < known.axis)
        row_by_row(walk, node, lambda axis: axis - lost, allowed=lambda axis: True)
        return
    neutral = _NEUTRAL[node.op_type]
    if neutral is None:
        dense, op = filled(walk, known, walk.dense(value), 0), walk.op
        others = math.prod(size for axis, size in enumerate(walk.shape(value)) if axis in axes and axis != known.axis)
        assert dense.dtype is not None
        divisor = op.Cast(op.Mul(known.rows.count(op), others), to=dense.dtype)
        total = op.ReduceSum(dense, *node.inputs[1:], keepdims=int(keeps))
        hand_over(walk, node.outputs[0], op.Div(total, divisor))
        return
    dense = filled(walk, known, walk.dense(value), neutral)
    (result,) = walk.again(node, [dense, *node.inputs[1:]])
    hand_over(walk, node.outputs[0], result)


@bounds("ArgMax", "ArgMin")
def _arg_reduce(walk: Walk, node: ir.Node) -> None:
    """The best class of each row, or the best row of all: its rank among the valid ones."""
    value = data_of(node)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    known = walk.ragged.get(value)
    if known is not None and known.axis == axis:
        dense = filled(walk, known, walk.dense(value), "lowest" if node.op_type == "ArgMax" else "highest")
        (best,) = walk.again(node, [dense])
        ranks = best if known.rows.is_prefix else walk.op.Gather(known.rows.ranks(walk.op), best, axis=0)
        hand_over(walk, node.outputs[0], ranks)
        return
    lost = 0 if node.attributes.get_int("keepdims", 1) else 1
    row_by_row(
        walk, node, lambda ragged: ragged - lost if ragged > axis else ragged, allowed=lambda ragged: ragged != axis
    )
