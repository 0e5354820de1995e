"""Where ragged axes begin: masks, and suppression, whose number of results depends on data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.passes.bounding.common import bounds, data_of
from graphforge.passes.bounding.rows import Refusal, Rows
from graphforge.passes.bounding.walk import Walk

__all__: list[str] = []

_MAX = 2**63 - 1


@bounds("NonZero")
def _non_zero(walk: Walk, node: ir.Node) -> None:
    """Of a vector: the mask itself says which positions count."""
    mask = data_of(node)
    rows, size = _picked(walk, mask)
    if len(walk.sizes(mask)) != 1:
        return _non_zero_of_grid(walk, node, mask)
    positions = walk.op.constant(np.arange(size, dtype=np.int64).reshape(1, size))
    source = walk.ragged.get(mask)
    walk.set(node.outputs[0], positions, 1, rows, into=None if source is None else source.rows, iota=True)
    return None


def _non_zero_of_grid(walk: Walk, node: ir.Node, mask: ir.Value) -> None:
    if mask in walk.ragged:
        raise Refusal("NonZero of a tensor of several axes, one of which depends on data")
    whole = walk.bounded(_as_bool(walk, walk.dense(mask)))
    assert whole.shape is not None
    shape = [int(dim) for dim in whole.shape.numpy()]
    size = math.prod(shape)
    flat = walk.op.Reshape(whole, [-1])
    positions = np.indices(shape).reshape(len(shape), size).astype(np.int64)
    walk.set(node.outputs[0], walk.op.constant(positions), 1, walk.rows.masked(walk.op, flat, size))


@bounds("Compress")
def _compress(walk: Walk, node: ir.Node) -> None:
    data, mask = data_of(node), data_of(node, 1)
    rows, size = _picked(walk, mask)
    known, asked = walk.ragged.get(data), walk.ragged.get(mask)
    if (None if known is None else known.rows) is not (None if asked is None else asked.rows):
        raise Refusal("Compress by a mask of a tensor that was picked in another way")
    dense = walk.dense(data) if known is None else known.dense
    rank = len(walk.sizes(data))
    if "axis" not in node.attributes and rank != 1:
        if known is not None:
            raise Refusal("Compress of a flattened tensor, one of whose sizes depends on data")
        dense = walk.op.Reshape(dense, [-1])
    axis = node.attributes.get_int("axis", 0) % rank if "axis" in node.attributes else 0
    dense = walk.bounded(dense, axis)
    if known is not None and known.axis != axis:
        raise Refusal("Compress along another axis than the one whose size depends on data")
    if size != (dense.shape[axis] if dense.shape is not None else None):
        raise Refusal("Compress by a mask that is shorter than the axis")
    walk.set(node.outputs[0], dense, axis, rows, into=None if known is None else known.into)


def _as_bool(walk: Walk, value: ir.Value) -> ir.Value:
    return value if value.dtype == ir.DataType.BOOL else walk.op.Cast(value, to=ir.DataType.BOOL)


def _picked(walk: Walk, mask: ir.Value) -> tuple[Rows, int]:
    """The rows that a mask picks, and how many positions they have."""
    known = walk.ragged.get(mask)
    whole_rows = _spread(mask) if known is None else None
    if whole_rows is not None:
        base, times = whole_rows
        rows, size = _picked(walk, base)
        return walk.rows.repeated(walk.op, rows, times), size * times
    dense = walk.bounded(_as_bool(walk, walk.dense(mask)))
    assert dense.shape is not None
    size = math.prod(int(dim) for dim in dense.shape.numpy())
    if len(dense.shape) != 1:
        dense = walk.op.Reshape(dense, [-1])
    return walk.rows.masked(walk.op, dense, size, known.rows if known is not None else None), size


def _spread(mask: ir.Value) -> tuple[ir.Value, int] | None:
    """(mask of the rows, elements of a row) where a flat mask is one of whole rows: ``m[:, None].expand(-1, k)``."""
    flat = mask.producer()
    grid = None if flat is None or flat.op_type != "Reshape" else flat.inputs[0]
    spread = None if grid is None else grid.producer()
    if grid is None or spread is None or spread.op_type != "Expand" or mask.shape is None or len(mask.shape) != 1:
        return None
    column, sizes = data_of(spread), grid.shape
    if column.shape is None or sizes is None or len(sizes) != 2 or len(column.shape) != 2 or column.shape[1] != 1:
        return None
    added = column.producer()
    times = sizes[1]
    if added is None or added.op_type != "Unsqueeze" or column.shape[0] != sizes[0] or not isinstance(times, int):
        return None
    return data_of(added), times


@bounds("graphforge::BatchedNMS")
def _batched_nms(walk: Walk, node: ir.Node) -> None:
    """MulticlassNMS of one image, whose masked boxes are no candidates."""
    op = walk.op
    inputs = [value for value in node.inputs if value is not None]
    known = [walk.ragged.get(value) for value in inputs]
    rows = next((one.rows for one in known if one is not None), None)
    if any(one is not None and (one.rows is not rows or one.axis != 0) for one in known) or (
        rows is not None and any(one is None for one in known)
    ):
        raise Refusal("the boxes, scores and classes were not picked in the same way")
    dense = [walk.bounded(walk.dense(value), 0) for value in inputs]
    dim = walk.sizes(inputs[0])[0]
    size = walk.bound(dim)
    if not isinstance(dim, int):  # as many as the sizes of the inputs say: the first ones are valid
        rows = walk.rows.prefix(size, ("dim", dim), op.Squeeze(op.Shape(inputs[0], start=0, end=1), [0]))
    keep, limit = _cap(node, size)
    batched = [op.Unsqueeze(value, [0]) for value in dense]
    valid = None if rows is None or rows.is_full else op.Unsqueeze(rows.mask(op), [0])
    attributes: dict[str, Any] = {
        name: node.attributes[name].value for name in ("iou_threshold", "offset_limit") if name in node.attributes
    }
    _, _, indices, count = op.node(
        "MulticlassNMS",
        [*batched, *([None] if len(batched) == 2 else []), valid],
        _outputs=4,
        _domain="graphforge",
        keep_top_k=limit,
        **attributes,
    )
    # the padding of the indices is -1; it reads box 0 from here on, and counts nowhere
    kept = op.Max(op.Squeeze(indices, [0]), 0)
    result = walk.rows.prefix(keep, ("nms", node), op.Squeeze(count, [0]))
    walk.set(node.outputs[0], kept, 0, result, into=None if isinstance(dim, str) else rows)


@bounds("graphforge::SoftNMS", "graphforge::NMSRotated")
def _picking_nms(walk: Walk, node: ir.Node) -> None:
    """The same node, to which -inf is not a candidate; what it picked is filled up to the number of boxes."""
    op = walk.op
    inputs = [value for value in node.inputs if value is not None]
    known = [walk.ragged.get(value) for value in inputs]
    rows = None if known[0] is None else known[0].rows
    if any((None if one is None else one.rows) is not rows for one in known) or any(
        one is not None and one.axis != 0 for one in known
    ):
        raise Refusal("the boxes, scores and classes were not picked in the same way")
    size = walk.shape(inputs[0])[0]
    dense = [walk.dense(value) for value in inputs]
    if rows is not None and not rows.is_full:
        dense[1] = op.Where(rows.mask(op), dense[1], -np.inf)
    results = walk.again(node, dense)
    order = results[-1]
    count = op.Shape(order)
    missing = op.Sub([size], count)
    picks = walk.rows.prefix(size, ("picked", node), op.Squeeze(count, [0]))
    filled_order = op.Reshape(op.Pad(order, op.Concat([0], missing, axis=0), 0), [size])
    walk.set(node.outputs[-1], filled_order, 0, picks, into=rows)
    if len(results) == 2:
        filled = op.Pad(results[0], op.Concat([0, 0], missing, [0], axis=0), 0.0)
        walk.set(node.outputs[0], op.Reshape(filled, [size, 5]), 0, picks)


def _cap(node: ir.Node, size: int) -> tuple[int, int]:
    """How many boxes can be kept at most, as far as anybody reads them; and the attribute that says so (0: all)."""
    most = 0
    for user, _ in node.outputs[0].uses():
        read = _read_at_most(user, node.outputs[0])
        if read is None:
            return size, 0
        most = max(most, read)
    if node.outputs[0].is_graph_output() or not most or most >= size:
        return size, 0
    return most, most


def _read_at_most(user: ir.Node, value: ir.Value) -> int | None:
    """How many leading elements a node looks at, None when that is not known."""
    from graphforge.ir import constant_of

    if user.op_type == "Slice" and user.inputs[0] is value:
        starts, ends = constant_of(user.inputs[1]), constant_of(user.inputs[2])
        steps = constant_of(user.inputs[4]) if len(user.inputs) > 4 else None
        plain = steps is None or list(steps.reshape(-1)) == [1]
        if starts is not None and ends is not None and list(starts.reshape(-1)) == [0] and plain:
            end = int(ends.reshape(-1)[0])
            return end if 0 < end < _MAX else None
        return None
    if user.op_type == "Shape":
        limits = []
        for reader, _ in user.outputs[0].uses():
            if reader.op_type != "Min":
                return None
            numbers = [constant_of(other) for other in reader.inputs if other is not user.outputs[0]]
            if not all(number is not None and number.size == 1 for number in numbers) or not numbers:
                return None
            limits.append(min(int(number.reshape(-1)[0]) for number in numbers if number is not None))
        return max(limits) if limits and not user.outputs[0].is_graph_output() else None
    return None
