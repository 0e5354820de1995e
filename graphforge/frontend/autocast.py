"""Inside ``torch.autocast``: operands in the type that autocast gives them, which no node of the program says."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from graphforge.frontend.emitter import Emitter
from graphforge.ir.dtypes import is_float

__all__ = ["as_autocast"]

# What autocast computes in fewer digits; everything else takes what comes.
_COMPUTED = frozenset(
    f"aten.{name}"
    for name in (
        "linear matmul mm bmm addmm addbmm baddbmm mv addmv conv1d conv2d conv3d convolution conv_transpose1d "
        "conv_transpose2d conv_transpose3d scaled_dot_product_attention prelu _thnn_fused_lstm_cell"
    ).split()
)


def as_autocast(op: Emitter, name: str, arguments: list[Any]) -> list[Any]:
    """The operands of a call, cast to the half type that its result has; elsewhere they have that type already.

    Args:
        op: builds the casts; its ``result`` is what capture saw the call return.
        name: the operator.
        arguments: what it is called with.
    """
    result = op.result
    if name.rpartition(".")[0] not in _COMPUTED or not isinstance(result, torch.Tensor):
        return arguments
    if result.dtype not in (torch.bfloat16, torch.float16):
        return arguments
    wanted = op.dtype_of(result)
    return [
        op.cast(argument, wanted)
        if isinstance(argument, ir.Value) and argument.dtype is not None and is_float(argument.dtype)
        else argument
        for argument in arguments
    ]
