"""While capturing: pieces of a dynamic size are described by their shapes alone, without a condition on the size.

``tensor_split``: torch computes the sizes of the pieces in plain numbers, the example's, or under a condition on the
remainder.  Piece i of k of a size n has ``(n - i + k - 1) // k`` elements, whatever the remainder.

``x[2:-3]``: torch asks whether the bounds lie inside the axis and in order, and takes the example's answer for every
size.  Where the promised sizes lie on both sides of such a bound, the size of the slice is written with min and max.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

__all__ = ["piece_shapes"]

_MAX = 2**63 - 1


def _tensor_split(x: torch.Tensor, sections: Any, dim: int = 0) -> list[torch.Tensor]:
    axis = dim % x.dim()
    size: Any = x.shape[axis]
    if not isinstance(sections, int) or sections < 1:
        raise RuntimeError(f"number of sections must be larger than 0, got {sections}")
    pieces, start = [], 0
    for piece in range(sections):
        length = (size - piece + sections - 1) // sections
        offset: Any = x.storage_offset() + start * x.stride(axis)
        pieces.append(x.as_strided([*x.shape[:axis], length, *x.shape[axis + 1 :]], x.stride(), offset))
        start = start + length
    return pieces


def _slice_of(original: Callable[..., Any]) -> Callable[..., Any]:
    """The description of slices, in place of torch's own where promised sizes lie on both sides of a bound."""

    def described(
        mode: Any, function: Any, x: torch.Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
    ) -> Any:
        size: Any = x.shape[dim] if x.dim() else 0
        first, last = 0 if start is None else start, _MAX if end is None else end
        if not isinstance(size, torch.SymInt) or type(first) is not int or type(last) is not int:
            return original(mode, function, x, dim, start, end, step)
        low, high = _bounds(size)
        if low is None:
            return original(mode, function, x, dim, start, end, step)
        high = _MAX if high is None else high  # promised without an end
        axis = dim % x.dim()
        begin, stop = _inside(first, size, low, high), _inside(last, size, low, high)
        length = stop - begin
        least, most = _bounds(length) if isinstance(length, torch.SymInt) else (length, length)
        ordered = least is not None and least >= 0
        if ordered and _settled(first, low, high) and _settled(last, low, high):
            return original(mode, function, x, dim, start, end, step)
        if most is not None and most <= 0:
            length = 0
        elif not ordered:
            length = torch.sym_max(length, 0)
        strides = [*x.stride()[:axis], x.stride(axis) * step, *x.stride()[axis + 1 :]]
        offset: Any = x.storage_offset() + begin * x.stride(axis)
        return x.as_strided([*x.shape[:axis], (length + step - 1) // step, *x.shape[axis + 1 :]], strides, offset)

    return described


def _bounds(size: Any) -> tuple[int | None, int | None]:
    """The promised range of a size; None where it has no end, or where the size depends on data."""
    if not size.node.has_hint():
        return None, None
    found = size.node.shape_env.bound_sympy(size.node.expr)
    low, high = (int(end) if end.is_Integer else None for end in (found.lower, found.upper))
    return low, high


def _settled(index: int, low: int, high: int) -> bool:
    """Whether a bound lies inside the axis, or beyond its end, at every size."""
    return abs(index) <= low or abs(index) >= high


def _inside(index: int, size: Any, low: int, high: int) -> Any:
    """A bound as a position from 0 to the size."""
    if index >= 0:
        return index if index <= low else size if index >= high else torch.sym_min(index, size)
    return size + index if -index <= low else 0 if -index >= high else torch.sym_max(size + index, 0)


@contextmanager
def piece_shapes() -> Iterator[None]:
    """Describe ``tensor_split`` and slices by their shapes while the context lasts."""
    described = torch.ops.aten.tensor_split.sections
    kernels = dict(described.py_kernels)
    implementations = vars(import_module("torch._subclasses.fake_impls"))["op_implementations_dict"]
    slices = torch.ops.aten.slice.Tensor
    original = implementations[slices]
    try:
        implementations[slices] = _slice_of(original)
        for key in (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd):
            described.py_kernels[key] = _tensor_split
        described._dispatch_cache.clear()
        yield
    finally:
        implementations[slices] = original
        described.py_kernels.clear()
        described.py_kernels.update(kernels)
        described._dispatch_cache.clear()
