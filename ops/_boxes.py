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
    "fixed_point",
    "intersections",
    "ordered_corners",
    "precedes",
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
_MAX_INT64 = 2**63 - 1

# Up to so many candidates the whole overlap matrix is made at once (1 MB); beyond, blocks of it.  Measured in ONNX
# Runtime on one thread: whole 0.4 ms and in blocks 0.6 ms at 300 candidates, 4.0 and 2.7 ms at 1,000; blocks of 64 to
# 256 do not differ much.
_AT_ONCE = 512
_BLOCK = 128


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
    fixed_shapes: bool = False,
) -> tuple[ir.Value, ir.Value | None]:
    """Greedy suppression without an NMS kernel.

    Args:
        op: where nodes go.
        corners: float [B, P, 4], best first, corners in order.
        classes: int64 [B, P]; None is one class.
        candidates: bool [B, P]
        threshold: an IoU above it suppresses.
        depth: 0 iterates in a Loop that stops when nothing changes, block by block when there are many candidates;
            else the iteration is written out that often.
        fixed_shapes: never block by block: slices whose sizes change from round to round are beyond some targets.

    Returns:
        bool [B, P], and (with a depth) a bool that says whether the last round changed nothing.
    """
    count = size(op, corners, 1)
    if depth == 0 and not fixed_shapes and (not isinstance(count, int) or count > _AT_ONCE):
        return _survivors_by_blocks(op, corners, classes, candidates, threshold, count), None
    over = op.And(_overlaps(op, corners, corners, classes, classes, threshold), precedes(op, count))
    start = op.Cast(op.Unsqueeze(candidates, [1]), to=_FLOAT)  # [B, 1, P]
    keep, converged = fixed_point(op, start, op.Cast(over, to=_FLOAT), depth)
    return op.Greater(op.Squeeze(keep, [1]), 0.0), converged


def fixed_point(op: Builder, start: ir.Value, over: ir.Value, depth: int) -> tuple[ir.Value, ir.Value | None]:
    """Iterate over float [B, 1, P], 1 what is kept, with float [B, P, P], 1 where the row suppresses the column."""

    def step(inner: Builder, keep: ir.Value) -> ir.Value:
        hits = inner.MatMul(keep, over)
        result: ir.Value = inner.Where(inner.Greater(hits, 0.0), 0.0, start)
        return result

    def differs(inner: Builder, first: ir.Value, second: ir.Value) -> ir.Value:
        result: ir.Value = inner.ReduceMax(inner.Abs(inner.Sub(first, second)), keepdims=0)
        return result

    def body(inner: Builder, number: ir.Value, carried: list[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        following = step(inner, carried[0])
        return inner.Greater(differs(inner, following, carried[0]), 0.0), [following]

    if depth == 0:
        # As many rounds as places are enough for any chain; the bound keeps a surprise from running forever.
        return loop(op, [start], body, name="suppression", rounds=scalar(op, size(op, start, 2)))[0], None
    before, keep = start, start
    for _ in range(depth):
        before, keep = keep, step(op, keep)
    return keep, op.LessOrEqual(differs(op, keep, before), 0.0)


def _survivors_by_blocks(
    op: Builder,
    corners: ir.Value,
    classes: ir.Value | None,
    candidates: ir.Value,
    threshold: float,
    count: Size,
) -> ir.Value:
    """The same, block after block: what was kept before suppresses the block's boxes, then these one another.

    Memory is that of one block's rows of the overlap matrix instead of all of it, half of which is never computed, a
    chain makes rounds in its own block only, and blocks behind the last candidate are left out.  The scheme is that of
    TensorFlow's ``non_max_suppression_padded``, but that a block meets only what was kept, and, sorted by class, only
    what was kept of its own classes.
    """
    usual = candidates
    places: ir.Value | None = None
    labels: ir.Value | None = None
    if classes is not None:
        key = op.Where(candidates, classes, _MAX_INT64)  # what is not a candidate comes last
        key, places = op.TopK(key, vector(op, [count]), axis=1, largest=0, _outputs=2)
        corners = op.GatherND(corners, op.Unsqueeze(places, [2]), batch_dims=1)
        candidates = op.Less(key, _MAX_INT64)
        labels = _filled(op, key, count, _MAX_INT64)
    corners = _filled(op, corners, count, 0.0)
    usable = _filled(op, op.Cast(candidates, to=_FLOAT), count, 0.0)  # [B, blocks * _BLOCK]
    most = op.ReduceMax(op.ReduceSum(usable, [1], keepdims=0), keepdims=0)  # the candidates come first
    blocks = op.Cast(op.Ceil(op.Div(op.Max(most, 0.0), float(_BLOCK))), to=_INT64)
    precedes = op.constant(np.triu(np.ones((_BLOCK, _BLOCK), np.bool_), 1))

    def body(inner: Builder, number: ir.Value, carried: list[ir.Value]) -> tuple[None, list[ir.Value]]:
        keep, met, real = carried[:3]  # [B, 1, P], [B, L, 4], [B, 1, L]
        start = inner.Mul(inner.Unsqueeze(number, [0]), [_BLOCK])
        end = inner.Add(start, [_BLOCK])
        here = inner.Slice(corners, start, end, [1])
        own: ir.Value | None = None
        others: ir.Value | None = None
        if labels is not None:
            own = inner.Slice(labels, start, end, [1])
            lowest = inner.Gather(own, [0], axis=1)  # [B, 1], the class of the block's first box
            lower = inner.ReduceSum(inner.Cast(inner.Less(carried[3], lowest), to=_INT64), [1], keepdims=0)
            passed = inner.ReduceMin(lower, keepdims=1)
            met = inner.Slice(met, passed, [_MAX_INT64], [1])
            real = inner.Slice(real, passed, [_MAX_INT64], [2])
            others = inner.Slice(carried[3], passed, [_MAX_INT64], [1])
        over = _overlaps(inner, met, here, others, own, threshold)
        hits = inner.MatMul(real, inner.Cast(over, to=_FLOAT))
        left = inner.Where(inner.Greater(hits, 0.0), 0.0, inner.Slice(keep, start, end, [2]))
        among = inner.And(_overlaps(inner, here, here, own, own, threshold), precedes)
        left, _ = fixed_point(inner, left, inner.Cast(among, to=_FLOAT), 0)
        before, after = inner.Slice(keep, [0], start, [2]), inner.Slice(keep, end, [_MAX_INT64], [2])
        # Only what is kept is met again; an image that keeps less than another meets some boxes that are not real.
        most_kept = inner.Cast(inner.ReduceMax(inner.ReduceSum(left, [1, 2], keepdims=0), keepdims=1), to=_INT64)
        kept, which = inner.TopK(left, most_kept, axis=2, _outputs=2)
        which = inner.Squeeze(which, [1])
        following = [
            inner.Concat(before, left, after, axis=2),
            inner.Concat(met, inner.GatherND(here, inner.Unsqueeze(which, [2]), batch_dims=1), axis=1),
            inner.Concat(real, kept, axis=2),
        ]
        if own is not None:
            last = inner.Gather(own, [_BLOCK - 1], axis=1)
            chosen = inner.Where(
                inner.Greater(inner.Squeeze(kept, [1]), 0.0), inner.GatherElements(own, which, axis=1), last
            )
            following.append(inner.Concat(others, chosen, axis=1))
        return None, following

    start = op.Unsqueeze(usable, [1])
    carried = [start, _none_of(op, corners, 1), _none_of(op, start, 2)]
    if labels is not None:
        carried.append(_none_of(op, labels, 1))
    keep = loop(op, carried, body, name="blocks", rounds=blocks)[0]
    whole = op.Greater(op.Squeeze(keep, [1]), 0.0)
    alive = op.Slice(whole, [0], vector(op, [count]), [1])
    result: ir.Value = alive if places is None else op.ScatterElements(usual, places, alive, axis=1)
    return result


def _none_of(op: Builder, value: ir.Value, axis: int) -> ir.Value:
    """The value with nothing along an axis, which may grow."""
    result: ir.Value = op.Slice(value, [0], [0], [axis])
    assert value.shape is not None
    dims = list(value.shape.dims)
    dims[axis] = ir.SymbolicDim(None)
    result.shape = ir.Shape(dims)
    return result


def _filled(op: Builder, value: ir.Value, count: Size, filler: float | int) -> ir.Value:
    """[B, P, ...] with P filled up to whole blocks."""
    if isinstance(count, int):
        missing = op.constant([0, -count % _BLOCK])
    else:
        missing = op.Concat([0], op.Mod(op.Neg(count), [_BLOCK]), axis=0)
    result: ir.Value = op.Pad(value, missing, filler, [1])
    return result


def _overlaps(
    op: Builder,
    first: ir.Value,
    second: ir.Value,
    first_classes: ir.Value | None,
    second_classes: ir.Value | None,
    threshold: float,
) -> ir.Value:
    """bool [B, P, Q]: an IoU above the threshold, and the same class."""
    over = op.Greater(intersections(op, first, second)[1], threshold)
    if first_classes is not None and second_classes is not None:
        over = op.And(over, op.Equal(op.Unsqueeze(first_classes, [2]), op.Unsqueeze(second_classes, [1])))
    result: ir.Value = over
    return result


def intersections(op: Builder, first: ir.Value, second: ir.Value) -> tuple[ir.Value, ir.Value]:
    """[B, P, Q]: the area that the boxes [B, P, 4] and [B, Q, 4] share, and their IoU (0/0 where neither has any)."""
    rows = op.Split(first, axis=2, num_outputs=4, _outputs=4)
    columns = op.Split(op.Transpose(second, perm=[0, 2, 1]), axis=1, num_outputs=4, _outputs=4)
    width, height = (
        op.Relu(op.Sub(op.Min(rows[high], columns[high]), op.Max(rows[low], columns[low])))
        for low, high in ((0, 2), (1, 3))
    )
    inter = op.Mul(width, height)
    areas = [op.Mul(op.Sub(side[2], side[0]), op.Sub(side[3], side[1])) for side in (rows, columns)]
    return inter, op.Div(inter, op.Sub(op.Add(*areas), inter))


def capped(
    op: Builder, alive: ir.Value, classes: ir.Value | None, most: int, *, fixed_shapes: bool = False
) -> ir.Value:
    """Of bool [B, P], the first ``most`` true ones of each class."""
    numbers = op.Cast(alive, to=_FLOAT)
    if classes is None:
        before = op.CumSum(numbers, 1, exclusive=1)
    elif fixed_shapes:
        same = op.Equal(op.Unsqueeze(classes, [2]), op.Unsqueeze(classes, [1]))
        earlier = op.And(same, precedes(op, size(op, classes, 1)))
        before = op.Squeeze(op.MatMul(op.Unsqueeze(numbers, [1]), op.Cast(earlier, to=_FLOAT)), [1])
    else:
        own = op.Equal(op.Unsqueeze(classes, [1]), op.Unsqueeze(op.Unique(classes), [1]))  # [B, C, P]
        counted = op.CumSum(op.Where(own, op.Unsqueeze(numbers, [1]), 0.0), 2, exclusive=1)
        before = op.ReduceSum(op.Where(own, counted, 0.0), [1], keepdims=0)
    result: ir.Value = op.And(alive, op.Less(before, float(most)))
    return result


def precedes(op: Builder, count: Size) -> ir.Value:
    """bool [P, P]: the row's place is before the column's."""
    if isinstance(count, int):
        places = op.constant(np.arange(count, dtype=np.int64))
    else:
        places = op.Range(0, scalar(op, count), 1)
    result: ir.Value = op.Less(op.Unsqueeze(places, [1]), places)
    return result
