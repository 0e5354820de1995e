"""What a write through a view does to its base: the inverse of every view operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphforge.frontend.aliasing import NotInvertible
from graphforge.frontend.aten.replace import diagonal_replaced, select_replaced, slice_replaced, windows_replaced
from graphforge.frontend.emitter import Dim, Emitter

__all__ = ["written_back"]

# The general inverse keeps one int64 for every element of the base.
_MAX_ELEMENTS = 1 << 24
_MAX_INT64 = 2**63 - 1

_SAME = set(
    "alias detach lift_fresh contiguous to type_as dropout feature_dropout alpha_dropout feature_alpha_dropout "
    "positive resolve_conj resolve_neg conj real data".split()
)
_RESHAPED = set(
    "view reshape _unsafe_view _reshape_alias flatten unflatten ravel squeeze unsqueeze view_as reshape_as atleast_1d "
    "atleast_2d atleast_3d".split()
)
_PERMUTED = set("transpose swapaxes swapdims t permute movedim moveaxis numpy_T mT mH matrix_H adjoint".split())
_EXPANDED = {"expand", "expand_as", "broadcast_to", "broadcast_tensors", "meshgrid"}


def written_back(
    op: Emitter,
    target: torch._ops.OpOverload,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    base: ir.Value,
    new: ir.Value,
    piece: int | None,
    sizes: Sequence[Any],
) -> ir.Value:
    """The base's new value after its view was overwritten by ``new``.

    Args:
        op: where to emit.
        target: the view operator.
        arguments: its arguments as a lowering rule receives them.
        keywords: likewise.
        base: the base's value before the write.
        new: the view's value after the write.
        piece: which result of the operator the view is, None for an operator with one result.
        sizes: captured shapes of all results of the operator.

    Raises:
        NotInvertible: the operator has no inverse that we know.
    """
    name = str(target).split(".")[1].removesuffix("_")
    named = _by_name(target, arguments, keywords)
    if name in _SAME:
        return new
    if name in _RESHAPED or (name in _EXPANDED and _keeps_count(base, new)):
        return op.reshape(new, op.dims(base))
    if name in _PERMUTED:
        perm = _permutation(target, op.rank(base), arguments, keywords)
        return op.transpose(new, [perm.index(axis) for axis in range(len(perm))])
    inverse = _INVERSES.get(name)
    if inverse is not None:
        result = inverse(op, named, base, new, piece, sizes)
        if result is not None:
            return result
    return _by_position(op, target, arguments, keywords, base, new, piece)


def _by_name(target: torch._ops.OpOverload, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for position, argument in enumerate(target._schema.arguments):
        if position < len(arguments):
            named[argument.name] = arguments[position]
        elif argument.name in keywords:
            named[argument.name] = keywords[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def _keeps_count(base: ir.Value, new: ir.Value) -> bool:
    """Whether an expanded view has as many elements as its base, so that it only gained axes of size 1."""
    assert base.shape is not None
    assert new.shape is not None

    def left(shape: ir.Shape) -> list[str]:
        return sorted(str(dim) for dim in shape.dims if dim != 1)

    return left(base.shape) == left(new.shape)


def _permutation(
    target: torch._ops.OpOverload, rank: int, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> list[int]:
    """Which axis of the operand each axis of the result is: seen by running the operator on axes of different sizes."""
    probe = torch.empty([axis + 2 for axis in range(rank)], device="meta")
    return [size - 2 for size in target(probe, *arguments[1:], **keywords).shape]


Inverse = Callable[[Emitter, Mapping[str, Any], ir.Value, ir.Value, int | None, Sequence[Any]], ir.Value | None]


def _axis(op: Emitter, base: ir.Value, named: Mapping[str, Any]) -> int:
    dim: int = named.get("dim", 0)
    return dim % op.rank(base)


def _select(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    return select_replaced(op, base, new, _axis(op, base, named), named["index"])


def _slice(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    return slice_replaced(op, base, new, _axis(op, base, named), named["start"], named["end"], named["step"])


def _narrow(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    start, axis = named["start"], _axis(op, base, named)
    length = op.size(new, axis)
    if not isinstance(start, int) or not isinstance(length, int):
        return None
    end = start + length
    return slice_replaced(op, base, new, axis, start, _MAX_INT64 if start < 0 <= end else end, 1)


def _unbind(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    assert piece is not None
    return select_replaced(op, base, new, _axis(op, base, named), piece)


def _split(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    assert piece is not None
    axis = _axis(op, base, named)
    lengths = [shape[axis] for shape in sizes]
    before, after = lengths[:piece], lengths[piece + 1 :]
    if all(isinstance(length, int) for length in lengths[: piece + 1]):
        end = None if not after else sum(before) + lengths[piece]
        return slice_replaced(op, base, new, axis, sum(before), end, 1)
    if all(isinstance(length, int) for length in after):
        # sizes before it are dynamic: count from the end
        rest = op.slice(base, axis, -sum(after), _MAX_INT64) if after else None
        if not before:
            return op.Concat(new, rest, axis=axis) if rest is not None else new
    return None


def _diagonal(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    return diagonal_replaced(op, base, new, named["offset"], named["dim1"], named["dim2"])


def _unfold(
    op: Emitter, named: Mapping[str, Any], base: ir.Value, new: ir.Value, piece: int | None, sizes: Sequence[Any]
) -> ir.Value | None:
    if op.rank(base) == 0 or all(isinstance(dim, int) for dim in op.dims(base)):
        return None
    return windows_replaced(op, base, new, named["dimension"] % op.rank(base), named["size"], named["step"])


_INVERSES: dict[str, Inverse] = {
    "select": _select,
    "slice": _slice,
    "narrow": _narrow,
    "unbind": _unbind,
    **dict.fromkeys(
        ("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"), _split
    ),
    "diagonal": _diagonal,
    "unfold": _unfold,
}


def _by_position(
    op: Emitter,
    target: torch._ops.OpOverload,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    base: ir.Value,
    new: ir.Value,
    piece: int | None,
) -> ir.Value:
    """Any view of a tensor with fixed sizes: apply it to the elements' positions, and see where each has gone."""
    name = str(target)
    dims = op.dims(base)
    fixed = [dim for dim in dims if isinstance(dim, int)]
    leaves = [*arguments[1:], *keywords.values()]
    known = not isinstance(arguments[0], list) and all(
        isinstance(leaf, int | bool | str | list | None) for leaf in leaves
    )
    if (
        len(fixed) < len(dims)
        or not known
        or isinstance(arguments[0], list)
        or "as_strided" in name
        or ".dtype" in name
    ):
        raise NotInvertible(f"a write through {target}")
    count = math.prod(fixed)
    if count > _MAX_ELEMENTS:
        raise NotInvertible(f"a write through {target} of {count} elements")
    positions = torch.arange(count).reshape(fixed)
    seen = target(positions, *arguments[1:], **keywords)
    taken = (seen if piece is None else seen[piece]).reshape(-1).numpy()
    if len(np.unique(taken)) != len(taken):
        raise NotInvertible(f"a write through {target}, where elements overlap")
    order = np.arange(count, dtype=np.int64)
    order[taken] = count + np.arange(len(taken), dtype=np.int64)
    both = op.Concat(op.reshape(base, [count]), op.reshape(new, [len(taken)]), axis=0)
    target_dims: list[Dim] = [*dims]
    return op.reshape(op.Gather(both, order, axis=0), target_dims)
