"""BatchedNMS: greedy non-maximum suppression per class, the kept boxes' indices best first; as many as there are.

    keep int64 [K] = BatchedNMS(boxes T [N, 4], scores T [N], class_ids int64 [N] optional)

An IoU strictly above ``iou_threshold`` suppresses; ties of score go by the lower index; boxes without area or with
swapped corners neither suppress nor are suppressed.  All is computed in float32 (by the reference in float64 where
boxes come in it).  ``offset_limit`` says up to how many box numbers (4 N) the classes are kept apart by shifting the
boxes instead, as torchvision does up to 4000 of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder
from graphforge.ops import _boxes
from graphforge.ops._greedy import check_scores, check_threshold, float32_at_most, keep_greedily, shifted_by_class
from graphforge.ops.custom_op import TensorFact, semantic_op

__all__ = ["BATCHED_NMS", "batched_nms", "float32_at_most", "lower_native", "lower_portable", "settings_of"]

_MAX_INT64 = 2**63 - 1
FLOATS = ("float", "float16", "bfloat16")


def batched_nms(
    boxes: Tensor, scores: Tensor, class_ids: Tensor | None, iou_threshold: float, offset_limit: int = 0
) -> Tensor:
    """The reference.

    Args:
        boxes: [N, 4], x1 y1 x2 y2, finite.
        scores: [N]
        class_ids: int64 [N]; None is one class.
        iou_threshold: an IoU strictly above it suppresses.
        offset_limit: where 4 N is at most this, classes are kept apart by shifting the boxes (torchvision: 4000).

    Returns:
        The indices of the kept boxes, best score first, ties by lower index.

    Raises:
        GraphForgeError: a score is NaN or the threshold negative.
    """
    check_threshold(iou_threshold)
    check_scores(scores)
    device = boxes.device
    numbers = boxes.detach().cpu().to(torch.promote_types(boxes.dtype, torch.float32))
    order = scores.detach().cpu().sort(descending=True, stable=True)[1]
    classes = None if class_ids is None else class_ids.detach().cpu()
    if classes is not None and boxes.numel() <= offset_limit:
        numbers, classes = shifted_by_class(numbers, classes), None
    kept = keep_greedily(numbers[order], None if classes is None else classes[order], iou_threshold)
    return order[kept].to(device)


def _shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [TensorFact("int64", (None,))]


BATCHED_NMS = semantic_op(
    "BatchedNMS",
    inputs=["boxes: T", "scores: T", "class_ids: int64?"],
    outputs=["keep: int64"],
    attributes={"iou_threshold": float, "offset_limit": 0},
    types={"T": FLOATS},
    shapes=_shapes,
    function=batched_nms,
    torch_name="graphforge::batched_nms",
    doc="Greedy non-maximum suppression per class: indices of the kept boxes, best first, ties by lower index.",
)


@torch.library.custom_op("graphforge::batched_nms", mutates_args=())
def _torch_op(
    boxes: Tensor, scores: Tensor, class_ids: Tensor | None, iou_threshold: float, offset_limit: int = 0
) -> Tensor:
    return batched_nms(boxes, scores, class_ids, iou_threshold, offset_limit)


@_torch_op.register_fake
def _fake(
    boxes: Tensor, scores: Tensor, class_ids: Tensor | None, iou_threshold: float, offset_limit: int = 0
) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    torch._check(kept <= boxes.shape[0])
    return scores.new_empty(kept, dtype=torch.int64)


def lower_native(
    op: Builder,
    boxes: ir.Value,
    scores: ir.Value,
    class_ids: ir.Value | None,
    *,
    iou_threshold: float,
    offset_limit: int = 0,
) -> ir.Value:
    """Through ONNX's NonMaxSuppression: six nodes for one class.

    Classes that no shift keeps apart become rows of the operator's score matrix.  It hands its picks out class by
    class, so these are the places in the order of the scores, and are sorted afterwards.
    """
    threshold = min(check_threshold(iou_threshold), 1.0)  # no IoU is above 1; ONNX Runtime refuses thresholds that are
    boxes, scores = _boxes.to_float(op, boxes), _boxes.to_float(op, scores)
    if class_ids is not None:
        boxes, class_ids = _boxes.apart_by_class(op, boxes, class_ids, None, offset_limit)
    if class_ids is None:
        picked = op.NonMaxSuppression(
            op.Unsqueeze(_boxes.ordered_corners(op, boxes), [0]),
            op.Unsqueeze(scores, [0, 1]),
            _MAX_INT64,
            threshold,
        )
        one_class: ir.Value = op.Gather(picked, 2, axis=1)  # rows of (image, class, box)
        return one_class
    count = _boxes.size(op, scores, 0)
    _, order = op.TopK(scores, _boxes.vector(op, [count]), axis=0, _outputs=2)
    classes = op.Gather(class_ids, order)
    among = op.Equal(op.Unsqueeze(classes, [0]), op.Unsqueeze(op.Unique(class_ids), [1]))  # [C, N]
    # Places count down to 1 and are exact up to 16 million; what is not of the class is 0 and no candidate.
    falling = op.Cast(op.Range(_boxes.scalar(op, count), 0, -1), to=int(ir.DataType.FLOAT))
    picked = op.NonMaxSuppression(
        op.Unsqueeze(_boxes.ordered_corners(op, op.Gather(boxes, order)), [0]),
        op.Unsqueeze(op.Where(among, falling, 0.0), [0]),
        _MAX_INT64,
        threshold,
        0.0,
    )
    places = op.Gather(picked, 2, axis=1)
    sorted_places, _ = op.TopK(places, op.Shape(places), axis=0, largest=0, _outputs=2)
    keep: ir.Value = op.Gather(order, sorted_places)
    return keep


def lower_portable(
    op: Builder,
    boxes: ir.Value,
    scores: ir.Value,
    class_ids: ir.Value | None,
    *,
    iou_threshold: float,
    offset_limit: int = 0,
    depth: int = 0,
    fixed_shapes: bool = False,
) -> tuple[ir.Value, ir.Value | None]:
    """In plain tensor algebra, see ``_boxes.survivors``; the second result says whether ``depth`` was enough.

    The number of indices depends on the data all the same: MulticlassNMS is what has a fixed one.
    """
    threshold = check_threshold(iou_threshold)
    boxes, scores = _boxes.to_float(op, boxes), _boxes.to_float(op, scores)
    count = _boxes.size(op, scores, 0)
    _, order = op.TopK(scores, _boxes.vector(op, [count]), axis=0, _outputs=2)
    if class_ids is not None:
        boxes, class_ids = _boxes.apart_by_class(op, boxes, class_ids, None, offset_limit)
    corners = op.Unsqueeze(_boxes.ordered_corners(op, op.Gather(boxes, order)), [0])
    classes = None if class_ids is None else op.Unsqueeze(op.Gather(class_ids, order), [0])
    every = op.Expand(op.constant(np.array([[True]])), _boxes.vector(op, [1, count]))
    alive, converged = _boxes.survivors(op, corners, classes, every, threshold, depth, fixed_shapes)
    keep: ir.Value = op.Compress(order, op.Squeeze(alive, [0]))
    return keep, converged


def settings_of(node: ir.Node) -> dict[str, Any]:
    """The attributes of a BatchedNMS node, as keyword arguments of the lowerings.

    Raises:
        GraphForgeError: the node has no threshold.
    """
    threshold = node.attributes.get("iou_threshold")
    if threshold is None:
        raise GraphForgeError("BatchedNMS lacks the attribute 'iou_threshold'")
    limit = node.attributes.get("offset_limit")
    return {"iou_threshold": threshold.as_float(), "offset_limit": 0 if limit is None else limit.as_int()}
