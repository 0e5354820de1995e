"""Picking, cutting and joining along a ragged axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphforge.passes.bounding.common import bounds, data_of, filled, hand_over, in_front, row_by_row, rows_of
from graphforge.passes.bounding.rows import Extent, Ragged, Refusal, Rows
from graphforge.passes.bounding.walk import Walk

__all__: list[str] = []


@bounds("Gather")
def _gather(walk: Walk, node: ir.Node) -> None:
    data, indices = data_of(node), data_of(node, 1)
    op = walk.op
    if data in walk.extents:
        picked = walk.vector_of(indices)
        if picked is None:
            raise Refusal("Gather picks sizes at computed places")
        (now,) = walk.again(node, [walk.dense(data), indices])
        walk.set_size(node.outputs[0], now, [walk.extents[data][at] for at in picked])
        return
    axis = node.attributes.get_int("axis", 0) % len(walk.sizes(data))
    source, picks = walk.ragged.get(data), walk.ragged.get(indices)
    if source is not None and source.axis != axis:
        if picks is not None:
            raise Refusal("Gather of a tensor whose size depends on data, at places whose number does too")
        (result,) = walk.again(node, [source.dense, walk.now(indices)])
        grown = len(walk.shape(indices)) - 1 if source.axis > axis else 0
        walk.set(node.outputs[0], result, source.axis + grown, source.rows, into=source.into)
        return
    if source is None:
        if picks is None:
            raise Refusal("Gather at a size that depends on data")
        whole = walk.bounded(walk.dense(data), axis)
        if picks.iota and picks.into is None and whole.shape is not None and whole.shape[axis] == picks.rows.size:
            result = whole  # the same positions, of which some count: nothing moves
        else:
            result = op.Gather(whole, walk.ranked(picks), axis=axis)
        walk.set(node.outputs[0], result, axis + picks.axis, picks.rows)
        return
    # along the ragged axis: places are ranks among the valid positions, unless they are positions already
    if picks is None:
        places = op.Gather(source.rows.places(op), _from_the_end(walk, indices, source.rows), axis=0)
        result = op.Gather(walk.ranked(source), places, axis=axis)
        hand_over(walk, node.outputs[0], result)
        return
    if picks.into is not source.rows and not (picks.into is None and source.rows.is_prefix):
        places = op.Gather(source.rows.places(op), walk.ranked(picks), axis=0)
    elif picks.iota and picks.rows.size == source.rows.size and len(walk.shape(indices)) == 1:
        # the same positions, of which fewer count: nothing moves
        walk.set(node.outputs[0], source.dense, axis, picks.rows, into=source.into, iota=source.iota)
        return
    else:
        places = picks.dense
    result = op.Gather(source.dense, places, axis=axis)
    walk.set(node.outputs[0], result, axis + picks.axis, picks.rows, into=source.into)


def _from_the_end(walk: Walk, indices: ir.Value, rows: Rows) -> ir.Value:
    """Ranks among the valid positions; a negative one counts from the last of them."""
    op, ranks = walk.op, walk.dense(indices)
    known = walk.vector_of(indices)
    if known is not None and all(rank >= 0 for rank in known):
        return ranks
    counted: ir.Value = op.Where(op.Less(ranks, 0), op.Add(ranks, rows.count(op)), ranks)
    return counted


@bounds("GatherND")
def _gather_nd(walk: Walk, node: ir.Node) -> None:
    data, indices = data_of(node), data_of(node, 1)
    source, picks = walk.ragged.get(data), walk.ragged.get(indices)
    batch = node.attributes.get_int("batch_dims", 0)
    if batch:
        row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis < batch)
        return
    rank = len(walk.shape(indices))
    if picks is None or picks.axis == rank - 1:
        raise Refusal("GatherND at places whose number does not depend on data")
    if source is not None and (source.axis != 0 or not source.rows.is_prefix):
        raise Refusal("GatherND along an axis whose size depends on data")
    # places that do not count may lie beyond the sizes that it has now
    dense = walk.bounded(walk.dense(data), tuple(range(walk.shape(indices)[-1])))
    result = walk.op.GatherND(dense, walk.dense(indices))
    walk.set(node.outputs[0], result, picks.axis, picks.rows)


@bounds("GatherElements")
def _gather_elements(walk: Walk, node: ir.Node) -> None:
    value, indices = data_of(node), data_of(node, 1)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    source, picks = walk.ragged.get(value), walk.ragged.get(indices)
    if picks is not None and (source is None or (source.axis == axis and picks.axis == axis)):
        # each place of the indices is looked up by itself; ranks among the valid rows become their positions
        places, dense = walk.ranked(picks), walk.dense(value)
        if source is not None and not source.rows.is_prefix:
            places = walk.op.Gather(source.rows.places(walk.op), _from_the_end(walk, indices, source.rows), axis=0)
        if source is None and picks.axis != axis:
            size = walk.shape(value)[picks.axis]
            if size < picks.rows.size:
                raise Refusal("GatherElements of fewer rows than the size that depends on data may be")
            dense = walk.op.Slice(dense, [0], [picks.rows.size], [picks.axis], [1])
        result = walk.op.GatherElements(dense, places, axis=axis)
        walk.set(node.outputs[0], result, picks.axis, picks.rows)
        return
    row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: ragged != axis)


@bounds("ScatterND")
def _scatter_nd(walk: Walk, node: ir.Node) -> None:
    """Rows written into a fixed tensor (``out[:n] = rows``): what is not valid goes to a row beyond the last."""
    data, indices, updates = data_of(node), data_of(node, 1), data_of(node, 2)
    picks, new = walk.ragged.get(indices), walk.ragged.get(updates)
    if walk.is_touched(data) or picks is None or new is None or picks.axis != 0 or new.axis != 0:
        raise Refusal(
            "ScatterND of rows whose number depends on data, other than into the first axis of a fixed tensor"
        )
    op, rank = walk.op, len(walk.shape(data))
    if picks.rows is not new.rows:  # as many of both, so that the first ones belong together
        picks, new = in_front(walk, picks), in_front(walk, new)
    size = min(picks.rows.size, new.rows.size)
    places, values = (op.Slice(one, [0], [size], [0], [1]) for one in (walk.ranked(picks), walk.ranked(new)))
    mask = op.Slice(picks.rows.mask(op), [0], [size], [0], [1])
    last = walk.shape(data)[0]
    depth = walk.shape(indices)[-1]
    beyond = op.constant([last, *[0] * (depth - 1)])
    places = op.Where(op.Unsqueeze(mask, [1]), places, beyond)
    longer = op.Pad(walk.dense(data), op.constant([0] * rank + [1] + [0] * (rank - 1)))
    (written,) = walk.again(node, [longer, places, values])
    hand_over(walk, node.outputs[0], op.Slice(written, [0], [last], [0], [1]))


@bounds("TopK")
def _top_k(walk: Walk, node: ir.Node) -> None:
    value, k = data_of(node), data_of(node, 1)
    shape = walk.shape(value)
    axis = node.attributes.get_int("axis", -1) % len(shape)
    known, wanted = walk.ragged.get(value), walk.single(k)
    if wanted is None:
        raise Refusal("the number of elements that TopK takes is computed")
    if known is not None and known.axis != axis:
        if isinstance(wanted, Extent):
            raise Refusal("TopK takes a number of elements that depends on data")
        results = walk.again(node, [walk.dense(value), k])
        for old, new in zip(node.outputs, results, strict=True):
            walk.set(old, new, known.axis, known.rows)
        return
    bound = min(wanted.bound if isinstance(wanted, Extent) else wanted, shape[axis])
    dense = walk.dense(value)
    into: Rows | None = None
    if known is not None:
        largest = node.attributes.get_int("largest", 1)
        dense = filled(walk, known, dense, "lowest" if largest else "highest")
        into = known.rows
    results = walk.again(node, [dense, walk.op.constant([bound])])
    if isinstance(wanted, Extent):
        rows = walk.rows.counted(wanted)
        if rows is None or not rows.is_prefix or rows.size != bound:
            rows = walk.rows.prefix(bound, ("of", wanted.key, bound), walk.scalar(k))
    else:
        rows = walk.rows.full(bound)  # eager asks for so many, so there are
    walk.set(node.outputs[0], results[0], axis, rows)
    walk.set(node.outputs[1], results[1], axis, rows, into=into)


@bounds("Slice")
def _slice(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    starts, ends = walk.elements(node.inputs[1]), walk.elements(node.inputs[2])
    if value in walk.extents:
        return _slice_of_sizes(walk, node, starts, ends)
    shape = walk.shape(value)
    axes = walk.vector_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    steps = walk.vector_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if starts is None or ends is None:
        raise Refusal("the bounds of Slice are computed")
    axes = [axis % len(shape) for axis in axes] if axes is not None else list(range(len(starts)))
    steps = steps or [1] * len(starts)
    known = walk.ragged.get(value)
    if known is None:
        return _slice_to_size(walk, node, axes, starts, ends, steps)
    if known.axis not in axes:
        (result,) = walk.again(node, [known.dense, *node.inputs[1:]])
        walk.set(node.outputs[0], result, known.axis, known.rows, into=known.into, iota=known.iota)
        return None
    place = axes.index(known.axis)
    start, end, step = starts[place], ends[place], steps[place]
    dense, rows, into = known.dense, known.rows, known.into
    others = [at for at in range(len(axes)) if at != place]
    if others:
        if any(isinstance(one, Extent) for at in others for one in (starts[at], ends[at])):
            raise Refusal("Slice to two sizes that depend on data")
        dense = walk.op.Slice(dense, *([given[at] for at in others] for given in (starts, ends, axes, steps)))
    part = _part(walk, rows, start, end) if rows.parts and step == 1 else None
    if part is not None:
        offset, chosen = part
        dense = walk.op.Slice(dense, [offset], [offset + chosen.size], [known.axis], [1])
        walk.set(node.outputs[0], dense, known.axis, chosen)
        return None
    always = sum(one.size for one in rows.parts if one.is_full)
    if step == 1 and isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= always:
        # rows with so many fixed ones behind them that there are always enough
        front = in_front(walk, Ragged(dense, known.axis, rows, into=into))
        hand_over(walk, node.outputs[0], walk.op.Slice(front.dense, [start], [end], [known.axis], [1]))
        return None
    if step == 1 and start == 0 and isinstance(end, Extent):
        _slice_to_count(walk, node, Ragged(dense, known.axis, rows, into=into), end, place)
        return None
    if step != 1 or not isinstance(start, int) or start < 0 or not isinstance(end, int) or end < 0:
        raise Refusal("Slice counts from the end of an axis whose size depends on data, or in steps")
    if not rows.is_prefix:
        places = rows.places(walk.op)
        dense = walk.op.Gather(walk.ranked(Ragged(dense, known.axis, rows, into=into)), places, axis=known.axis)
        into = None
        rows = walk.rows.prefix(rows.size, ("count", rows), rows.count(walk.op))
    walk.set(node.outputs[0], *_prefix_slice(walk, dense, known.axis, rows, start, end), into=into)
    return None


def _slice_to_count(walk: Walk, node: ir.Node, known: Ragged, end: Extent, place: int) -> None:
    """The first so many valid rows, as many as a size says: ``x[:min(k, n)]``."""
    if end == walk.rows.extent(known.rows):
        walk.set(node.outputs[0], known.dense, known.axis, known.rows, into=known.into)
        return
    front, op = in_front(walk, known), walk.op
    size = min(end.bound, front.rows.size)
    dense = op.Slice(front.dense, [0], [size], [known.axis], [1])
    rows = walk.rows.counted(end)
    if rows is None or not rows.is_prefix or rows.size != size:
        limit = op.Gather(walk.dense(node.inputs[2]), op.constant(place), axis=0)
        count = op.Min(front.rows.count(op), limit)
        if end == walk.rows.least(size, walk.rows.extent(known.rows)):
            rows = walk.rows.of_extent(op, end, count)
        else:
            rows = walk.rows.prefix(size, ("up to", end.key, known.rows), count)
    walk.set(node.outputs[0], dense, known.axis, rows)


def _prefix_slice(
    walk: Walk, dense: ir.Value, axis: int, rows: Rows, start: int, end: int
) -> tuple[ir.Value, int, Rows]:
    last = min(end, rows.size)
    if start == 0 and last == rows.size:
        return dense, axis, rows
    first = min(start, last)
    cut = walk.op.Slice(dense, [first], [last], [axis], [1])
    if rows.is_full:
        return cut, axis, walk.rows.full(last - first)
    extent = walk.rows.least(last, walk.rows.extent(rows))
    count = walk.op.Min(rows.count(walk.op), last)
    if first == 0:
        return cut, axis, walk.rows.of_extent(walk.op, extent, count)
    shorter = walk.op.Max(walk.op.Sub(count, first), 0)
    return cut, axis, walk.rows.prefix(last - first, ("from", first, extent.key), shorter)


def _part(walk: Walk, rows: Rows, start: int | Extent, end: int | Extent) -> tuple[int, Rows] | None:
    """The part of joined rows that a slice cuts out, with its first position; None when it is none of them."""
    if start == 0 and isinstance(end, Extent) and end == walk.rows.extent(rows.parts[0]):
        return 0, rows.parts[0]
    return None


def _slice_of_sizes(walk: Walk, node: ir.Node, starts: Any, ends: Any) -> None:
    value = data_of(node)
    steps = walk.vector_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if starts is None or ends is None or steps != [1] or not all(isinstance(one, int) for one in (*starts, *ends)):
        raise Refusal("Slice picks sizes at computed places")
    (now,) = walk.again(node, [walk.dense(value), *node.inputs[1:]])
    walk.set_size(node.outputs[0], now, walk.extents[value][starts[0] : ends[0]])


def _slice_to_size(
    walk: Walk, node: ir.Node, axes: Sequence[int], starts: Any, ends: Any, steps: Sequence[int]
) -> None:
    """The first so many of a dense axis, as many as a size says."""
    value = data_of(node)
    if len(axes) != 1 or starts[0] != 0 or steps[0] != 1 or not isinstance(ends[0], Extent):
        raise Refusal("Slice of a fixed tensor to a size that depends on data")
    axis = axes[0]
    size = min(ends[0].bound, walk.shape(value)[axis])
    dense = walk.op.Slice(walk.dense(value), [0], [size], [axis], [1])
    rows = rows_of(walk, ends[0], node.inputs[2], 0)
    if rows.size != size or not rows.is_prefix:
        assert node.inputs[2] is not None
        rows = walk.rows.prefix(size, ("of", ends[0].key, size), walk.scalar(node.inputs[2]))
    walk.set(node.outputs[0], dense, axis, rows)


@bounds("Split")
def _split(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal("Split of a fixed tensor into sizes that depend on data")
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    if axis != known.axis:
        results = walk.again(node, [walk.dense(value), *node.inputs[1:]])
        for old, new in zip(node.outputs, results, strict=True):
            walk.set(old, new, known.axis, known.rows)
        return
    sizes = walk.elements(node.inputs[1]) if len(node.inputs) > 1 else None
    parts = known.rows.parts or (known.rows,)
    if sizes is None or len(sizes) != len(parts):
        raise Refusal("Split of an axis whose size depends on data, elsewhere than where it was joined")
    for size, part in zip(sizes, parts, strict=True):
        same = size == part.size if isinstance(size, int) else walk.rows.counted(size) is part
        if not same:
            raise Refusal("Split of an axis whose size depends on data, elsewhere than where it was joined")
    offset = 0
    for old, part in zip(node.outputs, parts, strict=True):
        dense = (
            walk.dense(value)
            if len(parts) == 1
            else walk.op.Slice(walk.dense(value), [offset], [offset + part.size], [axis], [1])
        )
        offset += part.size
        walk.set(old, dense, axis, part)


@bounds("Concat")
def _concat(walk: Walk, node: ir.Node) -> None:
    inputs = [value for value in node.inputs if value is not None]
    known = [walk.ragged.get(value) for value in inputs]
    if not any(known):
        elements: list[int | Extent] = []
        for value in inputs:
            found = walk.elements(value)
            if found is None:
                raise Refusal("Concat of a size that depends on data with a computed one")
            elements += found
        (now,) = walk.again(node, [walk.now(value) for value in inputs])
        walk.set_size(node.outputs[0], now, elements)
        return
    first = next(one for one in known if one is not None)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(inputs[0]))
    if any(one is not None and one.axis != first.axis for one in known):
        raise Refusal("Concat of tensors whose sizes depend on data along different axes")
    if axis != first.axis:
        if any(one is None or one.rows is not first.rows for one in known):
            raise Refusal("Concat of tensors that were picked in different ways, side by side")
        (result,) = walk.again(node, [walk.now(value) for value in inputs])
        walk.set(node.outputs[0], result, first.axis, first.rows)
        return
    parts = tuple(
        walk.rows.full(walk.shape(value)[axis]) if one is None else one.rows
        for value, one in zip(inputs, known, strict=True)
    )
    dense = [walk.now(value) for value in inputs]
    if len(dense) == 1:
        walk.ragged[node.outputs[0]] = first
        return
    (result,) = walk.again(node, dense)
    joined = walk.rows.joined(walk.op, parts)
    if len(parts) == 2:
        # the rows and so many others that there are k: a fixed size, whatever the count is
        total = _completed(walk, *parts)
        if total is not None and total <= joined.size:
            front = in_front(walk, Ragged(result, axis, joined))
            hand_over(walk, node.outputs[0], walk.op.Slice(front.dense, [0], [total], [axis], [1]))
            return
    walk.set(node.outputs[0], result, axis, joined)


def _completed(walk: Walk, first: Rows, second: Rows) -> int | None:
    for rows, rest in ((first, second), (second, first)):
        key = rest.key
        if isinstance(key, tuple) and key and key[0] == "of":
            total = walk.rows.completing(Extent(rest.size, key[1]), rows)
            if total is not None:
                return total
    return None
