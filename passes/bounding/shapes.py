"""Operators that move, merge or measure a ragged axis, and those that make tensors of its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.passes.bounding.common import bounds, data_of, rows_of
from graphforge.passes.bounding.rows import Extent, Ragged, Refusal, Rows
from graphforge.passes.bounding.walk import Walk

__all__: list[str] = []

_INT = ir.DataType.INT64


@bounds("Transpose")
def _transpose(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    rank = len(walk.shape(value))
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(reversed(range(rank)))
    known = walk.ragged[value]
    (result,) = walk.again(node, [known.dense])
    walk.set(node.outputs[0], result, perm.index(known.axis), known.rows, into=known.into)


@bounds("Unsqueeze", "Squeeze")
def _squeeze(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    if value in walk.extents:
        (now,) = walk.again(node, [walk.dense(value), *node.inputs[1:]])
        walk.set_size(node.outputs[0], now, walk.extents[value])
        return
    known = walk.ragged[value]
    shape = walk.shape(value)
    given = walk.vector_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Squeeze":
        axes = {axis % len(shape) for axis in given or [at for at, size in enumerate(shape) if size == 1]}
        if known.axis in axes:
            raise Refusal("Squeeze drops an axis whose size depends on data")
        axis = known.axis - sum(1 for one in axes if one < known.axis)
        result = walk.op.Squeeze(known.dense, sorted(axes))
    else:
        if given is None:
            raise Refusal("the axes of Unsqueeze are computed")
        axes = {one % (len(shape) + len(given)) for one in given}
        axis = [at for at in range(len(shape) + len(given)) if at not in axes][known.axis]
        result = walk.op.Unsqueeze(known.dense, sorted(axes))
    walk.set(node.outputs[0], result, axis, known.rows, into=known.into, iota=known.iota)


@bounds("Reshape", "Flatten")
def _reshape(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    if value in walk.extents:
        (now,) = walk.again(node, [walk.dense(value), *node.inputs[1:]])
        walk.set_size(node.outputs[0], now, walk.extents[value])
        return
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal("Reshape to a size that depends on data")
    shape = walk.shape(value)
    if node.op_type == "Flatten":
        cut = node.attributes.get_int("axis", 1) % (len(shape) + 1)
        wanted: list[int | Extent] = [math.prod(shape[:cut]), math.prod(shape[cut:])]
        place = 0 if known.axis < cut else 1
        wanted[place] = -1
    else:
        found = walk.elements(node.inputs[1])
        if found is None:
            raise Refusal("the target of Reshape is computed")
        wanted = list(found)
        for at, size in enumerate(wanted):
            if size == 0 and not node.attributes.get_int("allowzero", 0):
                wanted[at] = -2 if at == known.axis else shape[at]
        place = _ragged_place(walk, wanted, known)
    before, after = math.prod(shape[: known.axis]), math.prod(shape[known.axis + 1 :])
    rest = [size for at, size in enumerate(wanted) if at != place]
    if -1 in rest:
        total = math.prod(shape[: known.axis] + shape[known.axis + 1 :])
        others = math.prod(size for size in rest if isinstance(size, int) and size != -1)
        wanted = [total // max(others, 1) if size == -1 and at != place else size for at, size in enumerate(wanted)]
    if any(isinstance(size, Extent) for at, size in enumerate(wanted) if at != place):
        raise Refusal("Reshape to two sizes that depend on data")
    plain = [size if isinstance(size, int) else 0 for size in wanted]
    new_before, new_after = math.prod(plain[:place]), math.prod(plain[place + 1 :])
    if new_before != before:
        raise Refusal("Reshape moves an axis whose size depends on data")
    rows = known.rows
    if new_after != after:
        rows = _split_or_merged(walk, rows, after, new_after)
    plain[place] = rows.size
    result = walk.op.Reshape(known.dense, plain)
    into = known.into if rows is known.rows else None
    walk.set(node.outputs[0], result, place, rows, into=into, iota=known.iota and rows is known.rows)


def _ragged_place(walk: Walk, wanted: Sequence[int | Extent], known: Ragged) -> int:
    """Which axis of the target the ragged one becomes."""
    for at, size in enumerate(wanted):
        if isinstance(size, Extent) or size == -2:
            return at
    if -1 in wanted:
        return list(wanted).index(-1)
    raise Refusal("Reshape to fixed sizes of a tensor whose size depends on data")


def _split_or_merged(walk: Walk, rows: Rows, after: int, new_after: int) -> Rows:
    """The rows when the axis takes in what follows it, or gives it back."""
    if new_after and after % new_after == 0:
        return walk.rows.repeated(walk.op, rows, after // new_after)
    if after and new_after % after == 0 and rows.repeats is not None and rows.repeats[1] == new_after // after:
        return rows.repeats[0]
    raise Refusal("Reshape cuts an axis whose size depends on data")


@bounds("Shape")
def _shape(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal("the shape of a size")
    sizes: list[int | Extent] = list(walk.shape(value))
    sizes[known.axis] = walk.rows.extent(known.rows)
    count = walk.op.Unsqueeze(known.rows.count(walk.op), [0])
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(sizes))
    pieces = [count if at == known.axis else walk.op.constant([size]) for at, size in enumerate(walk.shape(value))]
    chosen = pieces[start:end]
    now = chosen[0] if len(chosen) == 1 else walk.op.Concat(*chosen, axis=0)
    walk.set_size(node.outputs[0], now, sizes[start:end])


@bounds("Size")
def _size(walk: Walk, node: ir.Node) -> None:
    value = data_of(node)
    known = walk.ragged[value]
    shape = walk.shape(value)
    others = math.prod(shape) // known.rows.size if known.rows.size else 0
    extent = walk.rows.extent(known.rows)
    now = walk.op.Mul(known.rows.count(walk.op), others)
    walk.set_size(
        node.outputs[0], now, [extent if others == 1 else Extent(extent.bound * others, ("Mul", extent.key, others))]
    )


@bounds("ConstantOfShape", "Expand")
def _expand(walk: Walk, node: ir.Node) -> None:
    target = walk.elements(node.inputs[-1])
    if target is None:
        raise Refusal(f"the target of {node.op_type} is computed")
    value = node.inputs[0] if node.op_type == "Expand" else None
    known = walk.ragged.get(value) if value is not None else None
    rank = max(len(target), 0 if value is None else len(walk.shape(value)))
    padded: list[int | Extent] = [*([1] * (rank - len(target))), *target]
    axis = next((at for at, size in enumerate(padded) if isinstance(size, Extent)), None)
    if sum(isinstance(size, Extent) for size in padded) > 1:
        raise Refusal(f"{node.op_type} to two sizes that depend on data")
    if known is not None:
        assert value is not None
        place = rank - len(walk.shape(value)) + known.axis
        if axis is not None and axis != place:
            raise Refusal(f"{node.op_type} to two sizes that depend on data")
        axis, rows = place, known.rows
    else:
        assert axis is not None
        extent = padded[axis]
        assert isinstance(extent, Extent)
        rows = rows_of(walk, extent, node.inputs[-1], axis - (rank - len(target)))
    sizes = [rows.size if at == axis else size if isinstance(size, int) else 1 for at, size in enumerate(padded)]
    if known is not None:
        sizes[axis] = 1  # it has the size already
    inputs = [walk.op.constant(sizes, _INT)] if value is None else [walk.dense(value), walk.op.constant(sizes, _INT)]
    (result,) = walk.again(node, inputs)
    walk.set(node.outputs[0], result, axis, rows)


@bounds("Range")
def _range(walk: Walk, node: ir.Node) -> None:
    start, limit, delta = (walk.single(value) for value in node.inputs)
    if start != 0 or delta != 1 or not isinstance(limit, Extent):
        raise Refusal("Range over a size that depends on data, other than 0, 1, 2, ...")
    source = node.inputs[1]
    rows = walk.rows.counted(limit)
    if rows is None:
        rows = walk.rows.of_extent(walk.op, limit, walk.scalar(source)) if source is not None else None
    assert rows is not None
    positions = walk.op.constant(np.arange(rows.size, dtype=np.int64))
    walk.set(node.outputs[0], positions, 0, rows, into=rows, iota=True)
