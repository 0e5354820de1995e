"""Picking, cutting and joining along a ragged axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphforge.passes.bounding.common import bounds, data_of, filled, hand_over, row_by_row, rows_of
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
    shape = walk.shape(data)
    axis = node.attributes.get_int("axis", 0) % len(shape)
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
        result = op.Gather(walk.dense(data), walk.ranked(picks), axis=axis)
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
    result = walk.op.GatherND(walk.dense(data), walk.dense(indices))
    walk.set(node.outputs[0], result, picks.axis, picks.rows)


@bounds("GatherElements")
def _gather_elements(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: ragged != axis)


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
    if step != 1 or not isinstance(start, int) or start < 0 or not isinstance(end, int) or end < 0:
        raise Refusal("Slice counts from the end of an axis whose size depends on data, or in steps")
    if not rows.is_prefix:
        places = rows.places(walk.op)
        dense = walk.op.Gather(walk.ranked(Ragged(dense, known.axis, rows, into=into)), places, axis=known.axis)
        into = None
        rows = walk.rows.prefix(rows.size, ("count", rows), rows.count(walk.op))
    walk.set(node.outputs[0], *_prefix_slice(walk, dense, known.axis, rows, start, end), into=into)
    return None


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
    walk.set(node.outputs[0], result, axis, walk.rows.joined(walk.op, parts))
