"""What the artifact's runtime is known to compute otherwise than PyTorch, recognised in a run of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["known_arithmetic"]

# Float32 numbers that are added up one after the other lose a unit in the last place every few thousand.
_MANY = 1 << 16
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
    elif "max_pool" in name and x.is_floating_point() and bool(torch.isnan(x).any()):
        return "ONNX Runtime loses a NaN that is not the first of its MaxPool window"
    return ""
