"""Substitutes for functions of ultralytics that loop over detections in Python."""

from __future__ import annotations

import torch
from torch import Tensor

from graphforge.frontend.substitution import substitute
from graphforge.ops import batched_nms as _batched_nms

__all__: list[str] = []

assert _batched_nms  # it defines torch.ops.graphforge.batched_nms


@substitute("ultralytics.utils.nms.TorchNMS.nms", required=False)
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """One operator; the original takes box after box from a list until none is left."""
    kept: Tensor = torch.ops.graphforge.batched_nms(boxes, scores, None, iou_threshold, 0)
    return kept
