"""What the artifact's runtime is known to compute otherwise than PyTorch, recognised in a run of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["known_arithmetic"]

# Float32 numbers that are added up one after the other lose a unit in the last place every few thousand.
_MANY = 1 << 16
# They look for the largest or the smallest element of an axis, and PyTorch takes a NaN for it.
_OF_EXTREMES = frozenset("amax amin max min aminmax argmax argmin median linalg_vector_norm norm".split())
# Beyond this float64 does not hold every whole number.
_WHOLE = 1 << 53


def known_arithmetic(name: str, args: Sequence[Any], result: Any) -> str:
    """What ONNX Runtime makes of a call that PyTorch computes otherwise; "" where it is not known to."""
    x = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if x is None or not x.numel():
        return ""
    if name == "sum" and isinstance(result, torch.Tensor) and result.dtype == torch.int64 and result.numel():
        if max(int(result.max()), -int(result.min())) > _WHOLE:
            return "ONNX Runtime adds up int64 in float64, which does not hold whole numbers above 2^53"
    elif name in ("sum", "mean") and x.dtype == torch.float32 and isinstance(result, torch.Tensor):
        terms = x.numel() // max(1, result.numel())
        if terms >= _MANY:
            return f"ONNX Runtime adds up {terms:,} float32 numbers in float32, where PyTorch adds up in blocks"
    elif name in _OF_EXTREMES and x.is_floating_point() and bool(torch.isnan(x).any()):
        return "ONNX Runtime passes over a NaN where it looks for the largest or the smallest element of an axis"
    elif name.endswith("2d_aa") and isinstance(result, torch.Tensor) and result.shape[-1] == 1:
        if x.shape[-1] > 1 and x.shape[-2] != result.shape[-2]:
            return "PyTorch gives the first row's value everywhere where an antialiased picture shrinks to one column"
    elif name == "sign" and x.is_floating_point() and bool(torch.isnan(x).any()):
        return "PyTorch's sign of a NaN is 0, and ONNX Runtime's a NaN"
    elif "max_pool" in name and x.is_floating_point() and bool(torch.isnan(x).any()):
        return "ONNX Runtime loses a NaN that is not the first of its MaxPool window"
    return ""
