"""Substitutes for MMDetection's functions that ask how many boxes there are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphforge.frontend.substitution import substitute

__all__: list[str] = []


def filter_scores_and_topk(scores: Tensor, score_thr: float, topk: int, results: Any = None) -> tuple[Any, ...]:
    """Its cut to the best so many written as a slice, which takes what there is."""
    valid = torch.nonzero(scores > score_thr)
    kept, order = scores[tuple(valid.unbind(dim=1))].sort(descending=True)
    if topk >= 0:
        kept, order = kept[:topk], order[:topk]
    anchors, labels = valid[order].unbind(dim=1)
    picked = results
    if isinstance(results, dict):
        picked = {name: value[anchors] for name, value in results.items()}
    elif isinstance(results, list):
        picked = [value[anchors] for value in results]
    elif results is not None:
        picked = results[anchors]
    return kept, labels, anchors, picked


for _place in ("mmdet.models.utils.misc", "mmpose.models.utils.misc"):
    substitute(f"{_place}.filter_scores_and_topk", required=False)(filter_scores_and_topk)


@substitute("mmdet.models.dense_heads.base_dense_head.BaseDenseHead._bbox_post_process", required=False)
def bbox_post_process(
    self: Any, results: Any, cfg: Any, rescale: bool = False, with_nms: bool = True, img_meta: Any = None
) -> Any:
    """Without asking whether there are boxes: suppression of none is none."""
    from mmcv.ops import batched_nms
    from mmdet.structures.bbox import get_box_tensor, get_box_wh, scale_boxes

    if rescale:
        results.bboxes = scale_boxes(results.bboxes, [1 / factor for factor in img_meta["scale_factor"]])
    if "score_factors" in results:
        results.scores = results.scores * results.pop("score_factors")
    if cfg.get("min_bbox_size", -1) >= 0:
        width, height = get_box_wh(results.bboxes)
        results = _picked(results, (width > cfg.min_bbox_size) & (height > cfg.min_bbox_size))
    if with_nms:
        boxes = get_box_tensor(results.bboxes)
        dets, keep = batched_nms(boxes, results.scores, results.labels, cfg.nms)
        results = _picked(results, keep)
        results.scores = dets[:, -1]
        results = _picked(results, slice(None, cfg.max_per_img))
    return results


def _picked(results: Any, which: Any) -> Any:
    """Results of the same kind with these rows of every field."""
    picked = type(results)(metainfo=results.metainfo)
    for name, value in results.items():
        setattr(picked, name, value[which])
    return picked
