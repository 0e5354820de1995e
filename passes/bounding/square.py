"""Tensors with two ragged axes of the same rows: the overlap of every kept box with every other one.

A square is made where a row of the kept meets a column of the kept (``iou(b, b)``).  It is reduced over one of the two
axes sooner or later, and what is left is ragged along the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from graphforge.passes.bounding.common import data_of, filled, hand_over
from graphforge.passes.bounding.rows import Ragged, Refusal, Rows, Square
from graphforge.passes.bounding.walk import Walk

__all__ = ["SQUARES", "square_of"]


def square_of(walk: Walk, node: ir.Node) -> None:
    """An elementwise node whose operands are ragged along two axes, by the same rows."""
    inputs = [value for value in node.inputs if value is not None]
    rank = max(len(walk.sizes(value)) for value in inputs)
    places: set[int] = set()
    rows: set[Rows] = set()
    of_input: list[set[int]] = []
    for value in inputs:
        depth = len(walk.sizes(value))
        square, known = walk.squares.get(value), walk.ragged.get(value)
        axes = square.axes if square is not None else (known.axis,) if known is not None else ()
        of_input.append({depth - axis for axis in axes})
        places |= of_input[-1]
        if square is not None or known is not None:
            rows.add(square.rows if square is not None else known.rows)  # type: ignore[union-attr]
    if len(rows) != 1 or len(places) != 2:
        raise Refusal(f"{node.op_type} of tensors that were picked in different ways")
    for value, own in zip(inputs, of_input, strict=True):
        sizes = walk.sizes(value)
        if any(len(sizes) >= place and sizes[-place] != 1 for place in places - own):
            raise Refusal(f"{node.op_type} of a tensor whose size depends on data with one whose size does not")
    (result,) = walk.again(node, [walk.now(value) for value in node.inputs])
    first, second = sorted(rank - place for place in places)
    walk.squares[node.outputs[0]] = Square(result, (first, second), rows.pop())


def _moved(walk: Walk, node: ir.Node, square: Square, place: Callable[[int], int]) -> None:
    (result,) = walk.again(node, [square.dense, *(walk.now(value) for value in node.inputs[1:])])
    first, second = sorted(place(axis) for axis in square.axes)
    walk.squares[node.outputs[0]] = Square(result, (first, second), square.rows)


def _transpose(walk: Walk, node: ir.Node, square: Square) -> None:
    rank = len(walk.sizes(data_of(node)))
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(reversed(range(rank)))
    _moved(walk, node, square, perm.index)


def _squeeze(walk: Walk, node: ir.Node, square: Square) -> None:
    rank, given = len(walk.sizes(data_of(node))), walk.vector_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None:
        raise Refusal(f"the axes of {node.op_type} are not given")
    if node.op_type == "Squeeze":
        dropped = {axis % rank for axis in given}
        _moved(walk, node, square, lambda axis: axis - sum(one < axis for one in dropped))
        return
    made = {axis % (rank + len(given)) for axis in given}
    kept = [axis for axis in range(rank + len(given)) if axis not in made]
    _moved(walk, node, square, lambda axis: kept[axis])


def _pick(walk: Walk, node: ir.Node, square: Square) -> None:
    """Slabs of another axis than the two."""
    rank, indices = len(walk.sizes(data_of(node))), data_of(node, 1)
    axis = node.attributes.get_int("axis", 0) % rank
    if axis in square.axes or walk.is_touched(indices):
        raise Refusal("Gather along one of two axes whose sizes depend on data")
    grown = len(walk.sizes(indices)) - 1
    _moved(walk, node, square, lambda one: one + grown if one > axis else one)


def _cut(walk: Walk, node: ir.Node, square: Square) -> None:
    rank = len(walk.sizes(data_of(node)))
    axes = walk.vector_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None or any(axis % rank in square.axes for axis in axes):
        raise Refusal("Slice of one of two axes whose sizes depend on data")
    _moved(walk, node, square, lambda axis: axis)


def _triangle(walk: Walk, node: ir.Node, square: Square) -> None:
    """Positions stand in the same order as ranks: above and below the diagonal mean the same for both."""
    rank = len(walk.sizes(data_of(node)))
    k = walk.single(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else 0
    strict = 1 if node.attributes.get_int("upper", 1) else -1
    if square.axes != (rank - 2, rank - 1) or not (square.rows.is_prefix or k in (0, strict)):
        raise Refusal("Trilu counts diagonals of a tensor whose size depends on data")
    _moved(walk, node, square, lambda axis: axis)


def _reduce(walk: Walk, node: ir.Node, square: Square) -> None:
    """Over one of the two axes, or both: what does not count is what the reduction does not see."""
    rank = len(walk.sizes(data_of(node)))
    neutral = _NEUTRAL[node.op_type]
    if node.op_type.startswith("Arg"):
        raise Refusal(f"{node.op_type} over one of two axes whose sizes depend on data")
    given = walk.vector_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    axes = {axis % rank for axis in given} if given else set(range(rank))
    dense = square.dense
    for axis in square.axes:
        if axis in axes:
            dense = filled(walk, Ragged(dense, axis, square.rows), dense, neutral)
    (result,) = walk.again(node, [dense, *node.inputs[1:]])
    left = [axis for axis in square.axes if axis not in axes]
    keeps = bool(node.attributes.get_int("keepdims", 1))
    places = [axis if keeps else axis - sum(one < axis for one in axes) for axis in left]
    if len(left) == 2:
        walk.squares[node.outputs[0]] = Square(result, (places[0], places[1]), square.rows)
    elif left:
        walk.set(node.outputs[0], result, places[0], square.rows)
    else:
        hand_over(walk, node.outputs[0], result)


_NEUTRAL: dict[str, Any] = {
    "ReduceMax": "lowest",
    "ReduceMin": "highest",
    "ReduceSum": 0,
    "ReduceProd": 1,
    "ReduceL1": 0,
    "ReduceSumSquare": 0,
}

SQUARES: dict[str, Callable[[Walk, ir.Node, Square], None]] = {
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
    "Gather": _pick,
    "Slice": _cut,
    "Trilu": _triangle,
    **dict.fromkeys(_NEUTRAL, _reduce),
}
