"""Tensors made from nothing: ranges, fills, identity matrices.  Fixed and small, they are initializers, not nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import to_torch_dtype

from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_DOUBLE = ir.DataType.DOUBLE
_INT64 = ir.DataType.INT64

# Elements up to which a tensor known now is written into the file rather than made at run time: 256 KiB of float32.
_WRITTEN_OUT: Final = 65536


def _known(op: Emitter) -> tuple[int, ...] | None:
    """The result's shape when it is fixed and small enough to write out."""
    shape = tuple(op.result_dims())
    count = 1
    for size in shape:
        if not isinstance(size, int):
            return None
        count *= size
    return tuple(size for size in shape if isinstance(size, int)) if count <= _WRITTEN_OUT else None


# -- fills -------------------------------------------------------------------------------------------------------------


def filled(op: Emitter, dims: Sequence[Dim] | ir.Value, number: Any) -> ir.Value:
    """A tensor of the result's dtype that holds one number everywhere.

    ``dims`` are the sizes, or a tensor of the same shape to take them from at run time.
    """
    dtype = op.dtype_of()
    shape = _known(op)
    if isinstance(number, int | float) and shape is not None:
        return op.tensor(torch.full(shape, number, dtype=to_torch_dtype(dtype)))
    if isinstance(dims, ir.Value):
        fixed = op.result_dims()
        if all(isinstance(size, int) for size in fixed):
            sizes: Any = [size for size in fixed if isinstance(size, int)]
        else:
            sizes = op.Shape(dims)
    else:
        sizes = op.vector(dims)
    if not isinstance(number, int | float):
        return op.Expand(op.operand(number, dtype), sizes)
    if dtype == ir.DataType.BFLOAT16:
        return op.Expand(op.scalar(number, dtype), sizes)
    value = ir.tensor(torch.full((1,), number, dtype=to_torch_dtype(dtype)).numpy())
    return op.ConstantOfShape(sizes, value=value)


@lowers("aten.zeros.default")
def zeros(op: Emitter, size: Sequence[Dim], **_: Any) -> ir.Value:
    """Zeros."""
    return filled(op, size, 0)


@lowers("aten.ones.default")
def ones(op: Emitter, size: Sequence[Dim], **_: Any) -> ir.Value:
    """Ones."""
    return filled(op, size, 1)


@lowers("aten.empty.memory_format", "aten.empty_permuted.default", "aten.empty_strided.default")
def empty(op: Emitter, size: Sequence[Dim], *_: Any, **__: Any) -> ir.Value:
    """Memory that the program will write: zeros, so that every run gives the same."""
    return filled(op, size, 0)


@lowers("aten.full.default")
def full(op: Emitter, size: Sequence[Dim], fill_value: Any, **_: Any) -> ir.Value:
    """One number everywhere."""
    return filled(op, size, fill_value)


@lowers("aten.new_zeros.default", "aten.new_empty.default", "aten.new_empty_strided.default")
def new_zeros(op: Emitter, x: ir.Value, size: Sequence[Dim], *_: Any, **__: Any) -> ir.Value:
    """Zeros, which stand for memory not yet written too."""
    return filled(op, size, 0)


@lowers("aten.new_ones.default")
def new_ones(op: Emitter, x: ir.Value, size: Sequence[Dim], **_: Any) -> ir.Value:
    """Ones."""
    return filled(op, size, 1)


@lowers("aten.new_full.default")
def new_full(op: Emitter, x: ir.Value, size: Sequence[Dim], fill_value: Any, **_: Any) -> ir.Value:
    """One number everywhere."""
    return filled(op, size, fill_value)


@lowers("aten.zeros_like.default", "aten.empty_like.default")
def zeros_like(op: Emitter, x: ir.Value, **_: Any) -> ir.Value:
    """Zeros in the shape of x."""
    return filled(op, x, 0)


@lowers("aten.ones_like.default")
def ones_like(op: Emitter, x: ir.Value, **_: Any) -> ir.Value:
    """Ones in the shape of x."""
    return filled(op, x, 1)


@lowers("aten.full_like.default")
def full_like(op: Emitter, x: ir.Value, fill_value: Any, **_: Any) -> ir.Value:
    """One number in the shape of x."""
    return filled(op, x, fill_value)


@lowers("aten.scalar_tensor.default")
def scalar_tensor(op: Emitter, value: Any, **_: Any) -> ir.Value:
    """A number as a tensor."""
    return op.scalar(value, op.dtype_of())


# -- ranges ------------------------------------------------------------------------------------------------------------


@lowers("aten.arange.default")
def arange(op: Emitter, end: Any, **_: Any) -> ir.Value:
    """0, 1, ... below ``end``."""
    return arange_step(op, 0, end, 1)


@lowers("aten.arange.start")
def arange_start(op: Emitter, start: Any, end: Any, **_: Any) -> ir.Value:
    """``start``, ``start`` + 1, ... below ``end``."""
    return arange_step(op, start, end, 1)


@lowers("aten.arange.start_step")
def arange_step(op: Emitter, start: Any, end: Any, step: Any = 1, **_: Any) -> ir.Value:
    """Start, start + step, ... before end."""
    dtype = op.dtype_of()
    if all(isinstance(number, int | float) for number in (start, end, step)) and _known(op) is not None:
        return op.tensor(torch.arange(start, end, step, dtype=to_torch_dtype(dtype)))
    kind = _INT64 if all(_is_whole(number) for number in (start, end, step)) else _DOUBLE
    numbers = [op.scalar(number, kind) for number in (start, end, step)]
    return op.cast(op.Range(*numbers), dtype)


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) or getattr(number, "dtype", None) == _INT64


@lowers(
    "aten.hamming_window.default",
    "aten.hamming_window.periodic",
    "aten.hamming_window.periodic_alpha",
    "aten.hamming_window.periodic_alpha_beta",
)
def hamming_window(
    op: Emitter, length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, **_: Any
) -> ir.Value:
    """A window; ONNX's HammingWindow has 25/46 and 21/46 where torch has 0.54 and 0.46."""
    return op.tensor(torch.hamming_window(length, periodic, alpha, beta, dtype=to_torch_dtype(op.dtype_of())))


@lowers("aten.linspace.default")
def linspace(op: Emitter, start: Any, end: Any, steps: Dim, **_: Any) -> ir.Value:
    """``steps`` numbers from start to end, both included; counted from the nearer end, as torch does.

    Among integers the ends are integers first, then what lies between loses its fraction.
    """
    dtype = op.dtype_of()
    numbers = isinstance(start, int | float) and isinstance(end, int | float)
    if numbers and isinstance(steps, int) and _known(op) is not None:
        return op.tensor(torch.linspace(start, end, steps, dtype=to_torch_dtype(dtype)))
    count = op.scalar(steps, _INT64)
    index = op.cast(op.Range(0, count, 1), _DOUBLE)
    first, last = (op.cast(op.scalar(number, dtype), _DOUBLE) for number in (start, end))
    final = op.cast(op.Max(op.Sub(count, 1), 1), _DOUBLE)
    step = op.Div(op.Sub(last, first), final)
    low = op.Add(first, op.Mul(step, index))
    high = op.Sub(last, op.Mul(step, op.Sub(final, index)))
    halfway = op.Less(op.Mul(index, 2.0), final)
    single = op.Where(op.Less(count, 2), low, high)
    return op.cast(op.Where(halfway, low, single), dtype)


@lowers(
    "aten.linspace.Tensor_Tensor",
    "aten.linspace.Tensor_Scalar",
    "aten.linspace.Scalar_Tensor",
)
def linspace_tensor(op: Emitter, start: Any, end: Any, steps: Dim, **keywords: Any) -> ir.Value:
    """Linspace between ends known at run time only."""
    return linspace(op, start, end, steps, **keywords)


@lowers("aten.eye.default", "aten.eye.m")
def eye(op: Emitter, n: Dim, m: Dim | None = None, **_: Any) -> ir.Value:
    """The identity matrix."""
    dtype = op.dtype_of()
    shape = _known(op)
    if shape is not None:
        return op.tensor(torch.eye(*shape, dtype=to_torch_dtype(dtype)))
    rows = op.Unsqueeze(op.Range(0, op.scalar(n, _INT64), 1), [1])
    columns = op.Unsqueeze(op.Range(0, op.scalar(n if m is None else m, _INT64), 1), [0])
    return op.cast(op.Equal(rows, columns), dtype)


@lowers("aten.tril_indices.default", "aten.triu_indices.default")
def triangle_indices(op: Emitter, row: int, col: int, offset: int = 0, **_: Any) -> ir.Value:
    """Rows and columns of a triangle, known now."""
    make = torch.tril_indices if "tril" in op.target else torch.triu_indices
    return op.tensor(make(row, col, offset, dtype=to_torch_dtype(op.dtype_of())))
