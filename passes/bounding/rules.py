"""What each operator does to ragged tensors carried in fixed shapes.

A rule reads what is known of the inputs from the walk, builds the fixed form, and says what is known of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.passes.bounding.rows import Extent, Ragged, Refusal, Rows
from graphforge.passes.bounding.walk import Walk

__all__ = ["RULES", "SOURCES"]

# Operators whose result is ragged although no input is.
SOURCES = frozenset({"NonZero", "Compress", "BatchedNMS", "SoftNMS", "NMSRotated"})

_INT = ir.DataType.INT64
_MAX = 2**63 - 1
RULES: dict[str, Callable[[Walk, ir.Node], None]] = {}


def _rule(*names: str) -> Callable[[Callable[[Walk, ir.Node], None]], Callable[[Walk, ir.Node], None]]:
    def register(function: Callable[[Walk, ir.Node], None]) -> Callable[[Walk, ir.Node], None]:
        for name in names:
            RULES[name] = function
        return function

    return register


def _data(node: ir.Node, place: int = 0) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[place]
    assert value is not None
    return value


# -- where ragged axes begin -------------------------------------------------------------------------------------------


@_rule("NonZero")
def _non_zero(walk: Walk, node: ir.Node) -> None:
    """Of a vector: the mask itself says which positions count."""
    mask = _data(node)
    rows, size = _picked(walk, mask)
    if len(walk.shape(mask)) != 1:
        return _non_zero_of_grid(walk, node, mask)
    positions = walk.op.constant(np.arange(size, dtype=np.int64).reshape(1, size))
    source = walk.ragged.get(mask)
    walk.set(node.outputs[0], positions, 1, rows, into=None if source is None else source.rows, iota=True)
    return None


def _non_zero_of_grid(walk: Walk, node: ir.Node, mask: ir.Value) -> None:
    if mask in walk.ragged:
        raise Refusal("NonZero of a tensor of several axes, one of which depends on data")
    shape = walk.shape(mask)
    size = math.prod(shape)
    flat = walk.op.Reshape(_as_bool(walk, walk.dense(mask)), [-1])
    positions = np.indices(shape).reshape(len(shape), size).astype(np.int64)
    walk.set(node.outputs[0], walk.op.constant(positions), 1, walk.rows.masked(walk.op, flat, size))


@_rule("Compress")
def _compress(walk: Walk, node: ir.Node) -> None:
    data, mask = _data(node), _data(node, 1)
    rows, _ = _picked(walk, mask)
    known = walk.ragged.get(data)
    dense = walk.dense(data) if known is None else known.dense
    if "axis" not in node.attributes and len(walk.shape(data)) != 1:
        if known is not None:
            raise Refusal("Compress of a flattened tensor, one of whose sizes depends on data")
        dense = walk.op.Reshape(dense, [-1])
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(data)) if "axis" in node.attributes else 0
    if known is not None and (known.axis != axis or mask not in walk.ragged):
        raise Refusal("Compress along another axis than the one whose size depends on data")
    walk.set(node.outputs[0], dense, axis, rows, into=None if known is None else known.into)


def _as_bool(walk: Walk, value: ir.Value) -> ir.Value:
    return value if value.dtype == ir.DataType.BOOL else walk.op.Cast(value, to=ir.DataType.BOOL)


def _picked(walk: Walk, mask: ir.Value) -> tuple[Rows, int]:
    """The rows that a mask picks, and how many positions they have."""
    known = walk.ragged.get(mask)
    dense = _as_bool(walk, walk.dense(mask))
    size = math.prod(walk.shape(mask))
    if len(walk.shape(mask)) != 1:
        dense = walk.op.Reshape(dense, [-1])
    return walk.rows.masked(walk.op, dense, size, known.rows if known is not None else None), size


@_rule("graphforge::BatchedNMS")
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
    size = walk.shape(inputs[0])[0]
    keep, limit = _cap(node, size)
    batched = [op.Unsqueeze(walk.dense(value), [0]) for value in inputs]
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
    walk.set(node.outputs[0], kept, 0, result, into=rows)


@_rule("graphforge::SoftNMS", "graphforge::NMSRotated")
def _picking_nms(walk: Walk, node: ir.Node) -> None:
    """The same node, to which -inf is no candidate; what it picked is filled up to the number of boxes."""
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


# -- elementwise -------------------------------------------------------------------------------------------------------

_ELEMENTWISE = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike "
    "Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity "
    "IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu Reciprocal Relu Round "
    "Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"
).split()


@_rule(*_ELEMENTWISE)
def _elementwise(walk: Walk, node: ir.Node) -> None:
    ragged = [walk.ragged.get(value) if value is not None else None for value in node.inputs]
    if not any(ragged):
        _size_arithmetic(walk, node)
        return
    rank = max(len(walk.shape(value)) for value in node.inputs if value is not None)
    from_right: int | None = None
    rows: Rows | None = None
    for value, known in zip(node.inputs, ragged, strict=True):
        if value is None or known is None:
            continue
        place = len(walk.shape(value)) - known.axis
        if rows is not None and (known.rows is not rows or place != from_right):
            raise Refusal(f"{node.op_type} of tensors that were picked in different ways")
        rows, from_right = known.rows, place
    assert rows is not None
    assert from_right is not None
    for value, known in zip(node.inputs, ragged, strict=True):
        if value is None or known is not None:
            continue
        shape = walk.shape(value)
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
    if any(one is None for one in operands):
        raise Refusal(f"{node.op_type} mixes a size that depends on data with other data")
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


# -- row by row --------------------------------------------------------------------------------------------------------


def _row_by_row(walk: Walk, node: ir.Node, axis_of: Callable[[int], int], *, allowed: Callable[[int], bool]) -> None:
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


@_rule(
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization",
    "InstanceNormalization", "GroupNormalization", "Resize", "DepthToSpace", "SpaceToDepth", "GridSample",
    "graphforge::MultiScaleRoiAlign", "graphforge::HeatmapsToKeypoints", "LRN", "LpPool", "GlobalLpPool",
)  # fmt: skip
def _batch(walk: Walk, node: ir.Node) -> None:
    """The ragged axis is the batch."""
    _row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis == 0)


@_rule("RoiAlign", "MaxRoiPool")
def _roi_align(walk: Walk, node: ir.Node) -> None:
    if node.inputs[0] in walk.ragged:
        raise Refusal(f"{node.op_type} pools from a batch whose size depends on data")
    _row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis == 0)


@_rule("Gemm")
def _gemm(walk: Walk, node: ir.Node) -> None:
    if any(value in walk.ragged for value in node.inputs[1:]) or node.attributes.get_int("transA", 0) != 0:
        raise Refusal("Gemm adds over an axis whose size depends on data")
    _row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis == 0)


@_rule("MatMul")
def _mat_mul(walk: Walk, node: ir.Node) -> None:
    left, right = _data(node), _data(node, 1)
    ranks = len(walk.shape(left)), len(walk.shape(right))
    known = walk.ragged.get(left), walk.ragged.get(right)
    rank = max(ranks)
    places = [rank - size + one.axis for size, one in zip(ranks, known, strict=True) if one is not None]
    if len(set(places)) != 1:
        raise Refusal("MatMul of tensors that were picked in different ways")
    place = places[0]
    batch = place < rank - 2
    row = known[1] is None and place == rank - 2 and min(ranks) > 1
    column = known[0] is None and place == rank - 1 and min(ranks) > 1
    if not (batch or row or column):
        raise Refusal("MatMul adds over an axis whose size depends on data")
    (result,) = walk.again(node, [walk.now(left), walk.now(right)])
    walk.set(node.outputs[0], result, place, next(one.rows for one in known if one is not None))


@_rule("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "Hardmax", "LpNormalization")
def _along_axis(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal(f"{node.op_type} takes a size that depends on data")
    axis = node.attributes.get_int("axis", -1) % len(walk.shape(value))
    mixes = known.axis >= axis if "Normalization" in node.op_type and node.op_type != "LpNormalization" else False
    if mixes or known.axis == axis:
        raise Refusal(f"{node.op_type} mixes positions of an axis whose size depends on data")
    _row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


@_rule("Pad")
def _pad(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    known, pads = walk.ragged.get(value), walk.vector_of(node.inputs[1])
    if known is None or pads is None:
        raise Refusal("Pad by a size that depends on data")
    rank = len(walk.shape(value))
    axes = walk.vector_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(rank))
    assert axes is not None
    for place, axis in enumerate(axes):
        if axis % rank == known.axis and (pads[place] or pads[place + len(axes)]):
            raise Refusal("Pad of an axis whose size depends on data")
    _row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


@_rule("Tile")
def _tile(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    known, repeats = walk.ragged.get(value), walk.vector_of(node.inputs[1])
    if known is None or repeats is None or repeats[known.axis] != 1:
        raise Refusal("Tile of an axis whose size depends on data")
    _row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: True)


@_rule("OneHot")
def _one_hot(walk: Walk, node: ir.Node) -> None:
    if node.attributes.get_int("axis", -1) != -1:
        raise Refusal("OneHot in the middle of a tensor whose size depends on data")
    _row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: True)


@_rule("CumSum")
def _cum_sum(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    known, axis = walk.ragged.get(value), walk.single(node.inputs[1])
    if known is None or not isinstance(axis, int):
        raise Refusal("CumSum of a size that depends on data")
    dense = walk.dense(value)
    if axis % len(walk.shape(value)) == known.axis:
        dense = _filled(walk, known, dense, 0)
    (result,) = walk.again(node, [dense, node.inputs[1]])
    walk.set(node.outputs[0], result, known.axis, known.rows)


_NEUTRAL: dict[str, Any] = {
    "ReduceMax": "lowest",
    "ReduceMin": "highest",
    "ReduceSum": 0,
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceSumSquare": 0,
    "ReduceProd": 1,
    "ReduceLogSumExp": "lowest",
    "ReduceMean": None,
}


@_rule(*_NEUTRAL)
def _reduce(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    known = walk.ragged.get(value)
    if known is None:
        raise Refusal(f"{node.op_type} of a size that depends on data")
    rank = len(walk.shape(value))
    given = walk.vector_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else []
    if given is None:
        raise Refusal(f"the axes of {node.op_type} are computed")
    axes = {axis % rank for axis in given} or (
        set() if node.attributes.get_int("noop_with_empty_axes", 0) else set(range(rank))
    )
    keeps = bool(node.attributes.get_int("keepdims", 1))
    if known.axis not in axes:
        lost = 0 if keeps else sum(1 for axis in axes if axis < known.axis)
        _row_by_row(walk, node, lambda axis: axis - lost, allowed=lambda axis: True)
        return
    neutral = _NEUTRAL[node.op_type]
    if neutral is None:
        raise Refusal(f"{node.op_type} over an axis whose size depends on data")
    dense = _filled(walk, known, walk.dense(value), neutral)
    (result,) = walk.again(node, [dense, *node.inputs[1:]])
    _hand_over(walk, node.outputs[0], result)


@_rule("ArgMax", "ArgMin")
def _arg_reduce(walk: Walk, node: ir.Node) -> None:
    """The best class of each row; the best row of all would need its rank among the valid ones."""
    value = _data(node)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    lost = 0 if node.attributes.get_int("keepdims", 1) else 1
    _row_by_row(
        walk, node, lambda ragged: ragged - lost if ragged > axis else ragged, allowed=lambda ragged: ragged != axis
    )


def _hand_over(walk: Walk, old: ir.Value, new: ir.Value) -> None:
    """A result that is not ragged any more takes the old one's place everywhere."""
    for user, index in list(old.uses()):
        user.replace_input_with(index, new)
    walk.renewed[old] = new  # for a graph output


def _filled(walk: Walk, known: Ragged, dense: ir.Value, filler: Any) -> ir.Value:
    """The fixed form with a number at every position that is not valid."""
    op = walk.op
    assert dense.dtype is not None
    if known.rows.is_full:
        return dense
    if isinstance(filler, str):
        kind = dense.dtype.numpy()
        if dense.dtype.is_floating_point():
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


# -- shapes ------------------------------------------------------------------------------------------------------------


@_rule("Transpose")
def _transpose(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    rank = len(walk.shape(value))
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(reversed(range(rank)))
    known = walk.ragged[value]
    (result,) = walk.again(node, [known.dense])
    walk.set(node.outputs[0], result, perm.index(known.axis), known.rows, into=known.into)


@_rule("Unsqueeze", "Squeeze")
def _squeeze(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
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


@_rule("Reshape", "Flatten")
def _reshape(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
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


@_rule("Shape")
def _shape(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
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


@_rule("Size")
def _size(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    known = walk.ragged[value]
    shape = walk.shape(value)
    others = math.prod(shape) // known.rows.size if known.rows.size else 0
    extent = walk.rows.extent(known.rows)
    now = walk.op.Mul(known.rows.count(walk.op), others)
    walk.set_size(
        node.outputs[0], now, [extent if others == 1 else Extent(extent.bound * others, ("Mul", extent.key, others))]
    )


@_rule("ConstantOfShape", "Expand")
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
        rows = _rows_of(walk, extent, node.inputs[-1], axis - (rank - len(target)))
    sizes = [rows.size if at == axis else size if isinstance(size, int) else 1 for at, size in enumerate(padded)]
    if known is not None:
        sizes[axis] = 1  # it has the size already
    inputs = [walk.op.constant(sizes, _INT)] if value is None else [walk.dense(value), walk.op.constant(sizes, _INT)]
    (result,) = walk.again(node, inputs)
    walk.set(node.outputs[0], result, axis, rows)


def _rows_of(walk: Walk, extent: Extent, source: ir.Value | None, place: int | None) -> Rows:
    """Rows of as many valid positions as a size says."""
    rows = walk.rows.counted(extent)
    if rows is not None:
        return rows
    assert source is not None
    now = walk.dense(source)
    if place is not None:
        now = walk.op.Gather(now, walk.op.constant(place), axis=0)
    return walk.rows.of_extent(walk.op, extent, now)


@_rule("Range")
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


# -- picking -----------------------------------------------------------------------------------------------------------


@_rule("Gather")
def _gather(walk: Walk, node: ir.Node) -> None:
    data, indices = _data(node), _data(node, 1)
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
        places = op.Gather(source.rows.places(op), walk.dense(indices), axis=0)
        result = op.Gather(walk.ranked(source), places, axis=axis)
        _hand_over(walk, node.outputs[0], result)
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


@_rule("GatherND")
def _gather_nd(walk: Walk, node: ir.Node) -> None:
    data, indices = _data(node), _data(node, 1)
    source, picks = walk.ragged.get(data), walk.ragged.get(indices)
    batch = node.attributes.get_int("batch_dims", 0)
    if batch:
        _row_by_row(walk, node, lambda axis: axis, allowed=lambda axis: axis < batch)
        return
    rank = len(walk.shape(indices))
    if picks is None or picks.axis == rank - 1:
        raise Refusal("GatherND at places whose number does not depend on data")
    if source is not None and (source.axis != 0 or not source.rows.is_prefix):
        raise Refusal("GatherND along an axis whose size depends on data")
    result = walk.op.GatherND(walk.dense(data), walk.dense(indices))
    walk.set(node.outputs[0], result, picks.axis, picks.rows)


@_rule("GatherElements")
def _gather_elements(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
    axis = node.attributes.get_int("axis", 0) % len(walk.shape(value))
    _row_by_row(walk, node, lambda ragged: ragged, allowed=lambda ragged: ragged != axis)


@_rule("TopK")
def _top_k(walk: Walk, node: ir.Node) -> None:
    value, k = _data(node), _data(node, 1)
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
        dense = _filled(walk, known, dense, "lowest" if largest else "highest")
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


@_rule("Slice")
def _slice(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
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
    value = _data(node)
    steps = walk.vector_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if starts is None or ends is None or steps != [1] or not all(isinstance(one, int) for one in (*starts, *ends)):
        raise Refusal("Slice picks sizes at computed places")
    (now,) = walk.again(node, [walk.dense(value), *node.inputs[1:]])
    walk.set_size(node.outputs[0], now, walk.extents[value][starts[0] : ends[0]])


def _slice_to_size(
    walk: Walk, node: ir.Node, axes: Sequence[int], starts: Any, ends: Any, steps: Sequence[int]
) -> None:
    """The first so many of a dense axis, as many as a size says."""
    value = _data(node)
    if len(axes) != 1 or starts[0] != 0 or steps[0] != 1 or not isinstance(ends[0], Extent):
        raise Refusal("Slice of a fixed tensor to a size that depends on data")
    axis = axes[0]
    size = min(ends[0].bound, walk.shape(value)[axis])
    dense = walk.op.Slice(walk.dense(value), [0], [size], [axis], [1])
    rows = _rows_of(walk, ends[0], node.inputs[2], 0)
    if rows.size != size or not rows.is_prefix:
        assert node.inputs[2] is not None
        rows = walk.rows.prefix(size, ("of", ends[0].key, size), walk.scalar(node.inputs[2]))
    walk.set(node.outputs[0], dense, axis, rows)


@_rule("Split")
def _split(walk: Walk, node: ir.Node) -> None:
    value = _data(node)
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


@_rule("Concat")
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
