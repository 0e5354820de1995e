"""What a write through a view of a complex tensor does to its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from graphforge.frontend.complex.pair import Pair, Stored, real_facts, stacked, unstacked
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.inverse import written_back

__all__ = ["stored_back"]

_CONJUGATED = ("conj", "_conj")
_TURNED = ("mH", "matrix_H", "adjoint")


def stored_back(
    op: Emitter,
    target: torch._ops.OpOverload,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    base: Stored,
    new: Stored,
    piece: int | None,
    sizes: Sequence[Any],
) -> Stored:
    """``written_back`` for bases and views of which either may be complex."""
    if isinstance(base, ir.Value) and isinstance(new, ir.Value):
        return written_back(op, target, arguments, keywords, base, new, piece, sizes)
    name = str(target).split(".")[1].removesuffix("_")
    if isinstance(base, ir.Value):  # view_as_complex
        assert isinstance(new, Pair)
        return stacked(op, new)
    if isinstance(new, ir.Value):
        if name == "real":
            return Pair(new, base.imag)
        if name == "imag":
            return Pair(base.real, new)
        return unstacked(op, new)  # view_as_real
    if name in (*_CONJUGATED, *_TURNED):
        new = Pair(new.real, op.Neg(new.imag))
    if name in _CONJUGATED:
        return new

    def part(which: str) -> ir.Value:
        given = [getattr(item, which) if isinstance(item, Pair) else item for item in arguments]
        with real_facts(op):
            return written_back(op, target, given, keywords, getattr(base, which), getattr(new, which), piece, sizes)

    return Pair(part("real"), part("imag"))
