"""While capturing: recurrent layers are described by their shapes alone, so that any length of sequence goes through.

torch describes ``aten.lstm.input`` and its like to a capture by running their decomposition, a Python loop over the
steps, which fixes the number of steps.  Here they get a description of their own for as long as the capture runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from graphforge.errors import CaptureError
from graphforge.frontend.substitutes.packed_sequences import give_back

__all__ = ["recurrent_shapes"]


def _outputs(
    x: torch.Tensor, states: Sequence[torch.Tensor], batch_first: bool, bidirectional: bool
) -> tuple[torch.Tensor, ...]:
    """Result and last states of a layer: the result is as wide as the first state, once for each direction."""
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    result = x.new_empty([x.shape[0], x.shape[1], width])
    if batch_first:
        # as torch returns it: computed time first, then seen the other way round
        result = x.new_empty([x.shape[1], x.shape[0], width]).transpose(0, 1)
    return (result, *(torch.empty_like(state) for state in states))


def _lstm(
    x: torch.Tensor,
    hx: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    return _outputs(x, hx, batch_first, bidirectional)


def _one_state(
    x: torch.Tensor,
    hx: torch.Tensor,
    params: Sequence[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    return _outputs(x, [hx], batch_first, bidirectional)


def _packed(*_: Any, **__: Any) -> torch.Tensor:
    raise CaptureError(
        "the model packs sequences, whose layout depends on their lengths and cannot be expressed in an artifact",
        "pass the padded batch to the recurrent layer and mask its output, or compile for sequences of one length",
    )


@contextmanager
def recurrent_shapes() -> Iterator[None]:
    """Describe recurrent layers by their shapes, and refuse packed sequences, while the context lasts."""
    aten = torch.ops.aten
    keys = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd)
    described: dict[Any, Callable[..., Any]] = {
        aten.lstm.input: _lstm,
        aten.gru.input: _one_state,
        aten.rnn_tanh.input: _one_state,
        aten.rnn_relu.input: _one_state,
    }
    kept = {target: dict(target.py_kernels) for target in described}
    functions: Any = torch._VF
    packing = functions._pack_padded_sequence
    try:
        for target, function in described.items():
            for key in keys:
                target.py_kernels[key] = function
            target._dispatch_cache.clear()
        functions._pack_padded_sequence = _packed
        yield
    finally:
        functions._pack_padded_sequence = packing
        give_back()
        for target, kernels in kept.items():
            target.py_kernels.clear()
            target.py_kernels.update(kernels)
            target._dispatch_cache.clear()
