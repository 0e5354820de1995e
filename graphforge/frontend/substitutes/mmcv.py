"""Substitutes for mmcv's suppression functions (mmcv 2.x, ``mmcv.ops.nms``), which call compiled kernels.

They mean what mmcv documents, with two things said more exactly: ties of score go by the lower index, and boxes without
area overlap nothing in ``soft_nms`` either.  What cannot be said exactly is refused: ``offset=1``, rotated boxes,
``soft_nms`` in groups (``split_thr``), and ``nms_match``, whose number of results depends on data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from graphforge.errors import GraphForgeError
from graphforge.frontend.substitution import substitute
from graphforge.ops import batched_nms as _batched_nms
from graphforge.ops import soft_nms as _soft_nms

__all__: list[str] = []

# From so many boxes on mmcv goes through the classes one by one.
_SPLIT_FROM = 10000

assert all((_batched_nms, _soft_nms))  # they define torch.ops.graphforge.*


@substitute("mmcv.ops.nms.nms", required=False)
def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float | None = None,
    offset: int = 0,
    score_threshold: float = 0,
    max_num: int = -1,
    *,
    iou_thr: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One operator, behind a mask where there is a score threshold."""
    _check_offset("nms", offset)
    keep = _kept(boxes, scores, None, _threshold("nms", iou_threshold, iou_thr), score_threshold, max_num)
    return torch.cat([boxes[keep], scores[keep][:, None]], dim=1), keep


@substitute("mmcv.ops.nms.soft_nms", required=False)
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    offset: int = 0,
    *,
    iou_thr: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One operator."""
    _check_offset("soft_nms", offset)
    threshold = float(iou_threshold if iou_thr is None else iou_thr)
    picked: tuple[Tensor, Tensor] = torch.ops.graphforge.soft_nms(
        boxes, scores, threshold, float(sigma), float(min_score), method
    )
    return picked


@substitute("mmcv.ops.nms.batched_nms", required=False)
def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor,
    nms_cfg: Mapping[str, Any] | None,
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor]:
    """One operator on boxes shifted by class; the original asks how many boxes there are."""
    if nms_cfg is None:
        ordered, order = scores.sort(descending=True, stable=True)
        return torch.cat([boxes[order], ordered[:, None]], dim=1), order
    options = dict(nms_cfg)
    agnostic = options.pop("class_agnostic", class_agnostic)
    kind = options.pop("type", "nms")
    split_from = options.pop("split_thr", _SPLIT_FROM)
    if kind not in ("nms", "soft_nms") or boxes.shape[-1] != 4:
        raise GraphForgeError(
            f"mmcv's batched_nms of type {kind!r} on boxes of {boxes.shape[-1]} numbers has no compiled form",
            "types that have one: nms, soft_nms, on boxes x1 y1 x2 y2",
            "declare a substitute for the function that calls it (graphforge.substitute)",
        )
    apart = boxes if agnostic else _shifted(boxes, idxs)
    if kind == "soft_nms":
        if not statically_known_true(boxes.shape[0] < split_from):
            raise GraphForgeError(
                f"mmcv's batched_nms takes the classes one by one from {split_from} boxes on, which soft_nms has "
                "no compiled form for",
                "raise split_thr in nms_cfg above the number of boxes, or take the best so many boxes first (topk)",
            )
        dets, keep = soft_nms(apart, scores, **options)
        return torch.cat([boxes[keep], dets[:, 4:]], dim=1), keep
    _check_offset("batched_nms", options.pop("offset", 0))
    threshold = _threshold("batched_nms", options.pop("iou_threshold", None), options.pop("iou_thr", None))
    score_threshold, max_num = options.pop("score_threshold", 0), options.pop("max_num", -1)
    if options:
        raise GraphForgeError(f"mmcv's nms takes no {', '.join(map(repr, sorted(options)))}", "correct nms_cfg")
    classes: Tensor | None = None
    if not statically_known_true(boxes.shape[0] < split_from):
        # class by class from so many boxes on (even where class_agnostic was asked for), else all at once
        many = torch.ones_like(idxs, dtype=torch.int64).sum() >= split_from
        classes = torch.where(many, idxs.to(torch.int64), 0)
    keep = _kept(apart, scores, classes, threshold, score_threshold, max_num)
    return torch.cat([boxes[keep], scores[keep][:, None]], dim=1), keep


@substitute("mmcv.ops.nms.nms_match", required=False)
def nms_match(dets: Tensor, iou_threshold: float) -> NoReturn:
    """Refused: no graph returns as many tensors as there are groups."""
    raise GraphForgeError(
        "mmcv's nms_match returns one tensor per group of boxes, and how many groups there are depends on data",
        "call mmcv.ops.nms in the compiled model and match the boxes outside of it",
        "or declare a substitute for the function that uses the groups (graphforge.substitute), which computes what it "
        "makes of them with tensor operations",
    )


def _kept(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor | None,
    iou_threshold: float,
    score_threshold: float,
    max_num: int,
) -> Tensor:
    """Indices of the kept boxes, best first; a score threshold of 0 or less is none, as is such a ``max_num``."""
    candidates: Tensor | None = None
    if score_threshold > 0:
        candidates = (scores > score_threshold).nonzero()[:, 0]
        boxes, scores = boxes[candidates], scores[candidates]
        classes = None if classes is None else classes[candidates]
    keep: Tensor = torch.ops.graphforge.batched_nms(boxes, scores, classes, iou_threshold, 0)
    if max_num > 0:
        keep = keep[:max_num]
    return keep if candidates is None else candidates[keep]


def _shifted(boxes: Tensor, idxs: Tensor) -> Tensor:
    """Boxes moved apart by class: by the class id times (largest coordinate + 1), computed as mmcv does."""
    lowest = torch.full((1,), -torch.inf, dtype=boxes.dtype, device=boxes.device)  # where there are no boxes
    largest = torch.cat([boxes.amax(dim=1), lowest]).amax(dim=0)
    return boxes + (idxs.to(boxes) * (largest + 1.0))[:, None]


def _threshold(function: str, value: float | None, former: float | None) -> float:
    """The threshold as the float32 that mmcv's kernel compares with; ``iou_thr`` is its former name."""
    chosen = value if former is None else former
    if chosen is None:
        raise GraphForgeError(f"mmcv's {function} was called without iou_threshold")
    return float(np.float32(chosen))


def _check_offset(function: str, offset: int) -> None:
    if offset != 0:
        raise GraphForgeError(
            f"mmcv's {function} with offset={offset} (boxes whose last pixel counts) has no compiled form",
            "use offset=0, which is the default",
        )
