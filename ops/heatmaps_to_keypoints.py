"""HeatmapsToKeypoints: the place of each keypoint, from a heatmap per box and keypoint.

    HeatmapsToKeypoints(maps [K,N,S,S], rois [K,4]) -> keypoints [K,N,3] (x, y, 1), scores [K,N]

Each heatmap is resized bicubically to its box (rounded up to whole pixels), its maximum is the keypoint, and the middle
of that pixel is scaled back to the box.  As torchvision's Keypoint R-CNN does (He et al., Mask R-CNN, 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from graphforge.ir import Builder
from graphforge.ops.custom_op import TensorFact, semantic_op

__all__ = ["OP", "heatmaps_to_keypoints", "lower"]


def _shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    maps = inputs[0]
    if maps is None or maps.shape is None:
        return [TensorFact("float"), TensorFact("float")]
    boxes, keypoints = maps.shape[:2]
    return [TensorFact("float", (boxes, keypoints, 3)), TensorFact("float", (boxes, keypoints))]


@torch.library.custom_op("graphforge::heatmaps_to_keypoints", mutates_args=())
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """The operator in plain torch.

    Args:
        maps: [K, N, S, S] float.
        rois: [K, 4] float, (x1, y1, x2, y2).

    Returns:
        Keypoints [K, N, 3] and scores [K, N].
    """
    boxes, count = maps.shape[:2]
    sides = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    keypoints = maps.new_ones(boxes, count, 3)
    scores = maps.new_zeros(boxes, count)
    for box in range(boxes):
        width, height = (int(side) for side in sides[box].ceil())
        resized = torch.nn.functional.interpolate(maps[box][None], (height, width), mode="bicubic")[0].flatten(1)
        scores[box], place = resized.max(1)
        x = (place % width + 0.5) * (sides[box, 0] / width)
        y = (place.div(width, rounding_mode="floor") + 0.5) * (sides[box, 1] / height)
        keypoints[box, :, 0] = x + rois[box, 0]
        keypoints[box, :, 1] = y + rois[box, 1]
    return keypoints, scores


@heatmaps_to_keypoints.register_fake
def _fake(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    boxes, count = maps.shape[:2]
    return maps.new_empty(boxes, count, 3), maps.new_empty(boxes, count)


OP = semantic_op(
    "HeatmapsToKeypoints",
    inputs=["maps: float", "rois: float"],
    outputs=["keypoints: float", "scores: float"],
    attributes={},
    shapes=_shapes,
    function=heatmaps_to_keypoints,
    torch_name="graphforge::heatmaps_to_keypoints",
    doc=__doc__,
)


def lower(op: Builder, node: ir.Node, *, fixed_shapes: bool) -> tuple[ir.Value, ir.Value]:
    """A Loop over the boxes, since each resizes to a size of its own; the arithmetic is done for all at once."""
    maps, rois = node.inputs
    assert maps is not None
    assert rois is not None
    corner = op.Slice(rois, [0], [2], [1])
    sides = op.Max(op.Sub(op.Slice(rois, [2], [4], [1]), corner), 1.0)
    whole = op.Ceil(sides)
    pixels = op.Cast(whole, to=ir.DataType.INT64)  # (width, height)

    body = ir.Graph([], [], nodes=[], name="keypoints_of_a_box")
    inner = Builder(body, origins=op.origins, opset=op.opset, made_by=op.made_by, constants=op.constants)
    box = ir.Value(name="box", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    goes_on = ir.Value(name="goes_on", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    body.inputs.extend([box, goes_on])
    size = inner.Gather(pixels, box, axis=0)
    width = inner.Gather(size, op.constant([0]), axis=0)
    height = inner.Gather(size, op.constant([1]), axis=0)
    one_map = inner.Unsqueeze(inner.Gather(maps, box, axis=0), [0])
    target = inner.Concat(inner.Shape(one_map, start=0, end=2), height, width, axis=0)
    resized = inner.Resize(
        one_map,
        None,
        None,
        target,
        mode="cubic",
        coordinate_transformation_mode="half_pixel",
        cubic_coeff_a=-0.75,
    )
    flat = inner.Reshape(resized, inner.Concat(inner.Shape(one_map, start=1, end=2), op.constant([-1]), axis=0))
    place = inner.ArgMax(flat, axis=1, keepdims=0)
    score = inner.ReduceMax(flat, op.constant([1]), keepdims=0)
    body.outputs.extend([inner.Identity(goes_on), place, score])

    places, scores = op.node(
        "Loop", [op.Squeeze(op.Shape(rois, start=0, end=1), [0]), op.constant(True)], _outputs=2, body=body
    )
    count = maps.shape[1] if maps.shape is not None else None
    for value, kind in ((places, ir.DataType.INT64), (scores, ir.DataType.FLOAT)):
        value.type = ir.TensorType(kind)
        value.shape = ir.Shape([rois.shape[0] if rois.shape is not None else None, count])
    width_of = op.Slice(pixels, [0], [1], [1])
    factor = op.Div(sides, whole)
    row = op.Div(places, width_of)
    column = op.Sub(places, op.Mul(row, width_of))
    located = []
    for axis, pixel in enumerate((column, row)):
        middle = op.Add(op.Cast(pixel, to=ir.DataType.FLOAT), 0.5)
        scaled = op.Mul(middle, op.Slice(factor, [axis], [axis + 1], [1]))
        located.append(op.Unsqueeze(op.Add(scaled, op.Slice(corner, [axis], [axis + 1], [1])), [2]))
    visible = op.Expand(op.constant(1.0), op.Shape(located[0]))
    keypoints: ir.Value = op.Concat(*located, visible, axis=2)
    return keypoints, scores
