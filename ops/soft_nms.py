"""SoftNMS: boxes that overlap a better one lose score instead of being dropped (Bodla et al., Soft-NMS, 2017).

    dets float [K, 5], indices int64 [K] = SoftNMS(boxes float [N, 4], scores float [N])

Again and again the best box that is left is picked (ties by lower index), and the score of every other one is
multiplied by a weight of its IoU with it; what then falls below ``min_score`` is dropped.  The weight, by ``method``:

- ``linear``: 1 - IoU where the IoU is at least ``iou_threshold``, else 1;
- ``naive``: 0 there, else 1;
- ``gaussian``: exp(-IoU * IoU / sigma).

Rows come in the order of picking, the column of scores holds what was left of them.  It is mmcv's ``soft_nms`` with
offset 0, except that boxes without area overlap nothing (there their scores become NaN), and that ties have an order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder
from graphforge.ops import _boxes
from graphforge.ops._greedy import check_scores
from graphforge.ops._loop import loop
from graphforge.ops.custom_op import TensorFact, semantic_op

__all__ = ["SOFT_NMS", "Settings", "lower", "soft_nms"]

_METHODS = ("linear", "gaussian", "naive")


@dataclass(frozen=True)
class Settings:
    """The attributes; see the top of the file."""

    iou_threshold: float = 0.3
    sigma: float = 0.5
    min_score: float = 1e-3
    method: str = "linear"

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise GraphForgeError(f"SoftNMS has no method {self.method!r}", f"its methods: {', '.join(_METHODS)}")
        if not self.sigma > 0:
            raise GraphForgeError(f"the sigma of SoftNMS must be above 0, got {self.sigma}")
        if math.isnan(self.iou_threshold) or math.isnan(self.min_score):
            raise GraphForgeError("a threshold of SoftNMS is not a number")

    @classmethod
    def of(cls, node: ir.Node) -> Settings:
        """Those of a SoftNMS node."""
        given = {name: attribute.value for name, attribute in node.attributes.items()}
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
) -> tuple[Tensor, Tensor]:
    """The reference.

    Raises:
        GraphForgeError: a score is NaN, or an attribute out of its range.
    """
    settings = Settings(iou_threshold, sigma, min_score, method)
    check_scores(scores)
    device = boxes.device
    numbers, left = boxes.detach().float().cpu(), scores.detach().float().cpu().clone()
    # as tensors of float32, which is what the attributes are
    threshold, width, least = (torch.tensor(one, dtype=torch.float32) for one in (iou_threshold, sigma, min_score))
    order: list[int] = []
    reached: list[Tensor] = []
    while len(order) < len(numbers) and bool((left > -torch.inf).any()):
        best = int((left == left.max()).nonzero()[0])
        order.append(best)
        reached.append(left[best].clone())
        overlap = _overlap_with(numbers, numbers[best])
        if settings.method == "gaussian":
            weight = torch.exp(-(overlap * overlap) / width)
        else:
            weight = torch.where(overlap >= threshold, 1 - overlap if settings.method == "linear" else 0.0, 1.0)
        left = left * weight
        left[~(left >= least)] = -torch.inf
        left[best] = -torch.inf
    picked = torch.tensor(order, dtype=torch.int64)
    column = torch.stack(reached)[:, None] if reached else numbers.new_zeros(0, 1)
    dets = torch.cat([numbers[picked], column], dim=1)
    return dets.to(device, boxes.dtype), picked.to(device)


def _overlap_with(boxes: Tensor, one: Tensor) -> Tensor:
    """IoU of every box with one; 0 where there is no area."""
    width = (torch.minimum(boxes[:, 2], one[2]) - torch.maximum(boxes[:, 0], one[0])).clamp(min=0)
    height = (torch.minimum(boxes[:, 3], one[3]) - torch.maximum(boxes[:, 1], one[1])).clamp(min=0)
    inter = width * height
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    overlap = inter / ((one[2] - one[0]) * (one[3] - one[1]) + areas - inter)
    return torch.where(inter > 0, overlap, 0.0)


def _shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [TensorFact("float", (None, 5)), TensorFact("int64", (None,))]


SOFT_NMS = semantic_op(
    "SoftNMS",
    inputs=["boxes: float", "scores: float"],
    outputs=["dets: float", "indices: int64"],
    attributes={"iou_threshold": 0.3, "sigma": 0.5, "min_score": 1e-3, "method": "linear"},
    shapes=_shapes,
    function=soft_nms,
    torch_name="graphforge::soft_nms",
    doc="Non-maximum suppression that lowers the scores of overlapping boxes instead of dropping them.",
)


@torch.library.custom_op("graphforge::soft_nms", mutates_args=())
def _torch_op(
    boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, method: str
) -> tuple[Tensor, Tensor]:
    return soft_nms(boxes, scores, iou_threshold, sigma, min_score, method)


@_torch_op.register_fake
def _fake(
    boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, min_score: float, method: str
) -> tuple[Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    torch._check(kept <= boxes.shape[0])
    return boxes.new_empty(kept, 5), scores.new_empty(kept, dtype=torch.int64)


def lower(op: Builder, boxes: ir.Value, scores: ir.Value, settings: Settings) -> tuple[ir.Value, ir.Value]:
    """A Loop that picks one box a round, and ends when none is left."""
    count = _boxes.size(op, scores, 0)
    all_boxes = op.Unsqueeze(boxes, [0])

    def body(inner: Builder, number: ir.Value, carried: list[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        left, order, reached = carried
        best = inner.ArgMax(left, axis=0, keepdims=1)
        inter, overlap = _boxes.intersections(inner, inner.Unsqueeze(inner.Gather(boxes, best), [0]), all_boxes)
        overlap = inner.Squeeze(inner.Where(inner.Greater(inter, 0.0), overlap, 0.0), [0, 1])
        if settings.method == "gaussian":
            weight = inner.Exp(inner.Div(inner.Neg(inner.Mul(overlap, overlap)), settings.sigma))
        else:
            lower_weight = inner.Sub(1.0, overlap) if settings.method == "linear" else inner.constant(0.0)
            reaches = inner.GreaterOrEqual(overlap, settings.iou_threshold)
            weight = inner.Where(reaches, lower_weight, 1.0)
        lowered = inner.Mul(left, weight)
        lowered = inner.Where(inner.GreaterOrEqual(lowered, settings.min_score), lowered, -np.inf)
        lowered = inner.ScatterElements(lowered, best, [-np.inf])
        following = [
            lowered,
            inner.Concat(order, best, axis=0),
            inner.Concat(reached, inner.Gather(left, best), axis=0),
        ]
        return inner.Greater(inner.ReduceMax(lowered, keepdims=0), -np.inf), following

    usable = op.Greater(op.ReduceMax(op.Concat(scores, [-np.inf], axis=0), keepdims=0), -np.inf)
    rounds = op.Where(usable, _boxes.scalar(op, count), 0)
    start = [scores, _empty(op, ir.DataType.INT64), _empty(op, ir.DataType.FLOAT)]
    _, order, reached = loop(op, start, body, name="picking", rounds=rounds)
    dets = op.Concat(op.Gather(boxes, order), op.Unsqueeze(reached, [1]), axis=1)
    return dets, order


def _empty(op: Builder, dtype: ir.DataType) -> ir.Value:
    """A vector that will grow."""
    value: ir.Value = op.Identity(op.constant(np.zeros(0), dtype))
    value.shape = ir.Shape([ir.SymbolicDim(None)])
    return value
