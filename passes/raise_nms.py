"""Raise ONNX's NonMaxSuppression to our operators, which any target can lower.    NonMaxSuppression ==> BatchedNMS

One image and one class, as detectors are mostly exported (the column of box indices is what is read):

    gather(NonMaxSuppression(unsqueeze(b), unsqueeze(s), ...), 2)   ==>   BatchedNMS(b', s)
    b + unsqueeze(ids * (max(b) + 1)) before it                     ==>   BatchedNMS(b', s, ids), always shifted

with b' the boxes with their corners in order: ONNX's operator puts swapped ones right, ours leaves such boxes alone.  A
score threshold becomes a filter behind it (the better ones come first, so nothing below it has suppressed anything
above), a limit of boxes a slice.  Several images or classes (on request, for it takes a dozen nodes more) become
MulticlassNMS, whose rows are put into the order of the operator's picks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Builder, DataType, Graph, Node, Value, constant_of, nodes_of
from graphforge.transform import Pass, Rewriter, dims_of, int_attribute, is_op, scalar_of

__all__ = ["RaiseNms"]

_FEW = 2**31 - 1  # what exporters write for "no limit" is this or more
_ALWAYS = 2**62


@dataclass(frozen=True)
class RaiseNms(Pass):
    """Exactly the same picks; what cannot be raised exactly is left, with the reason.

    Attributes:
        batched: raise those of several images or classes as well.
    """

    name: ClassVar[str] = "raise-nms"
    batched: bool = False

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Raise them in the graph and its bodies."""
        from graphforge.ops import batched_nms, multiclass_nms

        assert batched_nms.BATCHED_NMS.domain == multiclass_nms.MULTICLASS_NMS.domain == "graphforge"
        raised = 0
        for node in [node for node in nodes_of(graph) if is_op(node, "NonMaxSuppression")]:
            limits = _limits(node)
            if isinstance(limits, str):
                rewriter.declined(limits, node)
                continue
            if _is_one(node.inputs[0], 0) and _is_one(node.inputs[1], 1):
                _raise_one(node, limits, rewriter)
            elif not self.batched:
                rewriter.declined("several images or classes: raised on request (batched=true), with more nodes", node)
                continue
            elif limits.score_threshold is None:
                rewriter.declined("without a score threshold, scores of -inf are picked; MulticlassNMS has none", node)
                continue
            else:
                _raise_many(node, limits, rewriter)
            raised += 1
        if raised:
            rewriter.set_opset(1, "graphforge")


@dataclass(frozen=True, slots=True)
class _Limits:
    """The operator's numbers; None means no limit."""

    iou_threshold: float
    most: int | None
    score_threshold: float | None


def _limits(node: Node) -> _Limits | str:
    """What the operator is asked, or why it is left alone."""
    most, iou, least = (*node.inputs[2:], None, None, None)[:3]
    if any(value is not None and scalar_of(value) is None for value in (most, iou, least)):
        return "a threshold or limit is computed"
    count = 0 if most is None else int(scalar_of(most) or 0)
    if count <= 0:
        return "it is asked for no boxes"
    threshold = 0.0 if iou is None else float(scalar_of(iou) or 0)
    if not 0 <= threshold <= 1:
        return "the IoU threshold is not between 0 and 1"
    score = None if least is None else float(scalar_of(least) or 0)
    if score is not None and score != score:
        return "the score threshold is not a number"
    return _Limits(threshold, None if count >= _FEW else count, score)


def _is_one(value: Value | None, last: int) -> bool:
    """Whether the dims up to ``last`` are 1."""
    dims = dims_of(value)
    return dims is not None and all(dims[axis] == 1 for axis in range(last + 1))


def _raise_one(node: Node, limits: _Limits, rewriter: Rewriter) -> None:
    """One image, one class: the picks are box indices behind two zeros."""
    op = rewriter.builder(node)
    boxes, scores = node.inputs[0], node.inputs[1]
    assert boxes is not None
    assert scores is not None
    plain, scores = _peeled(op, boxes, [0]), _peeled(op, scores, [0, 1])
    center = bool(int_attribute(node, "center_point_box", 0))
    ids: Value | None = None
    trick = None if center else _class_offsets(plain)
    if trick is not None:
        plain, ids = trick
        if ids.dtype != DataType.INT64:
            ids = op.Cast(ids, to=int(DataType.INT64))
    keep = op.node(
        "BatchedNMS",
        [_from_center(op, plain) if center else _in_order(op, plain), scores, ids],
        _domain="graphforge",
        iou_threshold=limits.iou_threshold,
        offset_limit=_ALWAYS if ids is not None else None,
    )
    if limits.score_threshold is not None:
        keep = op.Compress(keep, op.Greater(op.Gather(scores, keep), limits.score_threshold))
    if limits.most is not None:
        keep = op.Slice(keep, [0], [limits.most], [0])
    picked = node.outputs[0]
    users = [user for user, _ in picked.uses()]
    if picked.is_graph_output() or not all(_column(user) for user in users):
        rewriter.replace(node, op.Pad(op.Unsqueeze(keep, [1]), [0, 2, 0, 0]))
        return
    column: Value | None = None
    for user in users:
        result = user.outputs[0]
        if _is_vector(user):
            rewriter.replace(user, keep)
            continue
        following = [after for after, _ in result.uses()]
        if not result.is_graph_output() and all(_squeezes_column(after) for after in following):
            for after in following:
                rewriter.replace(after, keep)
            rewriter.erase(user)
            continue
        column = op.Unsqueeze(keep, [1]) if column is None else column
        rewriter.replace(user, column)
    rewriter.erase(node)


def _raise_many(node: Node, limits: _Limits, rewriter: Rewriter) -> None:
    """Several images or classes: the rows, sorted by class within each image, are the picks."""
    op = rewriter.builder(node)
    boxes, scores = node.inputs[0], node.inputs[1]
    assert boxes is not None
    assert scores is not None
    _, labels, indices, _ = op.node(
        "MulticlassNMS",
        [
            _from_center(op, boxes) if int_attribute(node, "center_point_box", 0) else _in_order(op, boxes),
            op.Transpose(scores, perm=[0, 2, 1]),
        ],
        _domain="graphforge",
        _outputs=4,
        iou_threshold=limits.iou_threshold,
        score_threshold=limits.score_threshold,
        max_per_class=limits.most,
    )
    last = op.Where(op.Less(labels, 0), op.Shape(scores, start=1, end=2), labels)  # padding after every class
    by_class, places = op.TopK(last, op.Shape(labels, start=1, end=2), axis=1, largest=0, _outputs=2)
    boxes_by_class = op.GatherElements(indices, places, axis=1)
    images = op.Expand(
        op.Unsqueeze(op.Range(0, op.Squeeze(op.Shape(labels, start=0, end=1), [0]), 1), [1]), op.Shape(labels)
    )
    rows = op.Concat(*(op.Unsqueeze(part, [2]) for part in (images, by_class, boxes_by_class)), axis=2)
    real = op.Reshape(op.GreaterOrEqual(boxes_by_class, 0), [-1])
    rewriter.replace(node, op.Compress(op.Reshape(rows, [-1, 3]), real, axis=0))


def _peeled(op: Builder, value: Value, axes: list[int]) -> Value:
    """The value without its first dims of 1; an Unsqueeze that put them there is passed by."""
    producer = value.producer()
    if producer is not None and is_op(producer, "Cast"):
        source = producer.inputs[0]
        if source is not None and source.dtype == value.dtype:
            return _peeled(op, source, axes)
    if producer is not None and is_op(producer, "Unsqueeze"):
        added = constant_of(producer.inputs[1])
        source = producer.inputs[0]
        if added is not None and source is not None and sorted(added.reshape(-1).tolist()) == axes:
            return source
        if added is not None and source is not None and added.reshape(-1).tolist() == [0]:
            return _peeled(op, source, axes[:-1])
    result: Value = op.Squeeze(value, axes)
    return result


def _in_order(op: Builder, boxes: Value) -> Value:
    """x1 y1 x2 y2 with x1 <= x2 and y1 <= y2."""
    swapped = op.Gather(boxes, [2, 3, 0, 1], axis=-1)
    low = op.Gather(op.Min(boxes, swapped), [0, 1], axis=-1)
    high = op.Gather(op.Max(boxes, swapped), [2, 3], axis=-1)
    result: Value = op.Concat(low, high, axis=-1)
    return result


def _from_center(op: Builder, boxes: Value) -> Value:
    """Centre, width and height become corners, by halves as ONNX Runtime does."""
    center, extent = op.Split(boxes, axis=-1, num_outputs=2, _outputs=2)
    half = op.Mul(extent, 0.5)
    result: Value = op.Concat(op.Sub(center, half), op.Add(center, half), axis=-1)
    return result


def _class_offsets(boxes: Value) -> tuple[Value, Value] | None:
    """Of ``b + unsqueeze(cast(ids) * (max(b) + 1), 1)``, the boxes and the ids."""
    added = boxes.producer()
    if not is_op(added, "Add"):
        return None
    assert added is not None
    for plain, offsets in (added.inputs, added.inputs[::-1]):
        column = None if offsets is None else offsets.producer()
        if plain is None or column is None or not is_op(column, "Unsqueeze"):
            continue
        axes = constant_of(column.inputs[1])
        product = None if column.inputs[0] is None else column.inputs[0].producer()
        if axes is None or axes.reshape(-1).tolist() not in ([1], [-1]) or product is None or not is_op(product, "Mul"):
            continue
        for ids, amount in (product.inputs, product.inputs[::-1]):
            found = _class_ids(ids)
            if found is not None and amount is not None and _is_largest_plus_one(amount, plain):
                return plain, found
    return None


def _class_ids(value: Value | None) -> Value | None:
    """The integers behind a Cast to float32."""
    cast = None if value is None else value.producer()
    if cast is None or not is_op(cast, "Cast") or int_attribute(cast, "to", 0) != DataType.FLOAT:
        return None
    source = cast.inputs[0]
    return source if source is not None and source.dtype in (DataType.INT64, DataType.INT32) else None


def _is_largest_plus_one(amount: Value, boxes: Value) -> bool:
    """Whether it is ``max(boxes) + 1``."""
    added = amount.producer()
    if added is None or not is_op(added, "Add"):
        return False
    for largest, one in (added.inputs, added.inputs[::-1]):
        if scalar_of(one) != 1 or largest is None:
            continue
        reduced = largest.producer()
        if reduced is None or not is_op(reduced, "ReduceMax") or reduced.inputs[0] is not boxes:
            return False
        over_all = len(reduced.inputs) < 2 or reduced.inputs[1] is None
        return over_all and not int_attribute(reduced, "noop_with_empty_axes", 0) and largest.dtype == DataType.FLOAT
    return False


def _column(node: Node) -> bool:
    """Whether the node takes the box indices, and only these, out of the picks."""
    if is_op(node, "Gather"):
        return int_attribute(node, "axis", 0) in (1, -1) and scalar_of(node.inputs[1]) in (2, -1)
    if not is_op(node, "Slice") or len(node.inputs) < 4:
        return False
    start, end, axis = (scalar_of(value) for value in node.inputs[1:4])
    step = scalar_of(node.inputs[4]) if len(node.inputs) > 4 else 1
    return start in (2, -1) and isinstance(end, int) and end >= 3 and axis in (1, -1) and step == 1


def _is_vector(node: Node) -> bool:
    """Whether a node that takes the column makes a vector of it (a Gather by a scalar)."""
    if not is_op(node, "Gather"):
        return False
    index = constant_of(node.inputs[1])
    return index is not None and index.ndim == 0


def _squeezes_column(node: Node) -> bool:
    """Whether the node makes a vector of [R, 1]."""
    if is_op(node, "Squeeze") and len(node.inputs) > 1:
        axes = constant_of(node.inputs[1])
        return axes is not None and axes.reshape(-1).tolist() in ([1], [-1])
    if is_op(node, "Reshape"):
        shape = constant_of(node.inputs[1])
        return shape is not None and shape.reshape(-1).tolist() == [-1]
    return False
