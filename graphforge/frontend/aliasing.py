"""Views and in-place writes: how a write through a view reaches its base, without functionalising the whole program.

The captured program is not functional (``relu_``, ``x[:, 0] = v``).  A write to ``v`` gives ``v`` a new value; when
``v`` is a view, the write is scattered back into its base, up to the storage's root, and every other view of that root
is read afresh from the new base when it is used next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from graphforge.frontend.emitter import Emitter

__all__ = ["functional_name", "is_mutation", "scatter_back", "view_base"]

_SAME_STORAGE = {
    "aten.contiguous.default",
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten.to.device",
    "aten.to.other",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.type_as.default",
}


@functools.cache
def is_mutation(target: Any) -> bool:
    """Whether an operator writes to one of its arguments."""
    return isinstance(target, torch._ops.OpOverload) and bool(target._schema.is_mutable)


def functional_name(target: torch._ops.OpOverload) -> str:
    """The functional twin of an in-place operator: ``aten.relu_.default`` -> ``aten.relu.default``."""
    namespace, name, overload = str(target).split(".", 2)
    return f"{namespace}.{name.removesuffix('_')}.{overload}"


@functools.cache
def _aliased_argument(target: Any) -> int | None:
    if not isinstance(target, torch._ops.OpOverload):
        return None
    if str(target) in _SAME_STORAGE:
        return 0
    for returned in target._schema.returns:
        info = returned.alias_info
        if info is None:
            continue
        for position, argument in enumerate(target._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.before_set & info.before_set:
                return position
            if argument.alias_info is not None and "*" in info.after_set | argument.alias_info.after_set:
                return position
    return None


def view_base(node: torch.fx.Node) -> torch.fx.Node | None:
    """The node whose storage a view node shares, None for a node with storage of its own."""
    if node.op != "call_function":
        return None
    if getattr(node.target, "__name__", "") == "getitem" and isinstance(node.args[0], torch.fx.Node):
        return node.args[0] if view_base(node.args[0]) is not None else None
    position = _aliased_argument(node.target)
    if position is None or position >= len(node.args):
        return None
    base = node.args[position]
    if not isinstance(base, torch.fx.Node):
        return None
    if str(node.target) in _SAME_STORAGE:
        mine, theirs = node.meta.get("val"), base.meta.get("val")
        if not isinstance(mine, torch.Tensor) or not isinstance(theirs, torch.Tensor) or mine.dtype != theirs.dtype:
            return None
        if str(node.target) == "aten.contiguous.default" and not theirs.is_contiguous():
            return None
    if str(node.target) in ("aten.reshape.default", "aten.flatten.using_ints"):
        theirs = base.meta.get("val")
        if isinstance(theirs, torch.Tensor) and not theirs.is_contiguous():
            return None  # a copy was made; eager torch would have viewed only where strides allow
    return base


def scatter_back(
    op: Emitter, view: torch.fx.Node, base: ir.Value, new: ir.Value, argument: Callable[[Any], Any]
) -> ir.Value | None:
    """The base's new value after its view was overwritten by ``new``; None when we have no inverse for the view.

    Args:
        op: where to emit.
        view: the FX node that made the view.
        base: the base's value before the write.
        new: the view's value after the write.
        argument: maps an FX argument to what a lowering rule would receive.
    """
    name = str(view.target).split(".")[1] if "." in str(view.target) else ""
    args = [argument(arg) for arg in view.args]
    keywords = {key: argument(value) for key, value in view.kwargs.items()}
    if is_mutation(view.target) or str(view.target) in _SAME_STORAGE or name in ("alias", "detach", "lift_fresh", "view_as"):
        return new
    if name in ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "squeeze_"):
        return op.reshape(new, op.dims(base))
    rank = op.rank(base)
    if name in ("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT"):
        axes = (args[1], args[2]) if len(args) > 2 else (0, rank - 1) if rank > 1 else (0, 0)
        perm = list(range(rank))
        perm[axes[0] % rank], perm[axes[1] % rank] = perm[axes[1] % rank], perm[axes[0] % rank]
        return op.transpose(new, perm)
    if name == "permute":
        order = [axis % rank for axis in args[1]]
        return op.transpose(new, [order.index(axis) for axis in range(rank)])
    if name == "slice":
        axis = args[1] if len(args) > 1 else keywords.get("dim", 0)
        start = args[2] if len(args) > 2 else keywords.get("start")
        end = args[3] if len(args) > 3 else keywords.get("end")
        step = args[4] if len(args) > 4 else keywords.get("step", 1)
        return _slice_scatter(op, base, new, axis % rank, start, end, step)
    if name == "narrow":
        start, length = args[2], args[3]
        if isinstance(start, int) and isinstance(length, int):
            return _slice_scatter(op, base, new, args[1] % rank, start, start + length, 1)
        return None
    if name == "select":
        axis = args[1] % rank
        index = args[2]
        if not isinstance(index, int):
            return None
        size = op.size(base, axis)
        if index < 0 and not isinstance(size, int):
            return _slice_scatter(op, base, op.Unsqueeze(new, [axis]), axis, index, index + 1 if index != -1 else None, 1)
        index = index if index >= 0 or not isinstance(size, int) else index + size
        return _slice_scatter(op, base, op.Unsqueeze(new, [axis]), axis, index, index + 1, 1)
    if getattr(view.target, "__name__", "") == "getitem" and isinstance(view.args[0], torch.fx.Node):
        return _piece_scatter(op, view, base, new, argument)
    return None


def _slice_scatter(
    op: Emitter, base: ir.Value, new: ir.Value, axis: int, start: Any, end: Any, step: int
) -> ir.Value | None:
    """``base`` with ``base[..., start:end:step, ...]`` replaced by ``new``."""
    size = op.size(base, axis)
    start = 0 if start is None else start
    if isinstance(size, int) and isinstance(start, int) and (end is None or isinstance(end, int)):
        low, high, _ = slice(start, end, None).indices(size)
        if low == 0 and high == size and step == 1:
            return new
        if step == 1:
            pieces = []
            if low > 0:
                pieces.append(op.Slice(base, [0], [low], [axis], [1]))
            pieces.append(new)
            if high < size:
                pieces.append(op.Slice(base, [high], [size], [axis], [1]))
            joined: ir.Value = op.Concat(*pieces, axis=axis) if len(pieces) > 1 else new
            return joined
    # the general form: positions of the slice, cut out of 0..size-1 exactly as the data would be
    length = op.scalar(size, ir.DataType.INT64)
    positions = op.Range(op.constant(0), length, op.constant(1))
    stop = 2**63 - 1 if end is None else end
    positions = op.Slice(positions, op.vector([start]), op.vector([stop]), [0], [step])
    perm = [axis, *[a for a in range(op.rank(base)) if a != axis]]
    back = [perm.index(a) for a in range(op.rank(base))]
    rows = op.Unsqueeze(positions, [1])
    scattered = op.ScatterND(op.transpose(base, perm), rows, op.transpose(new, perm))
    return op.transpose(scattered, back)


def _piece_scatter(
    op: Emitter, view: torch.fx.Node, base: ir.Value, new: ir.Value, argument: Callable[[Any], Any]
) -> ir.Value | None:
    """A write to one result of split, chunk or unbind."""
    parent = view.args[0]
    assert isinstance(parent, torch.fx.Node)
    name = str(parent.target).split(".")[1]
    index = view.args[1]
    assert isinstance(index, int)
    args = [argument(arg) for arg in parent.args]
    keywords = {key: argument(value) for key, value in parent.kwargs.items()}
    rank = op.rank(base)
    pieces = parent.meta["val"]
    if name == "unbind":
        axis = (args[1] if len(args) > 1 else keywords.get("dim", 0)) % rank
        return _slice_scatter(op, base, op.Unsqueeze(new, [axis]), axis, index, index + 1, 1)
    if name in ("split", "split_with_sizes", "chunk", "tensor_split"):
        axis = (args[2] if len(args) > 2 else keywords.get("dim", 0)) % rank
        sizes = [piece.shape[axis] for piece in pieces]
        if not all(isinstance(size, int) for size in sizes):
            return None
        start = sum(sizes[:index])
        return _slice_scatter(op, base, new, axis, start, start + sizes[index], 1)
    return None
