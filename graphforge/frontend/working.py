"""The element type that a rule computes in: torch computes halves in single precision and rounds once, at the end."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

__all__ = ["single_step_dtype", "working_dtype"]


def working_dtype(dtype: ir.DataType, *numbers: Any) -> ir.DataType:
    """The dtype in which a rule of several nodes should compute: single precision where halves would go wrong.

    Of bfloat16 so little is left after each rounding that torch rounds once, behind the whole.  float16 cannot hold
    large and small Python numbers: torch computes halves with numbers in single precision, so ``x * 1e5`` must not
    overflow.
    """
    if dtype == ir.DataType.BFLOAT16:
        return ir.DataType.FLOAT
    if dtype != ir.DataType.FLOAT16:
        return dtype
    for number in numbers:
        if isinstance(number, bool | int | float):
            size = abs(number)
            if size != 0 and not 6.2e-5 < size <= 65504 and size != float("inf"):
                return ir.DataType.FLOAT
    return dtype


def single_step_dtype(dtype: ir.DataType, *operands: Any) -> ir.DataType:
    """The dtype of a rule of one node: that of its operands where all have it, as ``working_dtype`` says where not.

    A Python number beside bfloat16 is not rounded to bfloat16 by torch, nor is what the rule has computed so far.
    """
    if all(isinstance(operand, ir.Value) and operand.dtype == dtype for operand in operands):
        return dtype
    return working_dtype(dtype, *operands)
