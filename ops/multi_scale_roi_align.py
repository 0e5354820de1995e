"""MultiScaleRoiAlign: every box is pooled from the feature map that its level names.

    MultiScaleRoiAlign(rois [R,5], levels [R], feature_0 [B,C,H0,W0], feature_1 [B,C,H1,W1], ...) -> [R,C,h,w]

``rois`` rows are (image, x1, y1, x2, y2) in pixels of the input image, ``levels`` says which feature map each box is
pooled from, ``spatial_scales`` holds one factor per feature map from image to map pixels.  Pooling is ONNX's RoiAlign
(He et al., Mask R-CNN, 2017) with ``avg``; assigning boxes to levels is Lin et al., Feature Pyramid Networks, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from graphforge.ir import Builder
from graphforge.ops._roi_align import roi_align_of_levels
from graphforge.ops.custom_op import TensorFact, semantic_op

__all__ = ["OP", "lower", "multi_scale_roi_align"]


def _shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    rois, feature = inputs[0], inputs[2] if len(inputs) > 2 else None
    if rois is None or feature is None or rois.shape is None or feature.shape is None:
        return [TensorFact("float" if feature is None else feature.dtype)]
    return [
        TensorFact(
            feature.dtype,
            (rois.shape[0], feature.shape[1], attributes["output_height"], attributes["output_width"]),
        )
    ]


@torch.library.custom_op("graphforge::multi_scale_roi_align", mutates_args=())
def multi_scale_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    spatial_scales: Sequence[float],
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The operator in plain torch.

    Args:
        features: [B, C, H_i, W_i] float tensors, one per level.
        rois: [R, 5] float rows of (image, x1, y1, x2, y2) in pixels of the input image.
        levels: [R] int64, index into ``features``.
        spatial_scales: one factor per level.
        output_height, output_width: the pooled size.
        sampling_ratio: samples per bin and axis; 0 or less adapts to the box.
        aligned: pixel centres at .5.

    Returns:
        [R, C, output_height, output_width].
    """
    from graphforge.ops._torchvision_kernels import roi_align

    first = features[0]
    pooled = first.new_zeros(rois.shape[0], first.shape[1], output_height, output_width)
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        chosen = torch.where(levels == level)[0]
        pooled[chosen] = roi_align(feature, rois[chosen], scale, output_height, output_width, sampling_ratio, aligned)
    return pooled


@multi_scale_roi_align.register_fake
def _fake(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    spatial_scales: Sequence[float],
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return features[0].new_empty(rois.shape[0], features[0].shape[1], output_height, output_width)


OP = semantic_op(
    "MultiScaleRoiAlign",
    inputs=["rois", "levels: int64", "features: T*"],
    outputs=["pooled"],
    attributes={
        "spatial_scales": [1.0],
        "output_height": int,
        "output_width": int,
        "sampling_ratio": 0,
        "aligned": 0,
    },
    shapes=_shapes,
    function=multi_scale_roi_align,
    torch_name="graphforge::multi_scale_roi_align",
    doc=__doc__,
)


def lower(op: Builder, node: ir.Node, *, fixed_shapes: bool, roi_align: str = "native") -> ir.Value:
    """RoiAlign per level, or all levels together in plain operators.

    Args:
        op: where to build.
        node: a MultiScaleRoiAlign.
        fixed_shapes: pool every box from every level and choose, so that no size depends on data; else each level's
            boxes are picked, pooled, and put back in order.
        roi_align: ``native`` or ``portable``, for targets that have no RoiAlign.

    Raises:
        GraphForgeError: the portable form needs a sampling ratio above 0 and maps of fixed shape.
    """
    rois, levels, *features = [value for value in node.inputs if value is not None]
    scales = [float(scale) for scale in node.attributes["spatial_scales"].as_floats()]
    images = op.Cast(op.Gather(rois, op.constant(0), axis=1), to=ir.DataType.INT64)
    corners = op.Slice(rois, [1], [5], [1])
    if roi_align == "portable":
        return roi_align_of_levels(
            op,
            features,
            corners,
            images,
            levels if len(features) > 1 else None,
            scales=scales,
            size=(node.attributes.get_int("output_height"), node.attributes.get_int("output_width")),
            sampling_ratio=node.attributes.get_int("sampling_ratio", 0),
            aligned=bool(node.attributes.get_int("aligned", 0)),
        )

    def pooled(level: int, boxes: ir.Value, which: ir.Value) -> ir.Value:
        result: ir.Value = op.RoiAlign(
            features[level],
            boxes,
            which,
            output_height=node.attributes.get_int("output_height"),
            output_width=node.attributes.get_int("output_width"),
            sampling_ratio=max(node.attributes.get_int("sampling_ratio", 0), 0),
            spatial_scale=scales[level],
            coordinate_transformation_mode="half_pixel"
            if node.attributes.get_int("aligned", 0)
            else "output_half_pixel",
        )
        return result

    if len(features) == 1:
        return pooled(0, corners, images)
    if fixed_shapes:
        result = pooled(0, corners, images)
        for level in range(1, len(features)):
            here = op.Unsqueeze(op.Equal(levels, level), [1, 2, 3])
            result = op.Where(here, pooled(level, corners, images), result)
        return result
    parts, order = [], []
    for level in range(len(features)):
        chosen = op.Squeeze(op.NonZero(op.Equal(levels, level)), [0])
        parts.append(pooled(level, op.Gather(corners, chosen, axis=0), op.Gather(images, chosen, axis=0)))
        order.append(chosen)
    joined = op.Concat(*order, axis=0)
    count = op.Shape(joined)
    zeros = op.Expand(op.constant([0]), count)
    places = op.Range(0, op.Squeeze(count, [0]), 1)
    put_back: ir.Value = op.Gather(op.Concat(*parts, axis=0), op.ScatterElements(zeros, joined, places), axis=0)
    return put_back
