"""Substitutes for torchvision's detection functions that hide their meaning or loop over detections in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphforge.frontend.substitution import substitute
from graphforge.ops import batched_nms as _batched_nms
from graphforge.ops import heatmaps_to_keypoints as _heatmaps_to_keypoints
from graphforge.ops import multi_scale_roi_align as _multi_scale_roi_align

__all__: list[str] = []

# Up to so many coordinates torchvision computes overlaps on boxes shifted by class, see ops/batched_nms.py.
_OFFSET_LIMIT = 4000

assert all((_batched_nms, _heatmaps_to_keypoints, _multi_scale_roi_align))  # they define torch.ops.graphforge.*


@substitute("torchvision.ops.boxes.batched_nms", required=False)
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """One operator; the original asks how many boxes there are."""
    kept: Tensor = torch.ops.graphforge.batched_nms(boxes, scores, idxs, iou_threshold, _OFFSET_LIMIT)
    return kept


@substitute("torchvision.ops.boxes.nms", required=False)
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """One operator."""
    kept: Tensor = torch.ops.graphforge.batched_nms(boxes, scores, None, iou_threshold, 0)
    return kept


@substitute("torchvision.models.detection._utils.BoxCoder.decode", required=False)
def decode(self: Any, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Without asking whether there are boxes: what follows works on none, too."""
    proposals = torch.cat(list(boxes), dim=0)
    decoded: Tensor = self.decode_single(rel_codes.reshape(-1, rel_codes.shape[-1]), proposals)
    return decoded.reshape(proposals.shape[0], -1, 4)


@substitute("torchvision.ops.poolers._multiscale_roi_align", required=False)
def multi_scale_roi_align(
    x_filtered: list[Tensor],
    boxes: list[Tensor],
    output_size: Sequence[int],
    sampling_ratio: int,
    scales: list[float] | None,
    mapper: Any,
) -> Tensor:
    """One operator; the original turns the number of boxes into a Python number."""
    if scales is None or mapper is None:
        raise ValueError("scales and mapper should not be None")
    images = torch.cat([torch.full_like(box[:, :1], i) for i, box in enumerate(boxes)])
    rois = torch.cat([images, torch.cat(list(boxes))], dim=1)
    levels = mapper(boxes) if len(x_filtered) > 1 else torch.zeros_like(rois[:, 0], dtype=torch.int64)
    pooled: Tensor = torch.ops.graphforge.multi_scale_roi_align(
        x_filtered, rois, levels, scales, output_size[0], output_size[1], sampling_ratio, False
    )
    return pooled


@substitute("torchvision.models.detection.roi_heads.heatmaps_to_keypoints", required=False)
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """One operator in place of a Python loop over boxes."""
    located: tuple[Tensor, Tensor] = torch.ops.graphforge.heatmaps_to_keypoints(maps, rois)
    return located


@substitute("torchvision.models.detection.roi_heads.paste_masks_in_image", required=False)
def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: tuple[int, int], padding: int = 1) -> Tensor:
    """All masks at once, in place of a Python loop over them.

    A mask is resized bilinearly to its box and laid into an image of zeros.  Bilinear resizing is separable, so each
    box has one matrix per axis, from mask pixels to image pixels, with empty rows outside of the box.
    """
    size = masks.shape[-1]
    padded = torch.nn.functional.pad(masks, (padding,) * 4)
    scale = float(size + 2 * padding) / size
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    start = (centre - half).to(torch.int64)
    end = (centre + half).to(torch.int64)
    rows = _resizing_matrix(start[:, 1], end[:, 1], size + 2 * padding, img_shape[0], masks.dtype)
    columns = _resizing_matrix(start[:, 0], end[:, 0], size + 2 * padding, img_shape[1], masks.dtype)
    return (rows @ padded[:, 0] @ columns.transpose(1, 2))[:, None]


def _resizing_matrix(start: Tensor, end: Tensor, size: int, pixels: int, dtype: torch.dtype) -> Tensor:
    """[boxes, pixels, size]: what each mask pixel gives to each image pixel from ``start`` to ``end``."""
    length = (end - start + 1).clamp(min=1)
    pixel = torch.arange(pixels)
    distance = pixel[None] - start[:, None]
    inside = (distance >= 0) & (distance < length[:, None])
    step = torch.tensor(float(size), dtype=dtype) / length.to(dtype)
    position = (step[:, None] * (distance.to(dtype) + 0.5) - 0.5).clamp(min=0.0)
    low = position.floor().clamp(max=size - 1.0)
    fraction = position - low
    high = (low + 1.0).clamp(max=size - 1.0)
    mask_pixel = torch.arange(size, dtype=dtype)
    matrix = (mask_pixel == low[..., None]).to(dtype) * (1.0 - fraction)[..., None]
    matrix = matrix + (mask_pixel == high[..., None]).to(dtype) * fraction[..., None]
    return torch.where(inside[..., None], matrix, torch.zeros((), dtype=dtype))
