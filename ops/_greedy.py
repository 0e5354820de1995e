"""Greedy suppression in plain torch: the meaning that every lowering of an NMS operator is held to."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from graphforge.errors import GraphForgeError

__all__ = ["LOWEST", "check_scores", "check_threshold", "float32_at_most", "keep_greedily", "shifted_by_class"]

LOWEST = float(np.finfo(np.float32).min)

# Rows of the overlap matrix computed at once: enough to keep torch's overhead small, 5 MB at 5,000 boxes.
_ROWS = 256


def float32_at_most(value: float) -> float:
    """The largest float32 that is not above ``value``.

    A float32 IoU is above a double threshold exactly when it is above this number, so it is what an operator's
    float attribute has to hold; rounding to the nearest would be wrong for an IoU that lies between the two.
    """
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    if float(nearest) > value:
        nearest = np.nextafter(nearest, np.float32(-np.inf))
    return float(nearest)


def check_threshold(iou_threshold: float) -> float:
    """The threshold as a float32, refused where no NMS has a meaning for it.

    Raises:
        GraphForgeError: it is negative (boxes that do not touch would suppress one another) or not a number.
    """
    if math.isnan(iou_threshold) or iou_threshold < 0:
        raise GraphForgeError(f"the IoU threshold of an NMS must be at least 0, got {iou_threshold}")
    return float32_at_most(iou_threshold)


def check_scores(scores: Tensor) -> None:
    """Refuse scores that have no order.

    Raises:
        GraphForgeError: one of them is not a number.
    """
    if bool(scores.isnan().any()):
        raise GraphForgeError(
            "a score given to an NMS is not a number",
            "NaN scores have no order; look for where they come from (0/0, inf - inf, an overflow in half precision)",
        )


def shifted_by_class(boxes: Tensor, class_ids: Tensor) -> Tensor:
    """Boxes moved apart by class, so that one NMS over all of them is (nearly) one NMS per class.

    It is torchvision's ``_batched_nms_coordinate_trick``, its rounding included.
    """
    if boxes.numel() == 0:
        return boxes
    return boxes + (class_ids.to(boxes) * (boxes.max() + 1.0))[:, None]


def keep_greedily(boxes: Tensor, class_ids: Tensor | None, iou_threshold: float) -> Tensor:
    """Which boxes, given best first, no better box of the same class suppresses.

    Args:
        boxes: [N, 4] float32 or float64, x1 y1 x2 y2.
        class_ids: [N]; None is one class.
        iou_threshold: an IoU above it suppresses.

    Returns:
        bool [N]
    """
    exact = check_threshold(iou_threshold) if boxes.dtype == torch.float32 else iou_threshold
    threshold = torch.tensor(exact, dtype=boxes.dtype)
    if class_ids is None:
        return _keep_of_one_class(boxes, threshold)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    ids, by_class = class_ids.sort(stable=True)
    for places in by_class.split(ids.unique_consecutive(return_counts=True)[1].tolist()):
        if len(places) > 1:
            alive[places] = _keep_of_one_class(boxes[places], threshold)
    return alive


def _keep_of_one_class(boxes: Tensor, threshold: Tensor) -> Tensor:
    count = len(boxes)
    alive = torch.ones(count, dtype=torch.bool)
    state = alive.numpy()  # the same memory: a look at one element costs a twentieth of torch's
    for start in range(0, count, _ROWS):
        rows = (alive[start : start + _ROWS].nonzero() + start).squeeze(1)
        suppresses = (_overlaps(boxes[rows], boxes[start:]) > threshold).numpy()
        for position, row in enumerate(rows.tolist()):
            if state[row]:
                state[row + 1 :] &= ~suppresses[position, row + 1 - start :]
    return alive


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every box with every other, in the order of operations of torchvision's kernel.

    A box without area, and one with swapped corners, intersects nothing: its IoU is 0, -0 or 0/0, never above a
    threshold.
    """
    x1, y1, x2, y2 = (column[:, None] for column in first.unbind(1))
    u1, v1, u2, v2 = (column[None, :] for column in second.unbind(1))
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    inter = width * height
    return inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter)
