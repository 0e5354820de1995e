"""Pair: a complex value as two real ones, and what capture's facts about it look like to a rule for real numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import from_torch_dtype

from graphforge.frontend.emitter import Emitter, SymbolicScalar

__all__ = [
    "Pair",
    "Stored",
    "as_pair",
    "component_dtype",
    "holds_complex",
    "holds_pairs",
    "is_complex",
    "real_facts",
    "real_fake",
    "stacked",
    "unstacked",
    "zeros_like",
]

_PARTS = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A complex value: two real ones of one shape and dtype."""

    real: ir.Value
    imag: ir.Value


Stored: TypeAlias = ir.Value | Pair


def is_complex(fake: Any) -> bool:
    """Whether a captured fact is that of a complex tensor."""
    return isinstance(fake, torch.Tensor) and fake.is_complex()


def holds_complex(fake: Any) -> bool:
    """Whether a complex tensor is among captured facts, nested lists included."""
    if isinstance(fake, list | tuple):
        return any(holds_complex(item) for item in fake)
    return is_complex(fake)


def holds_pairs(value: Any) -> bool:
    """Whether a pair is among arguments, nested lists included."""
    if isinstance(value, list | tuple):
        return any(holds_pairs(item) for item in value)
    if isinstance(value, dict):
        return any(holds_pairs(item) for item in value.values())
    return isinstance(value, Pair)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the parts of a complex dtype; any other as it is."""
    return _PARTS.get(dtype, dtype)


def real_fake(fake: Any) -> Any:
    """A captured fact as it would be of either part: complex tensors become real ones, lists are followed."""
    if isinstance(fake, list | tuple):
        return [real_fake(item) for item in fake]
    if isinstance(fake, torch.dtype):
        return real_dtype(fake)
    if not is_complex(fake):
        return fake
    with getattr(fake, "fake_mode", None) or contextlib.nullcontext():
        return torch.empty_strided(fake.shape, fake.stride(), dtype=_PARTS[fake.dtype], device=fake.device)


@contextlib.contextmanager
def real_facts(op: Emitter, result: Any = None) -> Iterator[None]:
    """Inside, the operator being lowered looks like one on real numbers.

    Args:
        op: the emitter.
        result: what the captured program says it returns, where it is not that of the operator.
    """
    before = op.result, op.inputs
    op.result = real_fake(op.result if result is None else result)
    op.inputs = tuple(real_fake(item) for item in op.inputs)
    try:
        yield
    finally:
        op.result, op.inputs = before


def component_dtype(op: Emitter, *operands: Any) -> ir.DataType:
    """The dtype of the parts that the operator computes in: that of its complex result, else the widest operand's."""
    first = op.result[0] if isinstance(op.result, list | tuple) and op.result else op.result
    if is_complex(first):
        return from_torch_dtype(_PARTS[first.dtype])
    dtypes = [operand.real.dtype for operand in operands if isinstance(operand, Pair)]
    return max((dtype for dtype in dtypes if dtype is not None), key=lambda dtype: dtype.bitwidth)


def zeros_like(op: Emitter, value: ir.Value) -> ir.Value:
    """Zeros of a value's shape and dtype."""
    assert value.dtype is not None
    return op.expand(op.constant(0.0, value.dtype), op.dims(value))


def as_pair(op: Emitter, value: Any, dtype: ir.DataType) -> Pair:
    """Any tensor or number argument as a pair with parts of ``dtype``."""
    if isinstance(value, Pair):
        return Pair(op.cast(value.real, dtype), op.cast(value.imag, dtype))
    if isinstance(value, ir.Value):
        real = op.cast(value, dtype)
        return Pair(real, zeros_like(op, real))
    if isinstance(value, SymbolicScalar):
        return Pair(op.scalar(value, dtype), op.constant(0.0, dtype))
    number = complex(value)
    return Pair(op.constant(number.real, dtype), op.constant(number.imag, dtype))


def stacked(op: Emitter, pair: Pair) -> ir.Value:
    """A pair as one real value with a last axis of two: what ``torch.view_as_real`` returns."""
    return op.Concat(op.Unsqueeze(pair.real, [-1]), op.Unsqueeze(pair.imag, [-1]), axis=-1)


def unstacked(op: Emitter, value: ir.Value) -> Pair:
    """A real value with a last axis of two as a pair: what ``torch.view_as_complex`` returns."""
    zero, one = (op.constant(index, ir.DataType.INT64) for index in (0, 1))
    return Pair(op.Gather(value, zero, axis=-1), op.Gather(value, one, axis=-1))
