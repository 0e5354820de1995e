"""What the boundings share: the table they stand in, and what most of them do with a ragged tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from graphforge.passes.bounding.rows import Extent, Ragged, Refusal, Rows
from graphforge.passes.bounding.walk import Walk

__all__ = ["BOUNDINGS", "Bounding", "bounds", "data_of", "filled", "hand_over", "in_front", "row_by_row", "rows_of"]

Bounding: TypeAlias = Callable[[Walk, ir.Node], None]

BOUNDINGS: dict[str, Bounding] = {}


def bounds(*names: str) -> Callable[[Bounding], Bounding]:
    def register(function: Bounding) -> Bounding:
        for name in names:
            BOUNDINGS[name] = function
        return function

    return register


def data_of(node: ir.Node, place: int = 0) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[place]
    assert value is not None
    return value


def row_by_row(walk: Walk, node: ir.Node, axis_of: Callable[[int], int], *, allowed: Callable[[int], bool]) -> None:
    """A node that treats every position of the ragged axis alike: the same node on the fixed form."""
    rows: Rows | None = None
    axis = 0
    for value in node.inputs:
        known = walk.ragged.get(value) if value is not None else None
        if known is None:
            continue
        if not allowed(known.axis) or (rows is not None and (known.rows is not rows or known.axis != axis)):
            raise Refusal(f"{node.op_type} mixes positions of an axis whose size depends on data")
        rows, axis = known.rows, known.axis
    if rows is None:
        raise Refusal(f"{node.op_type} takes a size that depends on data")
    results = walk.again(node, [walk.now(value) for value in node.inputs])
    for old, new in zip(node.outputs, results, strict=True):
        walk.set(old, new, axis_of(axis), rows)


def hand_over(walk: Walk, old: ir.Value, new: ir.Value) -> None:
    """A result that is not ragged any more takes the old one's place everywhere."""
    for user, index in old.uses():
        walk.rewriter.set_input(user, index, new)
    walk.renewed[old] = new  # for a graph output


def filled(walk: Walk, known: Ragged, dense: ir.Value, filler: Any) -> ir.Value:
    """The fixed form with a number at every position that is not valid."""
    op = walk.op
    assert dense.dtype is not None
    if known.rows.is_full:
        return dense
    if isinstance(filler, str):
        kind = dense.dtype.numpy()
        if dense.dtype == ir.DataType.BOOL:
            filler = filler == "highest"
        elif dense.dtype.is_floating_point():
            filler = -math.inf if filler == "lowest" else math.inf
        else:
            filler = int(np.iinfo(kind).min if filler == "lowest" else np.iinfo(kind).max)
    rank = 0 if dense.shape is None else len(dense.shape)
    mask = known.rows.mask(op)
    others = [axis for axis in range(rank) if axis != known.axis]
    if others:
        mask = op.Unsqueeze(mask, others)
    filled: ir.Value = op.Where(mask, dense, op.constant(filler, dense.dtype))
    return filled


def in_front(walk: Walk, known: Ragged) -> Ragged:
    """The same with its valid rows in front."""
    dense = walk.ranked(known)
    if known.rows.is_prefix:
        return Ragged(dense, known.axis, known.rows)
    dense = walk.op.Gather(dense, known.rows.places(walk.op), axis=known.axis)
    rows = walk.rows.prefix(known.rows.size, ("count", known.rows), known.rows.count(walk.op))
    return Ragged(dense, known.axis, rows)


def rows_of(walk: Walk, extent: Extent, source: ir.Value | None, place: int | None) -> Rows:
    """Rows of as many valid positions as a size says."""
    rows = walk.rows.counted(extent)
    if rows is not None:
        return rows
    assert source is not None
    now = walk.dense(source)
    if place is not None:
        now = walk.op.Gather(now, walk.op.constant(place), axis=0)
    return walk.rows.of_extent(walk.op, extent, now)
