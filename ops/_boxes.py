"""The box algebra that lowerings share: sizes, class shifts, overlaps, and suppression without an NMS kernel.

Suppression in plain tensor algebra rests on this: with the candidates sorted, let ``over[i, j]`` say that i stands
before j and overlaps it.  Greedy NMS keeps j exactly when no kept i has ``over[i, j]``; that equation has one solution
(by induction along the order), and iterating ``keep[j] = candidate[j] and not any_i(keep[i] and over[i, j])`` reaches
it: after k rounds every j whose longest chain of suppressions is shorter than k is right.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder
from graphforge.ops._loop import loop

__all__ = [
    "Size",
    "apart_by_class",
    "capped",
    "ordered_corners",
    "scalar",
    "size",
    "smallest",
    "survivors",
    "times",
    "to_float",
    "vector",
]

# A dim: its number where it is known, else a value of shape [1].
Size: TypeAlias = int | ir.Value

_FLOAT = int(ir.DataType.FLOAT)
_INT64 = int(ir.DataType.INT64)


def to_float(op: Builder, value: ir.Value) -> ir.Value:
    """The value in float32, in which NMS computes."""
    if value.dtype is None:
        raise GraphForgeError(f"the type of {value.name!r}, which goes into an NMS, is not known")
    if value.dtype == ir.DataType.FLOAT:
        return value
    result: ir.Value = op.Cast(value, to=_FLOAT)
    return result


def size(op: Builder, value: ir.Value, axis: int) -> Size:
    """One dim of a value."""
    if value.shape is not None and isinstance(value.shape[axis], int):
        known: int = value.shape[axis]  # type: ignore[assignment]
        return known
    result: ir.Value = op.Shape(value, start=axis, end=axis + 1)
    return result


def vector(op: Builder, sizes: list[Size]) -> ir.Value:
    """Sizes as one int64 vector."""
    if all(isinstance(one, int) for one in sizes):
        return op.constant([int(one) for one in sizes if isinstance(one, int)])
    if len(sizes) == 1:
        return sizes[0]  # type: ignore[return-value]
    result: ir.Value = op.Concat(*[[one] if isinstance(one, int) else one for one in sizes], axis=0)
    return result


def scalar(op: Builder, one: Size) -> ir.Value:
    """A size as a scalar."""
    if isinstance(one, int):
        return op.constant(one)
    result: ir.Value = op.Squeeze(one, [0])
    return result


def smallest(op: Builder, *sizes: Size) -> Size:
    """The smallest of some sizes."""
    known = [one for one in sizes if isinstance(one, int)]
    unknown = [one for one in sizes if not isinstance(one, int)]
    if not unknown:
        return min(known)
    if not known and len(unknown) == 1:
        return unknown[0]
    result: ir.Value = op.Min(*unknown, *([[min(known)]] if known else []))
    return result


def times(op: Builder, first: Size, second: Size) -> Size:
    """The product of two sizes."""
    if isinstance(first, int) and isinstance(second, int):
        return first * second
    if first == 1 or second == 1:
        return second if first == 1 else first
    left, right = (first, second) if isinstance(first, ir.Value) else (second, first)
    result: ir.Value = op.Mul(left, [right] if isinstance(right, int) else right)
    return result


def ordered_corners(op: Builder, boxes: ir.Value) -> ir.Value:
    """Boxes with swapped corners become boxes without area; ONNX's NonMaxSuppression would swap them back."""
    result: ir.Value = op.Max(boxes, op.Gather(boxes, [0, 1, 0, 1], axis=-1))
    return result


def apart_by_class(
    op: Builder, boxes: ir.Value, class_ids: ir.Value, candidates: ir.Value | None, limit: int
) -> tuple[ir.Value, ir.Value | None]:
    """Shift boxes by ``class id * (largest coordinate + 1)`` where there are few of them.

    Args:
        op: where nodes go.
        boxes: float [..., P, 4]
        class_ids: int64 [..., P]
        candidates: bool [..., P]: the boxes that count; None is all.
        limit: up to how many box numbers (four per candidate) they are shifted.

    Returns:
        The boxes, and the classes that are still to be told apart: None where the shift certainly did it.
    """
    if limit <= 0:
        return boxes, class_ids
    assert boxes.shape is not None
    rank = len(boxes.shape)
    axes = [rank - 2, rank - 1]
    counted = boxes if candidates is None else op.Where(op.Unsqueeze(candidates, [-1]), boxes, -np.inf)
    amount = op.Add(op.ReduceMax(counted, axes, keepdims=1), 1.0)  # [..., 1, 1]
    total = size(op, boxes, rank - 2)
    certainly = isinstance(total, int) and 4 * total <= limit
    if not certainly and candidates is None and isinstance(total, int):
        return boxes, class_ids
    left: ir.Value | None = None
    if not certainly:
        if candidates is None:
            assert isinstance(total, ir.Value)
            few = op.LessOrEqual(total, [limit // 4])  # [1]
        else:
            few = op.LessOrEqual(
                op.ReduceSum(op.Cast(candidates, to=_INT64), [rank - 2], keepdims=1), [limit // 4]
            )  # [..., 1]
        left = op.Where(few, 0, class_ids)
        amount = op.Where(op.Unsqueeze(few, [-1]), amount, 0.0)
    offsets = op.Mul(op.Cast(op.Unsqueeze(class_ids, [-1]), to=_FLOAT), amount)
    return op.Add(boxes, offsets), left


def survivors(
    op: Builder,
    corners: ir.Value,
    classes: ir.Value | None,
    candidates: ir.Value,
    threshold: float,
    depth: int,
) -> tuple[ir.Value, ir.Value | None]:
    """Greedy suppression without an NMS kernel.

    Args:
        op: where nodes go.
        corners: float [B, P, 4], best first, corners in order.
        classes: int64 [B, P]; None is one class.
        candidates: bool [B, P]
        threshold: an IoU above it suppresses.
        depth: 0 iterates in a Loop that stops when nothing changes; else the iteration is written out that often.

    Returns:
        bool [B, P], and (with a depth) a bool that says whether the last round changed nothing.
    """
    over = op.Cast(_suppresses(op, corners, classes, threshold), to=_FLOAT)
    start = op.Cast(op.Unsqueeze(candidates, [1]), to=_FLOAT)  # [B, 1, P]

    def step(inner: Builder, keep: ir.Value) -> ir.Value:
        hits = inner.MatMul(keep, over)
        result: ir.Value = inner.Where(inner.Greater(hits, 0.0), 0.0, start)
        return result

    def differs(inner: Builder, first: ir.Value, second: ir.Value) -> ir.Value:
        result: ir.Value = inner.ReduceMax(inner.Abs(inner.Sub(first, second)), keepdims=0)
        return result

    converged: ir.Value | None = None
    if depth == 0:

        def body(inner: Builder, number: ir.Value, carried: list[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
            following = step(inner, carried[0])
            return inner.Greater(differs(inner, following, carried[0]), 0.0), [following]

        (keep,) = loop(op, [start], body, name="suppression")
    else:
        before, keep = start, start
        for _ in range(depth):
            before, keep = keep, step(op, keep)
        converged = op.LessOrEqual(differs(op, keep, before), 0.0)
    return op.Greater(op.Squeeze(keep, [1]), 0.0), converged


def _suppresses(op: Builder, corners: ir.Value, classes: ir.Value | None, threshold: float) -> ir.Value:
    """bool [B, P, P]: the box of the row stands before that of the column, is of its class and overlaps it."""
    rows = op.Split(corners, axis=2, num_outputs=4, _outputs=4)
    columns = op.Split(op.Transpose(corners, perm=[0, 2, 1]), axis=1, num_outputs=4, _outputs=4)
    width, height = (
        op.Relu(op.Sub(op.Min(rows[high], columns[high]), op.Max(rows[low], columns[low])))
        for low, high in ((0, 2), (1, 3))
    )
    inter = op.Mul(width, height)
    areas = [op.Mul(op.Sub(side[2], side[0]), op.Sub(side[3], side[1])) for side in (rows, columns)]
    union = op.Sub(op.Add(*areas), inter)
    over = op.And(op.Greater(op.Div(inter, union), threshold), _precedes(op, size(op, corners, 1)))
    if classes is not None:
        over = op.And(over, _same(op, classes))
    result: ir.Value = over
    return result


def capped(op: Builder, alive: ir.Value, classes: ir.Value | None, most: int) -> ir.Value:
    """Of bool [B, P], the first ``most`` true ones of each class."""
    numbers = op.Cast(alive, to=_FLOAT)
    if classes is None:
        before = op.CumSum(numbers, 1, exclusive=1)
    else:
        earlier = op.And(_same(op, classes), _precedes(op, size(op, classes, 1)))
        before = op.Squeeze(op.MatMul(op.Unsqueeze(numbers, [1]), op.Cast(earlier, to=_FLOAT)), [1])
    result: ir.Value = op.And(alive, op.Less(before, float(most)))
    return result


def _precedes(op: Builder, count: Size) -> ir.Value:
    """bool [P, P]: the row's place is before the column's."""
    if isinstance(count, int):
        places = op.constant(np.arange(count, dtype=np.int64))
    else:
        places = op.Range(0, scalar(op, count), 1)
    result: ir.Value = op.Less(op.Unsqueeze(places, [1]), places)
    return result


def _same(op: Builder, classes: ir.Value) -> ir.Value:
    """bool [B, P, P]: row and column are of one class."""
    result: ir.Value = op.Equal(op.Unsqueeze(classes, [2]), op.Unsqueeze(classes, [1]))
    return result
