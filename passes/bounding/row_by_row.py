"""Operators that treat every position of the ragged axis alike, and reductions over it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.passes.bounding.common import bounds, data_of, filled, hand_over, row_by_row
from graphforge.passes.bounding.rows import Refusal
from graphforge.passes.bounding.walk import Walk

__all__: list[str] = []


@bounds(
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization",
    "InstanceNormalization", "GroupNormalization", "Resize", "DepthToSpace", "SpaceToDepth", "GridSample",
    "graphforge::MultiScaleRoiAlign", "graphforge::HeatmapsToKeypoints", "LRN", "LpPool", "GlobalLpPool",
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
    if known is None or pads is None:
        raise Refusal("Pad by a size that depends on data")
    rank = len(walk.shape(value))
    axes = walk.vector_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(rank))
    assert axes is not None
    for place, axis in enumerate(axes):
        if axis % rank == known.axis and (pads[place] or pads[place + len(axes)]):
            raise Refusal("Pad of an axis whose size depends on data")
    row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


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
        raise Refusal(f"{node.op_type} over an axis whose size depends on data")
    dense = filled(walk, known, walk.dense(value), neutral)
    (result,) = walk.again(node, [dense, *node.inputs[1:]])
    hand_over(walk, node.outputs[0], result)


@bounds("ArgMax", "ArgMin")
def _arg_reduce(walk: Walk, node: ir.Node) -> None:
    """The best class of each row; the best row of all would need its rank among the valid ones."""
    value = data_of(node)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    lost = 0 if node.attributes.get_int("keepdims", 1) else 1
    row_by_row(
        walk, node, lambda ragged: ragged - lost if ragged > axis else ragged, allowed=lambda ragged: ragged != axis
    )
