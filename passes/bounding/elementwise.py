"""Arithmetic on ragged tensors, element by element, and on sizes that depend on data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graphforge.passes.bounding.common import bounds, hand_over
from graphforge.passes.bounding.rows import Extent, Refusal, Rows
from graphforge.passes.bounding.square import square_of
from graphforge.passes.bounding.walk import Walk

__all__ = ["ELEMENTWISE"]


ELEMENTWISE = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike "
    "Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu Reciprocal Relu Round "
    "Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"
).split()


@bounds(*ELEMENTWISE)
def _elementwise(walk: Walk, node: ir.Node) -> None:
    ragged = [walk.ragged.get(value) if value is not None else None for value in node.inputs]
    if any(value in walk.squares for value in node.inputs if value is not None):
        square_of(walk, node)
        return
    if not any(ragged):
        _size_arithmetic(walk, node)
        return
    rank = max(len(walk.sizes(value)) for value in node.inputs if value is not None)
    from_right: int | None = None
    rows: Rows | None = None
    for value, known in zip(node.inputs, ragged, strict=True):
        if value is None or known is None:
            continue
        place = len(walk.sizes(value)) - known.axis
        if rows is not None and known.rows is rows and place != from_right:
            square_of(walk, node)
            return
        if rows is not None and known.rows is not rows:
            raise Refusal(f"{node.op_type} of tensors that were picked in different ways")
        rows, from_right = known.rows, place
    assert rows is not None
    assert from_right is not None
    for value, known in zip(node.inputs, ragged, strict=True):
        if value is None or known is not None:
            continue
        shape = walk.sizes(value)
        if len(shape) >= from_right and shape[-from_right] != 1:
            raise Refusal(f"{node.op_type} of a tensor whose size depends on data with one whose size does not")
    if node.op_type == "Identity":
        first = ragged[0]
        assert first is not None
        walk.ragged[node.outputs[0]] = first
        return
    (result,) = walk.again(node, [walk.now(value) for value in node.inputs])
    walk.set(node.outputs[0], result, rank - from_right, rows)


def _size_arithmetic(walk: Walk, node: ir.Node) -> None:
    """Arithmetic on sizes: computed anew from the counts, with what is known of its bound."""
    results = walk.again(node, [walk.now(value) for value in node.inputs])
    operands = [walk.elements(value) for value in node.inputs if value is not None]
    if any(one is None for one in operands):  # a number like any other from here on
        hand_over(walk, node.outputs[0], results[0])
        return
    known = [one for one in operands if one is not None]
    length = max(len(one) for one in known)
    elements: list[int | Extent] = []
    for place in range(length):
        column = [one[place if len(one) > 1 else 0] for one in known]
        elements.append(_combined(walk, node, column))
    walk.set_size(node.outputs[0], results[0], elements)


def _combined(walk: Walk, node: ir.Node, column: Sequence[int | Extent]) -> int | Extent:
    bounds = [one.bound if isinstance(one, Extent) else one for one in column]
    extents = [one for one in column if isinstance(one, Extent)]
    numbers = [one for one in column if isinstance(one, int)]
    if not extents and node.op_type in ("Identity", "Cast") and len(numbers) == 1:
        return numbers[0]
    key = (node.op_type, tuple(one.key if isinstance(one, Extent) else one for one in column))
    if node.op_type in ("Identity", "Cast") and extents:
        return extents[0]
    if node.op_type == "Min":
        if len(extents) == 1 and numbers:
            return walk.rows.least(min(numbers), extents[0])
        return Extent(min(bounds), key)
    if node.op_type == "Max":
        if len(extents) == 1 and all(number <= 0 for number in numbers):
            return extents[0]  # a size is never negative
        return Extent(max(bounds), key)
    if node.op_type in ("Add", "Sum"):
        if len(extents) == 1 and not any(numbers):
            return extents[0]
        return Extent(sum(bounds), key)
    if node.op_type == "Mul":
        if len(extents) == 1 and all(number == 1 for number in numbers):
            return extents[0]
        return Extent(math.prod(bounds), key)
    if node.op_type == "Sub" and isinstance(column[0], Extent):
        if not isinstance(column[1], Extent) and column[1] == 0:
            return column[0]
        return Extent(column[0].bound, key)
    if node.op_type == "Div" and isinstance(column[0], Extent) and isinstance(column[1], int) and column[1] > 0:
        return Extent(column[0].bound // column[1], key)
    return Extent(max(bounds), key)
