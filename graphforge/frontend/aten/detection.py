"""Detection: operators that stay whole, as nodes of our own domain, until a target says how it wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []


def _semantic(op: Emitter, op_type: str, operands: Sequence[ir.Value | None], **keywords: Any) -> Any:
    """A node of our domain."""
    op.constants.opset_imports.setdefault("graphforge", 1)
    return op.node(op_type, operands, _domain="graphforge", **keywords)


@lowers("graphforge.batched_nms.default")
def batched_nms(
    op: Emitter,
    boxes: ir.Value,
    scores: ir.Value,
    class_ids: ir.Value | None,
    iou_threshold: float,
    offset_limit: int = 0,
) -> ir.Value:
    """BatchedNMS."""
    from graphforge.ops.batched_nms import float32_at_most

    kept: ir.Value = _semantic(
        op,
        "BatchedNMS",
        [boxes, scores, class_ids if class_ids is None else op.cast(class_ids, ir.DataType.INT64)],
        iou_threshold=float32_at_most(iou_threshold),
        offset_limit=offset_limit,
    )
    return kept


@lowers("torchvision.nms.default")
def nms(op: Emitter, boxes: ir.Value, scores: ir.Value, iou_threshold: float) -> ir.Value:
    """BatchedNMS of one class."""
    return batched_nms(op, boxes, scores, None, iou_threshold)


@lowers("graphforge.soft_nms.default")
def soft_nms(
    op: Emitter,
    boxes: ir.Value,
    scores: ir.Value,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: str,
) -> tuple[ir.Value, ir.Value]:
    """SoftNMS."""
    from graphforge.ops.soft_nms import Settings

    Settings(iou_threshold, sigma, min_score, method)  # refuses what has no meaning
    picked: tuple[ir.Value, ir.Value] = _semantic(
        op,
        "SoftNMS",
        [op.cast(boxes, ir.DataType.FLOAT), op.cast(scores, ir.DataType.FLOAT)],
        _outputs=2,
        iou_threshold=float(iou_threshold),
        sigma=float(sigma),
        min_score=float(min_score),
        method=method,
    )
    return picked


@lowers("graphforge.nms_rotated.default")
def nms_rotated(
    op: Emitter, boxes: ir.Value, scores: ir.Value, class_ids: ir.Value | None, iou_threshold: float
) -> ir.Value:
    """NMSRotated."""
    from graphforge.ops.batched_nms import float32_at_most

    kept: ir.Value = _semantic(
        op,
        "NMSRotated",
        [
            op.cast(boxes, ir.DataType.FLOAT),
            op.cast(scores, ir.DataType.FLOAT),
            class_ids if class_ids is None else op.cast(class_ids, ir.DataType.INT64),
        ],
        iou_threshold=float32_at_most(iou_threshold),
    )
    return kept


@lowers("graphforge.multi_scale_roi_align.default")
def multi_scale_roi_align(
    op: Emitter,
    features: Sequence[ir.Value],
    rois: ir.Value,
    levels: ir.Value,
    spatial_scales: Sequence[float],
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> ir.Value:
    """MultiScaleRoiAlign."""
    pooled: ir.Value = _semantic(
        op,
        "MultiScaleRoiAlign",
        [rois, levels, *features],
        spatial_scales=[float(scale) for scale in spatial_scales],
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        aligned=int(aligned),
    )
    return pooled


@lowers("graphforge.heatmaps_to_keypoints.default")
def heatmaps_to_keypoints(op: Emitter, maps: ir.Value, rois: ir.Value) -> tuple[ir.Value, ir.Value]:
    """HeatmapsToKeypoints."""
    located: tuple[ir.Value, ir.Value] = _semantic(op, "HeatmapsToKeypoints", [maps, rois], _outputs=2)
    return located
