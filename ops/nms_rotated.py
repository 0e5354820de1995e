"""NMSRotated: greedy non-maximum suppression of rotated boxes; the kept boxes' indices, best first.

    keep int64 [K] = NMSRotated(boxes float [N, 5], scores float [N], class_ids int64 [N] optional)

A box is (centre x, centre y, width, height, angle), the angle in radians from the x axis towards the y axis.  A better
box of the same class whose IoU with another is strictly above ``iou_threshold`` suppresses it; ties of score go by the
lower index; a score of -inf is not a candidate.  Boxes without area (a side not above 0) neither suppress nor are
suppressed.  All is computed in float32, in which an IoU has an error of about 1e-6; a threshold below 1e-6 therefore
counts as 1e-6, so that boxes that only touch do not overlap.

The area that two boxes share needs no polygon: seen from one of them, which is then |x| <= a, |y| <= b, it is the
integral of clamp(y, -b, b) dx around the other, restricted to |x| <= a (Green's theorem).  Each of the four sides gives
a term that is continuous in everything, so identical boxes, common edges and corners are no special cases.
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
from graphforge.ops._greedy import check_scores, check_threshold
from graphforge.ops.custom_op import TensorFact, semantic_op

__all__ = ["NMS_ROTATED", "lower", "nms_rotated", "rotated_iou"]

_LEAST = 1e-6
# Corners of a box in halves of its sides, counterclockwise, and which one follows.
_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float32) / 2
_FOLLOWING = [1, 2, 3, 0]
# Rows of the overlap matrix computed at once.
_ROWS = 128


def nms_rotated(boxes: Tensor, scores: Tensor, class_ids: Tensor | None, iou_threshold: float) -> Tensor:
    """The reference.

    Args:
        boxes: [N, 5], finite.
        scores: [N]
        class_ids: int64 [N]; None is one class.
        iou_threshold: an IoU strictly above it suppresses.

    Returns:
        The indices of the kept boxes, best score first, ties by lower index.

    Raises:
        GraphForgeError: a score is NaN or the threshold negative.
    """
    threshold = _checked(iou_threshold)
    check_scores(scores)
    device = boxes.device
    ordered, order = scores.detach().cpu().sort(descending=True, stable=True)
    numbers = boxes.detach().cpu().float()[order]
    classes = None if class_ids is None else class_ids.detach().cpu()[order]
    alive = ordered > -torch.inf
    state = alive.numpy()  # the same memory
    for start in range(0, len(numbers), _ROWS):
        over = rotated_iou(numbers[start : start + _ROWS], numbers) > torch.tensor(threshold)
        if classes is not None:
            over &= classes[start : start + _ROWS, None] == classes
        rows = over.numpy()
        for row in range(len(rows)):
            place = start + row
            if state[place]:
                state[place + 1 :] &= ~rows[row, place + 1 :]
    return order[alive].to(device)


def rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every rotated box [P, 5] with every other [Q, 5]: float [P, Q], NaN where neither has an area."""
    sides = first[:, 2:4].clamp(min=0), second[:, 2:4].clamp(min=0)
    a, b = sides[0][:, :1] / 2, sides[0][:, 1:] / 2
    cosine, sine = first[:, 4:].cos(), first[:, 4:].sin()
    around_x, around_y = (torch.from_numpy(column)[:, None, None] for column in _CORNERS.T)
    local_x, local_y = around_x * sides[1][:, 0], around_y * sides[1][:, 1]  # [4, 1, Q]
    turned = second[:, 4].cos(), second[:, 4].sin()
    dx = (second[:, 0] - first[:, :1]) + (turned[0] * local_x - turned[1] * local_y)  # [4, P, Q]
    dy = (second[:, 1] - first[:, 1:2]) + (turned[1] * local_x + turned[0] * local_y)
    x, y = cosine * dx + sine * dy, cosine * dy - sine * dx
    x_run, y_run = x[_FOLLOWING] - x, y[_FOLLOWING] - y
    start = torch.minimum(torch.maximum(x, -a), a)
    end = start[_FOLLOWING]
    slant = torch.where(x_run == 0, 1.0, x_run)
    y_start = y + ((start - x) / slant).clamp(0, 1) * y_run
    y_end = y + ((end - x) / slant).clamp(0, 1) * y_run
    high, low = torch.maximum(y_start, y_end), torch.minimum(y_start, y_end)
    top, bottom = torch.minimum(torch.maximum(high, -b), b), torch.minimum(torch.maximum(low, -b), b)
    above = torch.maximum(high, b) - torch.maximum(low, b)
    below = torch.minimum(high, -b) - torch.minimum(low, -b)
    rise = high - low
    summed = (above - below) * b + (top - bottom) * ((top + bottom) / 2)
    mean = torch.where(rise > 0, summed / torch.where(rise > 0, rise, 1.0), bottom)
    shared = (-((end - start) * mean).sum(0)).clamp(min=0)
    areas = (sides[0][:, :1] * sides[0][:, 1:]) + (sides[1][:, 0] * sides[1][:, 1])
    return shared / (areas - shared)


def _checked(iou_threshold: float) -> float:
    return max(check_threshold(iou_threshold), float(np.float32(_LEAST)))


def _shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [TensorFact("int64", (None,))]


NMS_ROTATED = semantic_op(
    "NMSRotated",
    inputs=["boxes: float", "scores: float", "class_ids: int64?"],
    outputs=["keep: int64"],
    attributes={"iou_threshold": float},
    shapes=_shapes,
    function=nms_rotated,
    torch_name="graphforge::nms_rotated",
    doc="Greedy non-maximum suppression of rotated boxes: indices of the kept ones, best first, ties by lower index.",
)


@torch.library.custom_op("graphforge::nms_rotated", mutates_args=())
def _torch_op(boxes: Tensor, scores: Tensor, class_ids: Tensor | None, iou_threshold: float) -> Tensor:
    return nms_rotated(boxes, scores, class_ids, iou_threshold)


@_torch_op.register_fake
def _fake(boxes: Tensor, scores: Tensor, class_ids: Tensor | None, iou_threshold: float) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    torch._check(kept <= boxes.shape[0])
    return scores.new_empty(kept, dtype=torch.int64)


def lower(
    op: Builder, node: ir.Node, boxes: ir.Value, scores: ir.Value, class_ids: ir.Value | None, *, depth: int = 0
) -> tuple[ir.Value, ir.Value | None]:
    """In plain tensor algebra: the whole overlap matrix, then the fixed point of ``_boxes``.

    Returns:
        The indices, and (with a ``depth``) whether so many rounds were enough.

    Raises:
        GraphForgeError: the node has no threshold, or one that is negative.
    """
    attribute = node.attributes.get("iou_threshold")
    if attribute is None:
        raise GraphForgeError("NMSRotated lacks the attribute 'iou_threshold'")
    count = _boxes.size(op, scores, 0)
    ordered, order = op.TopK(scores, _boxes.vector(op, [count]), axis=0, _outputs=2)
    over = op.Greater(_iou(op, op.Gather(boxes, order)), _checked(attribute.as_float()))
    if class_ids is not None:
        classes = op.Gather(class_ids, order)
        over = op.And(over, op.Equal(op.Unsqueeze(classes, [1]), classes))
    over = op.Cast(op.And(over, _boxes.precedes(op, count)), to=int(ir.DataType.FLOAT))
    start = op.Cast(op.Greater(ordered, -np.inf), to=int(ir.DataType.FLOAT))
    alive, converged = _boxes.fixed_point(op, op.Unsqueeze(start, [0, 1]), op.Unsqueeze(over, [0]), depth)
    keep: ir.Value = op.Compress(order, op.Greater(op.Squeeze(alive, [0, 1]), 0.0))
    return keep, converged


def _iou(op: Builder, boxes: ir.Value) -> ir.Value:
    """``rotated_iou`` of boxes with themselves; rows are those whose view it is."""
    cx, cy, width, height, angle = op.Split(boxes, axis=1, num_outputs=5, _outputs=5)  # each [N, 1]

    def across(column: ir.Value) -> ir.Value:
        row: ir.Value = op.Transpose(column, perm=[1, 0])
        return row

    def within(value: ir.Value, limit: ir.Value, opposite: ir.Value) -> ir.Value:
        clamped: ir.Value = op.Min(op.Max(value, opposite), limit)
        return clamped

    def following(value: ir.Value) -> ir.Value:
        moved: ir.Value = op.Gather(value, op.constant(_FOLLOWING), axis=0)
        return moved

    width, height = op.Relu(width), op.Relu(height)
    a, b = op.Mul(width, 0.5), op.Mul(height, 0.5)
    minus_a, minus_b = op.Neg(a), op.Neg(b)
    cosine, sine = op.Cos(angle), op.Sin(angle)
    around = [op.constant(np.ascontiguousarray(column).reshape(4, 1, 1)) for column in _CORNERS.T]
    local_x, local_y = op.Mul(around[0], across(width)), op.Mul(around[1], across(height))
    turned = across(cosine), across(sine)
    corner_x = op.Sub(op.Mul(turned[0], local_x), op.Mul(turned[1], local_y))
    corner_y = op.Add(op.Mul(turned[1], local_x), op.Mul(turned[0], local_y))
    dx, dy = op.Add(op.Sub(across(cx), cx), corner_x), op.Add(op.Sub(across(cy), cy), corner_y)  # [4, N, N]
    x = op.Add(op.Mul(cosine, dx), op.Mul(sine, dy))
    y = op.Sub(op.Mul(cosine, dy), op.Mul(sine, dx))
    x_run, y_run = op.Sub(following(x), x), op.Sub(following(y), y)
    start = within(x, a, minus_a)
    end = following(start)
    slant = op.Where(op.Equal(x_run, 0.0), 1.0, x_run)
    y_start, y_end = (
        op.Add(y, op.Mul(op.Clip(op.Div(op.Sub(place, x), slant), 0.0, 1.0), y_run)) for place in (start, end)
    )
    high, low = op.Max(y_start, y_end), op.Min(y_start, y_end)
    top, bottom = within(high, b, minus_b), within(low, b, minus_b)
    above = op.Sub(op.Max(high, b), op.Max(low, b))
    below = op.Sub(op.Min(high, minus_b), op.Min(low, minus_b))
    rise = op.Sub(high, low)
    rises = op.Greater(rise, 0.0)
    summed = op.Add(op.Mul(op.Sub(above, below), b), op.Mul(op.Sub(top, bottom), op.Mul(op.Add(top, bottom), 0.5)))
    mean = op.Where(rises, op.Div(summed, op.Where(rises, rise, 1.0)), bottom)
    shared = op.Relu(op.Neg(op.ReduceSum(op.Mul(op.Sub(end, start), mean), [0], keepdims=0)))
    area = op.Mul(width, height)
    overlap: ir.Value = op.Div(shared, op.Sub(op.Add(area, across(area)), shared))
    return overlap
