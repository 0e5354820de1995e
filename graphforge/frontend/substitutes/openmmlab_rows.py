"""The rows of every picture of a batch at once, for the heads whose batch OpenMMLab goes through picture by picture.

A head's dense results become candidates [B, N], which one MulticlassNMS picks from; each is written after the stock
``predict`` of its head, which is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from graphforge.errors import GraphForgeError, argument
from graphforge.frontend.openmmlab.batched import FIELDS
from graphforge.frontend.substitution import substitute
from graphforge.ops import multiclass_nms as _multiclass_nms

__all__ = ["rows_of_each"]

assert _multiclass_nms  # it defines torch.ops.graphforge.multiclass_nms

# mmcv keeps classes apart by shifting their boxes, however many boxes there are.
_ALWAYS_SHIFTED = 2**31 - 1


@dataclass(frozen=True)
class _Candidates:
    """What a head offers of each picture, before suppression.

    Attributes:
        boxes: [B, N, 4]
        scores: [B, N]
        labels: int64 [B, N]
        valid: bool [B, N], which of them count.
        threshold: an IoU above it suppresses.
        among_classes: whether classes suppress each other.
        best: of the candidates of a picture, so many are looked at; 0 is all.
        more: what else there is of each candidate, [B, N, ...].
        last: what is done to the rows that are left, and what it needs of ``more`` is not handed out.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    threshold: float
    among_classes: bool
    best: int = 0
    more: dict[str, Tensor] = field(default_factory=dict)
    last: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


@substitute("graphforge.frontend.openmmlab.batched.rows_of_each", required=False)
def rows_of_each(decoded: Any, input: Tensor, most: int) -> dict[str, Tensor]:
    """The whole batch in one piece."""
    model = decoded.model
    head = getattr(model, "bbox_head", None) or getattr(model, "head", None) or model
    candidates_of = next((HEADS[kind.__name__] for kind in type(head).__mro__ if kind.__name__ in HEADS), None)
    if candidates_of is None or (model.test_cfg or {}).get("flip_test", False):
        raise GraphForgeError(
            f"the results of {type(head).__name__} cannot be had for a whole batch at once",
            f"heads that can: {', '.join(HEADS)}",
            f"a batch of fixed size, with its results picture by picture: {argument('decode', 'full')}",
        )
    return _rows(candidates_of(model, head, input), most)


def _rows(found: _Candidates, most: int) -> dict[str, Tensor]:
    found = _at_least(found, most)
    dets, _, places, count = torch.ops.graphforge.multiclass_nms(
        found.boxes,
        found.scores,
        None if found.among_classes else found.labels,
        found.valid,
        found.threshold,
        pre_top_k=found.best,
        keep_top_k=most,
        offset_limit=_ALWAYS_SHIFTED,
    )
    real, places = places >= 0, places.clamp(min=0)
    rows = {"boxes": dets[..., :4], "scores": dets[..., 4]}
    rows |= {name: _picked(one, places) for name, one in {"labels": found.labels, **found.more}.items()}
    if found.last is not None:
        rows = found.last(rows)
    filled = {name: torch.where(_beside(real, rows[name]), rows[name], FIELDS[name]) for name in FIELDS if name in rows}
    return {**filled, "num_dets": count}


def _at_least(found: _Candidates, most: int) -> _Candidates:
    """So many candidates as there are rows; those that are put in do not count."""
    number = found.scores.shape[1]
    if type(number) is int and number >= most and not 0 < found.best < most:
        return found

    def filled(one: Tensor) -> Tensor:
        return functional.pad(one, [0, 0] * (one.dim() - 2) + [0, most])

    return _Candidates(
        filled(found.boxes),
        filled(found.scores),
        filled(found.labels),
        filled(found.valid.to(torch.uint8)).to(torch.bool),
        found.threshold,
        found.among_classes,
        max(found.best, most) if found.best else 0,
        {name: filled(one) for name, one in found.more.items()},
        found.last,
    )


def _picked(data: Tensor, places: Tensor) -> Tensor:
    """[B, N, ...] and [B, K] -> [B, K, ...]."""
    index = places.reshape(*places.shape, *[1] * (data.dim() - 2)).expand(*places.shape, *data.shape[2:])
    return data.gather(1, index)


def _beside(real: Tensor, rows: Tensor) -> Tensor:
    return real.reshape(*real.shape, *[1] * (rows.dim() - 2))


# -- MMDetection -------------------------------------------------------------------------------------------------------


def _of_dense_head(model: Any, head: Any, input: Tensor) -> _Candidates:
    """``BaseDenseHead``: the best of each level, then boxes of all levels together."""
    config = head.test_cfg
    results = head(model.extract_feat(input))
    factors = results[2] if len(results) > 2 else [None] * len(results[0])
    sizes = [one.shape[-2:] for one in results[0]]
    priors = head.prior_generator.grid_priors(sizes, dtype=input.dtype, device=input.device)
    levels = [
        _of_level(head, config, *one, (input.shape[2], input.shape[3]))
        for one in zip(results[0], results[1], factors, priors, strict=True)
    ]
    boxes, scores, labels, valid = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
    least = config.get("min_bbox_size", -1)
    if least >= 0:
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = valid & (sides > least).all(dim=-1)
    return _Candidates(boxes, scores, labels, valid, *_suppression(config["nms"]))


def _of_level(
    head: Any, config: Any, classes: Tensor, places: Tensor, factor: Tensor | None, priors: Tensor, shape: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if getattr(head.loss_cls, "custom_cls_channels", False):
        raise GraphForgeError(
            f"the scores of {type(head).__name__} come from its loss, which is not known for a whole batch",
            f"a batch of fixed size, with its results picture by picture: {argument('decode', 'full')}",
        )
    batch, number = classes.shape[0], priors.shape[0]
    logits = classes.permute(0, 2, 3, 1).reshape(batch, number, head.cls_out_channels)
    scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]
    deltas = places.permute(0, 2, 3, 1).reshape(batch * number, head.bbox_coder.encode_size)
    every = priors.expand(batch, *priors.shape).reshape(batch * number, priors.shape[1])
    boxes = head.bbox_coder.decode(every, deltas, max_shape=shape).reshape(batch, number, 4)
    kinds = scores.shape[2]
    flat = scores.reshape(batch, number * kinds)
    valid = flat > config.get("score_thr", 0)
    best = config.get("nms_pre", -1)
    if best > 0 and not (type(number) is int and number * kinds <= best):
        flat, place = torch.where(valid, flat, -1.0).topk(torch.sym_min(best, number * kinds), dim=1)
        valid = flat > config.get("score_thr", 0)
    else:
        place = torch.arange(number * kinds, device=flat.device).expand(batch, number * kinds)
    box, label = (place, torch.zeros_like(place)) if kinds == 1 else (place // kinds, place % kinds)
    if factor is not None:
        factors = factor.permute(0, 2, 3, 1).reshape(batch, number).sigmoid()
        flat = flat * _picked(factors, box)
    return _picked(boxes, box), flat, label, valid


def _of_yolox(model: Any, head: Any, input: Tensor) -> _Candidates:
    """``YOLOXHead``: the best class of each place."""
    config = head.test_cfg
    results = head(model.extract_feat(input))
    classes, deltas, objects = (_flat(parts) for parts in results[:3])
    sizes = [one.shape[-2:] for one in results[0]]
    made = head.prior_generator.grid_priors(sizes, dtype=input.dtype, device=input.device, with_stride=True)
    boxes = head._bbox_decode(torch.cat(made), deltas)
    best, labels = classes.sigmoid().max(dim=2)
    scores = objects.sigmoid()[..., 0] * best
    return _Candidates(boxes, scores, labels, scores >= config["score_thr"], *_suppression(config["nms"]))


def _suppression(given: Any) -> tuple[float, bool]:
    """The threshold, and whether classes suppress each other, of what mmcv's ``batched_nms`` takes."""
    options = dict(given)
    kind, threshold = options.pop("type", "nms"), options.pop("iou_threshold", options.pop("iou_thr", None))
    agnostic = bool(options.pop("class_agnostic", False))
    options.pop("split_thr", None)  # from how many boxes on classes are gone through one by one: the same results
    if kind != "nms" or threshold is None or options:
        raise GraphForgeError(
            f"suppression {dict(given)} cannot be had for a whole batch at once",
            "expected type 'nms' with iou_threshold, and class_agnostic at most",
            f"a batch of fixed size, with its results picture by picture: {argument('decode', 'full')}",
        )
    return float(np.float32(threshold)), agnostic  # mmcv's kernel compares with it as float32


# -- MMPose's one-stage models -----------------------------------------------------------------------------------------


def _of_yolox_pose(model: Any, head: Any, input: Tensor) -> _Candidates:
    """``YOLOXPoseHead``: boxes and keypoints of each place."""
    results = head(model.extract_feat(input))
    classes, objects, deltas, offsets, visible = (_flat(parts) for parts in results)
    priors, strides = _places(head, results[0])
    best, labels = classes.sigmoid().max(dim=2)
    more = {
        "keypoints": head.decode_kpt_reg(offsets, priors, strides),
        "keypoint_scores": visible.sigmoid(),
    }
    boxes = head.decode_bbox(deltas, priors, strides)
    return _of_poses(model, boxes, best * objects.sigmoid()[..., 0], labels, more, _cut_to(input))


def _of_rtmo(model: Any, head: Any, input: Tensor) -> _Candidates:
    """``RTMOHead``: keypoints are computed of the rows that are left."""
    from mmpose.structures.bbox import bbox_xyxy2cs

    results = head(model.extract_feat(input))
    classes, deltas, visible, vectors = (_flat(results[place]) for place in (0, 1, 3, 4))
    priors, strides = _places(head, results[0])
    scores, labels = classes.sigmoid().max(dim=2)
    more = {
        "keypoint_scores": visible.sigmoid(),
        "vectors": vectors,
        "priors": priors.expand(classes.shape[0], *priors.shape),
    }
    cut = _cut_to(input)

    def last(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        batch, most = rows["scores"].shape
        boxes, vectors, places = (rows[name].reshape(batch * most, -1) for name in ("boxes", "vectors", "priors"))
        windows = torch.cat(bbox_xyxy2cs(boxes, head.bbox_padding), dim=1)
        keypoints = head.dcc.forward_test(vectors, windows, places)
        return cut({**rows, "keypoints": keypoints.reshape(batch, most, *keypoints.shape[1:])})

    return _of_poses(model, head.decode_bbox(deltas, priors, strides), scores, labels, more, last)


def _of_poses(
    model: Any,
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    more: dict[str, Tensor],
    last: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> _Candidates:
    config = model.test_cfg
    number, best = scores.shape[1], int(config.get("nms_pre", 100000))
    valid = scores > config.get("score_thr", 0.01)
    limit = 0 if type(number) is int and number <= best else best
    return _Candidates(boxes, scores, labels, valid, float(config.get("nms_thr", 1.0)), True, limit, more, last)


def _cut_to(input: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Boxes cut to the input, behind suppression as the stock heads do it."""

    def cut(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        x, y = rows["boxes"][..., 0::2].clamp(0, input.shape[3]), rows["boxes"][..., 1::2].clamp(0, input.shape[2])
        return {**rows, "boxes": torch.stack([x, y], dim=-1).flatten(-2)}

    return cut


def _flat(levels: Any) -> Tensor:
    """Levels [B, C, H, W] as one [B, N, C]."""
    return torch.cat([one.permute(0, 2, 3, 1).flatten(1, 2) for one in levels], dim=1)


def _places(head: Any, levels: Any) -> tuple[Tensor, Tensor]:
    """The place [N, 2] and the stride [N] of each candidate."""
    like = levels[0]
    made = head.prior_generator.grid_priors([one.shape[-2:] for one in levels], dtype=like.dtype, device=like.device)
    strides = [torch.full_like(one[:, 0], step) for one, step in zip(made, head.featmap_strides, strict=True)]
    return torch.cat(made), torch.cat(strides)


HEADS: dict[str, Callable[[Any, Any, Tensor], _Candidates]] = {
    "YOLOXHead": _of_yolox,
    "YOLOXPoseHead": _of_yolox_pose,
    "RTMOHead": _of_rtmo,
    "BaseDenseHead": _of_dense_head,
}
