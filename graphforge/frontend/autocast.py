"""Inside ``torch.autocast``: operands in the type that autocast gives them, which no node of the program says.

A block that turns autocast off where it is off already says nothing at all, and is left out of the program:
torch.export would take the whole graph apart at each of them, and put it together again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch

from graphforge.frontend.emitter import Emitter
from graphforge.ir.dtypes import is_float

__all__ = ["as_autocast", "without_idle_blocks"]

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


@contextmanager
def without_idle_blocks() -> Iterator[None]:
    """While a model is captured, a block of autocast that changes nothing leaves no trace in the program.

    ``autocast("cuda", enabled=False)`` in a model on the CPU is one, and ``autocast("cpu", enabled=False)`` around the
    angles of rotary embeddings.
    """
    block: Any = torch.amp.autocast_mode.autocast
    entered, left = block.__enter__, block.__exit__

    def enter(self: Any) -> Any:
        self.changes_nothing = not self._enabled and not torch.is_autocast_enabled(self.device)
        return self if self.changes_nothing else entered(self)

    def leave(self: Any, *error: Any) -> Any:
        return False if self.changes_nothing else left(self, *error)

    block.__enter__, block.__exit__ = enter, leave
    try:
        yield
    finally:
        block.__enter__, block.__exit__ = entered, left
