"""MulticlassNMS: candidates of several classes and images in, the best of what greedy suppression keeps out, padded.

    dets T [B, K, 5], labels int64 [B, K], indices int64 [B, K], count int64 [B] =
        MulticlassNMS(boxes T [B, N, 4], scores T [B, N] or [B, N, C], class_ids int64 [B, N] optional,
                      valid bool [B, N] optional)

A candidate is a box with a class: scores [B, N, C] make N C of them, scores [B, N] with class_ids N, without class_ids
N of class 0.  In this order, for each image by itself:

1. candidates: score strictly above ``score_threshold``, box ``valid``;
2. ``pre_top_k``: the best so many of all classes, ties by lower box index, then lower class (0: all);
3. greedy NMS per class as in BatchedNMS; ``offset_limit`` counts the candidates and shifts by their largest coordinate;
4. ``max_per_class``: the best so many of each class (0: all);
5. ``keep_top_k``: the best so many of the image (0: all).

Rows are sorted by score, ties by lower box index, then lower class.  K is the smallest of the number of candidates (N
or N C), pre_top_k and keep_top_k, where these are not 0.  Rows from ``count`` on are padding: dets 0, label -1,
index -1.
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
from graphforge.ops._boxes import Size
from graphforge.ops._greedy import LOWEST, check_scores, check_threshold, keep_greedily, shifted_by_class
from graphforge.ops.custom_op import TensorFact, semantic_op

__all__ = ["MULTICLASS_NMS", "Detections", "Settings", "lower_native", "lower_portable", "multiclass_nms"]

_MAX_INT64 = 2**63 - 1
_FLOAT = int(ir.DataType.FLOAT)
_INT64 = int(ir.DataType.INT64)
FLOATS = ("float", "float16", "bfloat16")

# Lists of up to so many candidates have their full length; the sizes of longer ones depend on how many there are.
_MOST_AT_ONCE = 8192


@dataclass(frozen=True)
class Settings:
    """The attributes; see the top of the file."""

    iou_threshold: float
    score_threshold: float = LOWEST
    max_per_class: int = 0
    pre_top_k: int = 0
    keep_top_k: int = 0
    offset_limit: int = 0

    def __post_init__(self) -> None:
        check_threshold(self.iou_threshold)
        if math.isnan(self.score_threshold):
            raise GraphForgeError("the score threshold of an NMS is not a number")
        for name in ("max_per_class", "pre_top_k", "keep_top_k", "offset_limit"):
            if getattr(self, name) < 0:
                raise GraphForgeError(
                    f"{name} of an NMS must be at least 0, got {getattr(self, name)}", "0 means no limit"
                )

    @classmethod
    def of(cls, node: ir.Node) -> Settings:
        """Those of a MulticlassNMS node."""
        given: dict[str, Any] = {}
        for field in fields(cls):
            attribute = node.attributes.get(field.name)
            if attribute is not None:
                given[field.name] = attribute.value
        if "iou_threshold" not in given:
            raise GraphForgeError("MulticlassNMS lacks the attribute 'iou_threshold'")
        return cls(**given)

    def limits(self) -> list[int]:
        """The numbers, besides that of the candidates, that bound the rows."""
        return [limit for limit in (self.pre_top_k, self.keep_top_k) if limit > 0]


def multiclass_nms(
    boxes: Tensor,
    scores: Tensor,
    class_ids: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    score_threshold: float = LOWEST,
    max_per_class: int = 0,
    pre_top_k: int = 0,
    keep_top_k: int = 0,
    offset_limit: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reference: image by image, candidate by candidate.

    Raises:
        GraphForgeError: a score of a valid box is NaN, a threshold or limit is out of its range, or the shapes do not
            go together.
    """
    settings = Settings(iou_threshold, score_threshold, max_per_class, pre_top_k, keep_top_k, offset_limit)
    _check_shapes(boxes, scores, class_ids)
    images, count = scores.shape[:2]
    classes = scores.shape[2] if scores.dim() == 3 else 1
    rows = min([count * classes, *settings.limits()])
    dets = boxes.new_zeros(images, rows, 5)
    labels = torch.full((images, rows), -1, dtype=torch.int64, device=boxes.device)
    indices = labels.clone()
    counts = torch.zeros(images, dtype=torch.int64, device=boxes.device)
    for image in range(images):
        usable = torch.ones(count, dtype=torch.bool) if valid is None else valid[image].cpu()
        ids = None if class_ids is None else class_ids[image].cpu()
        box, label = _detect(boxes[image].float().cpu(), scores[image].float().cpu(), ids, usable, settings)
        number = len(box)
        counts[image] = number
        box, label = box.to(boxes.device), label.to(boxes.device)
        score = scores[image][box, label] if scores.dim() == 3 else scores[image][box]
        dets[image, :number] = torch.cat([boxes[image][box], score[:, None]], dim=1)
        labels[image, :number] = label
        indices[image, :number] = box
    return dets, labels, indices, counts


def _detect(
    boxes: Tensor, scores: Tensor, class_ids: Tensor | None, usable: Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Box index and class of every detection of one image, best first."""
    classes = scores.shape[1] if scores.dim() == 2 else 1
    check_scores(scores[usable])
    flat = scores.reshape(-1)
    candidates = (flat > torch.tensor(settings.score_threshold, dtype=torch.float32)) & usable.repeat_interleave(
        classes
    )
    chosen = candidates.nonzero().squeeze(1)
    chosen = chosen[flat[chosen].sort(descending=True, stable=True)[1]]
    if settings.pre_top_k:
        chosen = chosen[: settings.pre_top_k]
    box = chosen // max(classes, 1)
    label = chosen % max(classes, 1) if class_ids is None else class_ids[box]
    numbers, told_apart = boxes[box], None if class_ids is None and classes == 1 else label
    if told_apart is not None and numbers.numel() <= settings.offset_limit:
        numbers, told_apart = shifted_by_class(numbers, told_apart), None
    kept = keep_greedily(numbers, told_apart, settings.iou_threshold).nonzero().squeeze(1)
    if settings.max_per_class:
        seen: dict[int, int] = {}
        within = []
        for place in kept.tolist():
            own = int(label[place])
            seen[own] = seen.get(own, 0) + 1
            if seen[own] <= settings.max_per_class:
                within.append(place)
        kept = torch.tensor(within, dtype=torch.int64)
    if settings.keep_top_k:
        kept = kept[: settings.keep_top_k]
    return box[kept], label[kept]


def _check_shapes(boxes: Tensor, scores: Tensor, class_ids: Tensor | None) -> None:
    if boxes.dim() != 3 or boxes.shape[2] != 4:
        raise GraphForgeError(f"the boxes of MulticlassNMS have shape {tuple(boxes.shape)}, expected [B, N, 4]")
    if scores.dim() not in (2, 3):
        raise GraphForgeError(f"the scores of MulticlassNMS have {scores.dim()} dims, expected [B, N] or [B, N, C]")
    if class_ids is not None and scores.dim() == 3:
        raise GraphForgeError("MulticlassNMS takes class_ids with scores [B, N] only: [B, N, C] says the class")


def _shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    boxes, scores = inputs[0], inputs[1]
    assert boxes is not None
    images: int | str | None = None
    rows: int | str | None = None
    if scores is not None and scores.shape is not None:
        images = scores.shape[0]
        many = 1
        for dim in scores.shape[1:]:
            many = many * dim if isinstance(dim, int) and isinstance(many, int) else None  # type: ignore[assignment]
        limits = [int(attributes[name]) for name in ("pre_top_k", "keep_top_k") if int(attributes[name]) > 0]
        if many is not None:
            rows = min([many, *limits])
        elif not limits and len(scores.shape) == 2:
            rows = scores.shape[1]
    return [
        TensorFact(boxes.dtype, (images, rows, 5)),
        TensorFact("int64", (images, rows)),
        TensorFact("int64", (images, rows)),
        TensorFact("int64", (images,)),
    ]


MULTICLASS_NMS = semantic_op(
    "MulticlassNMS",
    inputs=["boxes: T", "scores: T", "class_ids: int64?", "valid: bool?"],
    outputs=["dets: T", "labels: int64", "indices: int64", "count: int64"],
    attributes={
        "iou_threshold": float,
        "score_threshold": LOWEST,
        "max_per_class": 0,
        "pre_top_k": 0,
        "keep_top_k": 0,
        "offset_limit": 0,
    },
    types={"T": FLOATS},
    shapes=_shapes,
    function=multiclass_nms,
    torch_name="graphforge::multiclass_nms",
    doc="Greedy non-maximum suppression per class and image: padded rows, best first, and how many are real.",
)


@torch.library.custom_op("graphforge::multiclass_nms", mutates_args=())
def _torch_op(
    boxes: Tensor,
    scores: Tensor,
    class_ids: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    score_threshold: float = LOWEST,
    max_per_class: int = 0,
    pre_top_k: int = 0,
    keep_top_k: int = 0,
    offset_limit: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return multiclass_nms(
        boxes,
        scores,
        class_ids,
        valid,
        iou_threshold,
        score_threshold,
        max_per_class,
        pre_top_k,
        keep_top_k,
        offset_limit,
    )


@_torch_op.register_fake
def _fake(
    boxes: Tensor,
    scores: Tensor,
    class_ids: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    score_threshold: float = LOWEST,
    max_per_class: int = 0,
    pre_top_k: int = 0,
    keep_top_k: int = 0,
    offset_limit: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = scores.shape[0]
    rows: Any = scores.shape[1] if scores.dim() == 2 else scores.shape[1] * scores.shape[2]
    for limit in (pre_top_k, keep_top_k):
        if limit > 0:
            rows = torch.sym_min(rows, limit)
    whole = scores.new_empty(images, rows, dtype=torch.int64)
    return (
        boxes.new_empty(images, rows, 5),
        whole,
        torch.empty_like(whole),
        scores.new_empty(images, dtype=torch.int64),
    )


@dataclass(frozen=True)
class Detections:
    """What a lowering computes.

    Attributes:
        dets: x1 y1 x2 y2 score of each row.
        labels: its class.
        indices: its box.
        count: how many rows are no padding.
        converged: bool; whether a written-out iteration went far enough; None where nothing can be wrong.
    """

    dets: ir.Value
    labels: ir.Value
    indices: ir.Value
    count: ir.Value
    converged: ir.Value | None = None

    def outputs(self) -> list[ir.Value]:
        """The operator's four outputs."""
        return [self.dets, self.labels, self.indices, self.count]


@dataclass(frozen=True)
class _Candidates:
    """Candidates as lists, one per image: [B, P].

    Attributes:
        boxes: float [B, P, 4]
        scores: float [B, P], -inf where the box is not valid.
        box: int64 [B, P], the box a candidate is of; None: the candidate's own place.
        label: int64 [B, P], its class; None: class 0.
        limit: P
    """

    boxes: ir.Value
    scores: ir.Value
    box: ir.Value | None
    label: ir.Value | None
    limit: Size


def lower_native(
    op: Builder,
    boxes: ir.Value,
    scores: ir.Value,
    class_ids: ir.Value | None,
    valid: ir.Value | None,
    settings: Settings,
) -> Detections:
    """Through one ONNX NonMaxSuppression for all images and classes.

    Its picks come class by class; the scores of the picks are put back to where they stood among the candidates, and
    one TopK over these gives order, padding and count at once.
    """
    classes = _classes(op, scores)
    masked = _masked(op, scores, valid)
    threshold = min(check_threshold(settings.iou_threshold), 1.0)
    direct = class_ids is None and not settings.pre_top_k and (not settings.offset_limit or _one_class(classes))
    if direct:
        per_class = classes is not None
        matrix = op.Transpose(masked, perm=[0, 2, 1]) if per_class else op.Unsqueeze(masked, [1])
        corners = _boxes.ordered_corners(op, _boxes.to_float(op, boxes))
        most = settings.max_per_class or _MAX_INT64
        picked = op.NonMaxSuppression(corners, matrix, most, threshold, settings.score_threshold)
        kept = _put_back(op, masked, op.Gather(picked, [0, 2, 1] if per_class else [0, 2], axis=1))
        if per_class:
            kept = op.Reshape(kept, [0, -1])
        found = _Candidates(boxes, kept, None, None, _candidate_count(op, scores))
        return _assemble(op, boxes, found, kept, classes, settings)
    total = _candidate_count(op, scores)
    best: Size = settings.pre_top_k
    if not best and (classes is not None or (isinstance(total, int) and total > _MOST_AT_ONCE)):
        best = _most_candidates(op, masked, total, settings)
    found = _listed(op, boxes, masked, class_ids, classes, best)
    matrix = op.Unsqueeze(found.scores, [1])
    corners, apart = found.boxes, found.label
    if found.label is not None:
        above = op.Greater(found.scores, settings.score_threshold)
        corners, apart = _boxes.apart_by_class(op, found.boxes, found.label, above, settings.offset_limit)
    if apart is not None:
        matrix = _among_classes(op, apart, found.scores)
    corners = _boxes.ordered_corners(op, corners)
    cap_later = settings.max_per_class > 0 and apart is not found.label
    most = _MAX_INT64 if cap_later else settings.max_per_class or _MAX_INT64
    picked = op.NonMaxSuppression(corners, matrix, most, threshold, settings.score_threshold)
    kept = _put_back(op, found.scores, op.Gather(picked, [0, 2], axis=1))
    if cap_later:
        # What was shifted apart is one class to the operator: a second one, which suppresses nothing, counts by class.
        assert found.label is not None
        matrix = _among_classes(op, found.label, kept)
        picked = op.NonMaxSuppression(corners, matrix, settings.max_per_class, 1.0, settings.score_threshold)
        kept = _put_back(op, kept, op.Gather(picked, [0, 2], axis=1))
    if isinstance(best, ir.Value):
        found, kept = _padded(op, found, kept, _rows_out(op, total, settings))
    return _assemble(op, boxes, found, kept, classes, settings)


def lower_portable(
    op: Builder,
    boxes: ir.Value,
    scores: ir.Value,
    class_ids: ir.Value | None,
    valid: ir.Value | None,
    settings: Settings,
    *,
    depth: int = 0,
    fixed_shapes: bool = False,
) -> Detections:
    """In plain tensor algebra: TopK, then suppression as ``_boxes.survivors`` says, then TopK again.

    Raises:
        GraphForgeError: with ``fixed_shapes``, when the number of candidates is not known or too large.
    """
    classes = _classes(op, scores)
    masked = _masked(op, scores, valid)
    total = _candidate_count(op, scores)
    most = _boxes.smallest(op, total, *([settings.pre_top_k] if settings.pre_top_k else []))
    if fixed_shapes and not isinstance(most, int):
        raise GraphForgeError(
            "the number of candidates of a MulticlassNMS is not known; NMS in plain operators of fixed sizes needs it",
            "give the model inputs of a fixed size (but for the batch)",
        )
    if fixed_shapes and isinstance(most, int) and most > _MOST_AT_ONCE:
        raise GraphForgeError(
            f"MulticlassNMS has {most} candidates, too many for NMS in plain operators of fixed sizes",
            f"set pre_top_k (the best so many candidates of an image) to at most {_MOST_AT_ONCE}",
        )
    if not isinstance(most, int) or most > _MOST_AT_ONCE:
        most = _most_candidates(op, masked, most, settings)
    found = _listed(op, boxes, masked, class_ids, classes, most)
    above = op.Greater(found.scores, settings.score_threshold)
    corners, apart = found.boxes, found.label
    if found.label is not None:
        corners, apart = _boxes.apart_by_class(op, found.boxes, found.label, above, settings.offset_limit)
    corners = _boxes.ordered_corners(op, corners)
    threshold = check_threshold(settings.iou_threshold)
    alive, converged = _boxes.survivors(op, corners, apart, above, threshold, depth, fixed_shapes)
    if settings.max_per_class:
        alive = _boxes.capped(op, alive, found.label, settings.max_per_class, fixed_shapes=fixed_shapes)
    kept = op.Where(alive, found.scores, -np.inf)
    if not isinstance(found.limit, int):
        found, kept = _padded(op, found, kept, _rows_out(op, total, settings))
    made = _assemble(op, boxes, found, kept, classes, settings)
    return Detections(made.dets, made.labels, made.indices, made.count, converged)


def _classes(op: Builder, scores: ir.Value) -> Size | None:
    """The number of classes that the scores tell of; None where they are [B, N]."""
    if scores.shape is None:
        raise GraphForgeError(f"the rank of {scores.name!r}, the scores of a MulticlassNMS, is not known")
    return _boxes.size(op, scores, 2) if len(scores.shape) == 3 else None


def _one_class(classes: Size | None) -> bool:
    return classes is None or (isinstance(classes, int) and classes == 1)


def _candidate_count(op: Builder, scores: ir.Value) -> Size:
    count = _boxes.size(op, scores, 1)
    classes = _classes(op, scores)
    return count if classes is None else _boxes.times(op, count, classes)


def _masked(op: Builder, scores: ir.Value, valid: ir.Value | None) -> ir.Value:
    """The scores in float32, -inf where the box is not valid."""
    scores = _boxes.to_float(op, scores)
    if valid is None:
        return scores
    if scores.shape is not None and len(scores.shape) == 3:
        valid = op.Unsqueeze(valid, [2])
    result: ir.Value = op.Where(valid, scores, -np.inf)
    return result


def _listed(
    op: Builder,
    boxes: ir.Value,
    masked: ir.Value,
    class_ids: ir.Value | None,
    classes: Size | None,
    best: Size,
) -> _Candidates:
    """The candidates as lists: all of them in their order, or the ``best`` so many, best first."""
    total = _candidate_count(op, masked)
    numbers = _boxes.to_float(op, boxes)
    flat = masked if classes is None else op.Reshape(masked, [0, -1])
    if best == 0:
        assert classes is None, "all boxes with all their classes are too many to list"
        return _Candidates(numbers, flat, None, class_ids, total)
    limit = _boxes.smallest(op, total, best)
    flat, places = op.TopK(flat, _boxes.vector(op, [limit]), axis=1, _outputs=2)
    box, label = _box_and_label(op, places, classes)
    if class_ids is not None:
        label = op.GatherElements(class_ids, box, axis=1)
    return _Candidates(_rows(op, numbers, box), flat, box, label, limit)


def _most_candidates(op: Builder, masked: ir.Value, limit: Size, settings: Settings) -> ir.Value:
    """How many candidates the image with the most of them has, at most ``limit``."""
    above = op.Cast(op.Greater(masked, settings.score_threshold), to=_INT64)
    axes = [1, 2] if _classes(op, masked) is not None else [1]
    most = _boxes.smallest(op, op.ReduceMax(op.ReduceSum(above, axes, keepdims=0), [0], keepdims=1), limit)
    result: ir.Value = op.Max(most, [0])  # the largest of no images is the smallest number
    return result


def _box_and_label(op: Builder, places: ir.Value, classes: Size | None) -> tuple[ir.Value, ir.Value | None]:
    """What box and class a place among N C candidates is of."""
    if classes is None:
        return places, None
    divisor: ir.Value | int = classes if isinstance(classes, int) else op.Max(classes, [1])
    if isinstance(divisor, int):
        divisor = max(divisor, 1)
    return op.Div(places, divisor), op.Mod(places, divisor)


def _rows(op: Builder, data: ir.Value, rows: ir.Value) -> ir.Value:
    """[B, N, 4] and [B, K] -> [B, K, 4]."""
    result: ir.Value = op.GatherND(data, op.Unsqueeze(rows, [2]), batch_dims=1)
    return result


def _among_classes(op: Builder, labels: ir.Value, scores: ir.Value) -> ir.Value:
    """[B, C, P]: the score where the candidate is of the class, else -inf; C are the classes that occur."""
    found = op.Unsqueeze(op.Unique(labels), [1])
    result: ir.Value = op.Where(op.Equal(op.Unsqueeze(labels, [1]), found), op.Unsqueeze(scores, [1]), -np.inf)
    return result


def _put_back(op: Builder, scores: ir.Value, picked: ir.Value) -> ir.Value:
    """The scores where they were picked, -inf elsewhere."""
    nothing = op.ConstantOfShape(op.Shape(scores), value=ir.tensor(np.array([-np.inf], np.float32)))
    result: ir.Value = op.ScatterND(nothing, picked, op.GatherND(scores, picked))
    return result


def _rows_out(op: Builder, total: Size, settings: Settings) -> Size:
    """K"""
    return _boxes.smallest(op, total, *settings.limits())


def _padded(op: Builder, found: _Candidates, kept: ir.Value, rows: Size) -> tuple[_Candidates, ir.Value]:
    """Lists that were cut to the candidates there are, filled up to the rows that are handed out."""
    assert found.box is not None
    missing = op.Max(op.Sub([rows] if isinstance(rows, int) else rows, found.limit), [0])
    pads = op.Concat([0], missing, axis=0)

    def fill(value: ir.Value, filler: float | int) -> ir.Value:
        result: ir.Value = op.Pad(value, pads, filler, [1])
        return result

    label = None if found.label is None else fill(found.label, 0)
    full = _Candidates(found.boxes, found.scores, fill(found.box, 0), label, op.Max(found.limit, rows))
    return full, fill(kept, -np.inf)


def _assemble(
    op: Builder, boxes: ir.Value, found: _Candidates, kept: ir.Value, classes: Size | None, settings: Settings
) -> Detections:
    """Sort what was kept, ties by place, cut, and clear what is padding."""
    rows = _rows_out(op, found.limit, settings)
    scores, places = op.TopK(kept, _boxes.vector(op, [rows]), axis=1, _outputs=2)
    real = op.Greater(scores, settings.score_threshold)
    if found.box is None:
        box, label = _box_and_label(op, places, classes)
        if found.label is not None:
            label = op.GatherElements(found.label, places, axis=1)
    else:
        box = op.GatherElements(found.box, places, axis=1)
        label = None if found.label is None else op.GatherElements(found.label, places, axis=1)
    assert boxes.dtype is not None
    if boxes.dtype != ir.DataType.FLOAT:
        scores = op.Cast(scores, to=int(boxes.dtype))
    dets = op.Concat(_rows(op, boxes, box), op.Unsqueeze(scores, [2]), axis=2)
    zero = op.constant(0.0, boxes.dtype)
    return Detections(
        dets=op.Where(op.Unsqueeze(real, [2]), dets, zero),
        labels=op.Where(real, 0 if label is None else label, -1),
        indices=op.Where(real, box, -1),
        count=op.ReduceSum(op.Cast(real, to=_INT64), [1], keepdims=0),
    )
