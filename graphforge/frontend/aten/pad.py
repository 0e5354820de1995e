"""Padding: constant, reflect, replicate, circular."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphforge.frontend.aten.view import empty
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__ = ["padded"]

_END = 2**63 - 1
_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(
    op: Emitter, x: ir.Value, padding: Sequence[Dim], mode: str, value: float | Dim | ir.Value | None
) -> ir.Value:
    """Pad by torch's list of sizes: (before, after) of the last axis first.  Negative sizes crop."""
    rank = op.rank(x)
    if all(size == 0 for size in padding):
        return x
    begins: list[Dim] = [0] * rank
    ends: list[Dim] = [0] * rank
    for position in range(len(padding) // 2):
        begins[rank - 1 - position] = padding[2 * position]
        ends[rank - 1 - position] = padding[2 * position + 1]
    if 0 in op.result_dims() and all(isinstance(size, int) for size in op.result_dims()):
        return empty(op)
    if mode != "constant" and any(isinstance(size, int) and size < 0 for size in padding):
        grow: list[Dim] = [max(size, 0) if isinstance(size, int) else size for size in padding]
        crop: list[Dim] = [min(size, 0) if isinstance(size, int) else 0 for size in padding]
        if mode == "circular":  # what was cropped away does not come back on the other side
            return padded(op, padded(op, x, crop, "constant", None), grow, mode, value)
        return padded(op, padded(op, x, grow, mode, value), crop, "constant", None)
    known = [size for size in padding if isinstance(size, int)]
    empty_at_times = any(size == 0 or (isinstance(size, str) and op.may_be_zero(size)) for size in op.result_dims())
    if mode == "circular" and empty_at_times and len(known) == len(padding):
        return _around(op, x, known)
    dtype = x.dtype
    assert dtype is not None
    fill = None if mode != "constant" or value is None or op.number(value) == 0 else op.scalar(value, dtype)
    return op.Pad(x, op.vector([*begins, *ends]), fill, mode=None if mode == "constant" else _MODES[mode])


def _around(op: Emitter, x: ir.Value, padding: Sequence[int]) -> ir.Value:
    """Mode wrap in pieces: ONNX Runtime's Pad does not take it where there are no elements."""
    for position in range(len(padding) // 2):
        before, after = padding[2 * position : 2 * position + 2]
        axis = op.rank(x) - 1 - position
        pieces = [op.Slice(x, [-before], [_END], [axis])] if before else []
        pieces += [x, *([op.Slice(x, [0], [after], [axis])] if after else [])]
        x = op.Concat(*pieces, axis=axis) if len(pieces) > 1 else x
    return x


@lowers("aten.constant_pad_nd.default")
def constant_pad(op: Emitter, x: ir.Value, pad: Sequence[Dim], value: float = 0) -> ir.Value:
    """A border of one value."""
    return padded(op, x, pad, "constant", value)


@lowers("aten.pad.default")
def pad(op: Emitter, x: ir.Value, pad: Sequence[Dim], mode: str = "constant", value: float | None = None) -> ir.Value:
    """A border of one value, or made of the tensor itself."""
    return padded(op, x, pad, mode, value)


# torch's enumeration at::padding_mode
_NUMBERED = ("reflect", "replicate", "circular", "constant")


@lowers("aten._pad_enum.default")
def pad_enum(op: Emitter, x: ir.Value, pad: Sequence[Dim], mode: int, value: float | None = None) -> ir.Value:
    """``pad`` with the mode as a number."""
    return padded(op, x, pad, _NUMBERED[mode], value)


@lowers("aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.reflection_pad3d.default")
def reflection_pad(op: Emitter, x: ir.Value, padding: Sequence[Dim]) -> ir.Value:
    """A border that mirrors the tensor about its edge elements."""
    return padded(op, x, padding, "reflect", None)


@lowers("aten.replication_pad1d.default", "aten.replication_pad2d.default", "aten.replication_pad3d.default")
def replication_pad(op: Emitter, x: ir.Value, padding: Sequence[Dim]) -> ir.Value:
    """A border that repeats the edge elements."""
    return padded(op, x, padding, "replicate", None)


@lowers("aten._pad_circular.default")
def circular_pad(op: Emitter, x: ir.Value, pad: Sequence[Dim]) -> ir.Value:
    """A border that continues on the other side."""
    return padded(op, x, pad, "circular", None)
