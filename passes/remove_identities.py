"""Remove nodes that give back what they got: Identity, no-op Cast, Reshape, Transpose, Pad, ..., x + 0, x * 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from graphforge.ir import Graph, Node, Value, constant_of, nodes_of
from graphforge.transform import Pass, Rewriter, dims_of, int_attribute, ints_attribute, rank_of, scalar_of

__all__ = ["RemoveIdentities"]

# x + 0 and x * 1 are looked for in constants of at most this many elements.
_LIMIT = 1 << 24
# An end of a Slice from here on means "to the end": what exporters write is INT64_MAX, INT32_MAX or a bit less.
_TO_THE_END = 2**31 - 2


@dataclass(frozen=True)
class RemoveIdentities(Pass):
    """One walk; a node is removed when its result is its input, whatever the input's elements."""

    name: ClassVar[str] = "remove-identities"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Remove them from the graph and its bodies."""
        for node in nodes_of(graph):
            equal_to = _EQUALS.get(node.op_type) if node.domain == "" else None
            if equal_to is None:
                continue
            found = equal_to(node)
            if isinstance(found, str):
                if found:
                    rewriter.declined(found, node)
                continue
            _remove(node, found, rewriter)


def _remove(node: Node, same: Value, rewriter: Rewriter) -> None:
    output = node.outputs[0]
    handed_out = output.is_graph_output()
    if handed_out and (same.producer() is None or same.graph is not node.graph or same.is_graph_output()):
        # The input cannot be the output itself; an Identity in the node's place would save nothing.
        if node.op_type == "Identity" and output._uses:
            rewriter.replace_value(output, same)
        return
    rewriter.replace(node, [same, *[None] * (len(node.outputs) - 1)])


# A test returns the value that the node's first output equals, or why it is not so ("" when nothing is worth saying).
Found: TypeAlias = Value | str


def _identity(node: Node) -> Found:
    return node.inputs[0] or ""


def _dropout(node: Node) -> Found:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None and scalar_of(training) is not False:
        return "the Dropout may be in training mode"
    if any(value._uses or value.is_graph_output() for value in node.outputs[1:]):
        return "the mask of the Dropout is read"
    return node.inputs[0] or ""


def _cast(node: Node) -> Found:
    source = node.inputs[0]
    if source is None or source.dtype is None or int_attribute(node, "to", 0) != source.dtype.value:
        return ""
    return source


def _cast_like(node: Node) -> Found:
    source, like = node.inputs[0], node.inputs[1]
    if source is None or like is None or source.dtype is None or source.dtype != like.dtype:
        return ""
    return source


def _same_shape(node: Node) -> Found:
    """Reshape, Flatten, Expand, Tile, ...: the elements keep their order, so equal dims make it an identity."""
    source = node.inputs[0]
    if source is None or not dims_equal(source, node.outputs[0]):
        return ""
    return source


def dims_equal(one: Value, other: Value, *, may_differ: int = 1) -> bool:
    """Whether two tensors of equally many elements certainly have the same dims.

    Args:
        one: a tensor.
        other: another one.
        may_differ: that many dims may be unknown: they follow from the number of elements (0 for tensors of which it
            is not known that they have equally many).
    """
    ours, theirs = dims_of(one), dims_of(other)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    unknown = 0
    symbols = False
    for left, right in zip(ours, theirs, strict=True):
        if isinstance(left, int) and isinstance(right, int):
            if left != right:
                return False
        elif isinstance(left, int) or isinstance(right, int) or left.value is None or left != right:
            unknown += 1
        else:
            symbols = True
    if unknown == 0:
        return True
    # One unknown dim follows from the others unless one of them is 0, when any size would fit.
    return unknown <= may_differ and not symbols and all(dim != 0 for dim in (*ours, *theirs))


def _certainly_same_shape(node: Node) -> Found:
    """Expand and Tile: the number of elements is not kept by itself."""
    source = node.inputs[0]
    if source is None or not dims_equal(source, node.outputs[0], may_differ=0):
        return _all_ones(node)
    return source


def _all_ones(node: Node) -> Found:
    """Expand to ones of no higher rank, Tile by ones."""
    source = node.inputs[0]
    if len(node.inputs) < 2 or source is None:
        return ""
    sizes = constant_of(node.inputs[1])
    if sizes is None or not (sizes == 1).all():
        return ""
    rank = rank_of(source)
    if node.op_type == "Expand" and (rank is None or len(sizes) > rank):
        return ""
    return source


def _transpose(node: Node) -> Found:
    perm = ints_attribute(node, "perm")
    rank = rank_of(node.inputs[0])
    if perm is None:
        return (node.inputs[0] or "") if rank is not None and rank <= 1 else ""
    return (node.inputs[0] or "") if perm == tuple(range(len(perm))) else ""


def _slice(node: Node) -> Found:
    source = node.inputs[0]
    starts, ends = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    if source is None or starts is None or ends is None:
        return ""
    steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    if steps is None or not (steps == 1).all():
        return ""
    dims = dims_of(source)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = constant_of(node.inputs[3])
        if axes is None:
            return ""
    else:
        axes = np.arange(len(starts))
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        dim = None if dims is None else dims[axis]
        size = dim if isinstance(dim, int) else None
        if start != 0 and (size is None or start > -size):
            return ""
        if end < _TO_THE_END and (size is None or end < size):
            return ""
    return source


def _pad(node: Node) -> Found:
    pads = constant_of(node.inputs[1])
    return (node.inputs[0] or "") if pads is not None and not pads.any() else ""


def _single(node: Node) -> Found:
    """Concat, Sum, Max, Min, Mean of one tensor."""
    return (node.inputs[0] or "") if len(node.inputs) == 1 else ""


def _split(node: Node) -> Found:
    return (node.inputs[0] or "") if len(node.outputs) == 1 else ""


def _clip(node: Node) -> Found:
    return (node.inputs[0] or "") if all(bound is None for bound in node.inputs[1:]) else ""


def _neutral(number: float, *, either_side: bool) -> Callable[[Node], Found]:
    """x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1."""

    def test(node: Node) -> Found:
        for kept, constant in ((0, 1), (1, 0)) if either_side else ((0, 1),):
            source, other = node.inputs[kept], node.inputs[constant]
            if source is None or other is None or other.const_value is None or source.const_value is not None:
                continue
            array = constant_of(other, limit=_LIMIT)
            if array is None or array.dtype.kind in "OSU" or not _all_are(array, number):
                continue
            if array.ndim <= (rank_of(source) or 0) and array.size == 1:
                return source  # a single element broadcasts to whatever the other is
            if dims_equal(source, node.outputs[0], may_differ=0):
                return source
            return f"{node.op_type} with {number} broadcasts, or the shape is unknown"
        return ""

    return test


def _all_are(array: np.ndarray, number: float) -> bool:
    """Whether all elements are the number; a few are looked at before all are."""
    return bool((array.reshape(-1)[:16] == number).all()) and bool((array == number).all())


def _where(node: Node) -> Found:
    condition = node.inputs[0]
    if condition is None or condition.const_value is None:
        return ""
    array = constant_of(condition, limit=_LIMIT)
    if array is None or array.size == 0:
        return ""
    if array.all():
        chosen = node.inputs[1]
    elif not array.any():
        chosen = node.inputs[2]
    else:
        return ""
    if chosen is None or not dims_equal(chosen, node.outputs[0], may_differ=0):
        return "the chosen branch of Where broadcasts"
    return chosen


def _reduce(node: Node) -> Found:
    """A sum, mean, maximum, ... over axes of size 1 that are kept."""
    source = node.inputs[0]
    if source is None or not int_attribute(node, "keepdims", 1):
        return ""
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if axes is not None and axes.size == 0 and int_attribute(node, "noop_with_empty_axes", 0):
        return source
    dims = dims_of(source)
    if dims is None or axes is None or axes.size == 0:
        return ""
    return source if all(dims[int(axis)] == 1 for axis in axes) else ""


def _pool(node: Node) -> Found:
    """A pooling with a window of one."""
    kernel = ints_attribute(node, "kernel_shape")
    strides, pads = ints_attribute(node, "strides"), ints_attribute(node, "pads")
    if (
        kernel is None
        or any(size != 1 for size in kernel)
        or any(size != 1 for size in strides or ())
        or any(pads or ())
    ):
        return ""
    if any(value._uses or value.is_graph_output() for value in node.outputs[1:]):
        return ""
    return node.inputs[0] or ""


def _global_pool(node: Node) -> Found:
    dims = dims_of(node.inputs[0])
    return (node.inputs[0] or "") if dims is not None and all(dim == 1 for dim in dims[2:]) else ""


def _resize(node: Node) -> Found:
    mode = node.attributes.get("coordinate_transformation_mode")
    policy = node.attributes.get("keep_aspect_ratio_policy")
    if mode is not None and mode.as_string() == "tf_crop_and_resize":
        return "tf_crop_and_resize takes a part of the input"
    if policy is not None and policy.as_string() != "stretch":
        return "the scale follows from the aspect ratio"
    scales = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scales is not None and scales.size and (scales == 1).all():
        return node.inputs[0] or ""
    source = node.inputs[0]
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if source is None or sizes is None or not dims_equal(source, node.outputs[0], may_differ=0):
        return ""
    return source


def _twice(inner_op: str) -> Callable[[Node], Found]:
    """An operator that undoes itself."""

    def test(node: Node) -> Found:
        source = node.inputs[0]
        producer = None if source is None else source.producer()
        if (
            producer is None
            or producer.op_type != inner_op
            or producer.domain != ""
            or producer.graph is not node.graph
        ):
            return ""
        return producer.inputs[0] or ""

    return test


def _idempotent(node: Node) -> Found:
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    if source is None or producer is None or producer.op_type != node.op_type or producer.domain != "":
        return ""
    return source


_EQUALS: dict[str, Callable[[Node], Found]] = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Expand": _certainly_same_shape,
    "Tile": _certainly_same_shape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Split": _split,
    "Clip": _clip,
    "Add": _neutral(0, either_side=True),
    "Sub": _neutral(0, either_side=False),
    "Mul": _neutral(1, either_side=True),
    "Div": _neutral(1, either_side=False),
    "Pow": _neutral(1, either_side=False),
    "And": _neutral(1, either_side=True),
    "Or": _neutral(0, either_side=True),
    "Where": _where,
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), _reduce),
    "AveragePool": _pool,
    "MaxPool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Resize": _resize,
    "Neg": _twice("Neg"),
    "Not": _twice("Not"),
    "Relu": _idempotent,
    "Abs": _idempotent,
    "Ceil": _idempotent,
    "Floor": _idempotent,
    "Round": _idempotent,
}
