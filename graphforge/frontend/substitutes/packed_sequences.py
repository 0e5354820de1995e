"""Substitutes for torch's packed sequences: padded batches that know their lengths.

A packed sequence has as many rows as its lengths add up to, in an order that depends on them; nothing but a recurrent
layer reads it.  So the padded batch stays as it is, its lengths beside it, and the layer becomes one operator that
takes both: ONNX's recurrent operators have an input for the lengths, and stop at them in either direction.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from graphforge.errors import CaptureError
from graphforge.frontend.substitution import substitute

__all__ = ["give_back"]

_LAYERS = {
    "LSTM": torch.ops.aten.lstm,
    "GRU": torch.ops.aten.gru,
    "RNN_TANH": torch.ops.aten.rnn_tanh,
    "RNN_RELU": torch.ops.aten.rnn_relu,
}


class _Padded(rnn.PackedSequence):
    """What stands for a packed sequence: time first, padded, with its lengths."""

    __slots__ = ()

    @property
    def padded(self) -> Tensor:
        batch: Any = tuple.__getitem__(self, 0)
        return batch  # type: ignore[no-any-return]

    @property
    def lengths(self) -> Tensor:
        lengths: Any = tuple.__getitem__(self, 1)
        return lengths  # type: ignore[no-any-return]

    def _hidden(self) -> Any:
        raise CaptureError(
            "the model looks into a packed sequence, whose layout depends on its lengths and cannot be expressed in an "
            "artifact",
            "pass it to recurrent layers and to pad_packed_sequence only, or work on the padded batch",
        )

    data = batch_sizes = sorted_indices = unsorted_indices = property(_hidden)


def _padded(batch: Tensor, lengths: Tensor) -> _Padded:
    return tuple.__new__(_Padded, (batch, lengths, None, None))


@torch.library.custom_op("graphforge::packed_recurrent", mutates_args=())
def packed_recurrent(
    batch: Tensor,
    lengths: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    mode: str,
    biases: bool,
    layers: int,
    bidirectional: bool,
) -> list[Tensor]:
    """A recurrent layer over [time, batch, features] up to each row's length: result, padded by 0, and states."""
    packed = rnn.pack_padded_sequence(batch, lengths, enforce_sorted=False)
    order: Any = packed.sorted_indices
    hx = [state.index_select(1, order) for state in states]
    result, *ends = _LAYERS[mode].data(
        packed.data,
        packed.batch_sizes,
        hx if mode == "LSTM" else hx[0],
        list(parameters),
        biases,
        layers,
        0.0,
        False,
        bidirectional,
    )
    padded, _ = rnn.pad_packed_sequence(
        rnn.PackedSequence(result, packed.batch_sizes, order, packed.unsorted_indices), total_length=batch.shape[0]
    )
    return [padded, *(end.index_select(1, packed.unsorted_indices) for end in ends)]


@packed_recurrent.register_fake
def _(
    batch: Tensor,
    lengths: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    mode: str,
    biases: bool,
    layers: int,
    bidirectional: bool,
) -> list[Tensor]:
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return [batch.new_empty([batch.shape[0], batch.shape[1], width]), *(torch.empty_like(state) for state in states)]


@substitute("torch.nn.utils.rnn.pack_padded_sequence", required=False)
def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> rnn.PackedSequence:
    """The batch as it is, time first."""
    _take_over()
    given = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths, dtype=torch.int64)
    return _padded(input.transpose(0, 1) if batch_first else input, given)


@substitute("torch.nn.utils.rnn.pad_packed_sequence", required=False)
def pad_packed_sequence(
    sequence: rnn.PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: Any = None
) -> tuple[Tensor, Tensor]:
    """The batch, cut or filled up to the length that is asked for: the longest there is, by default."""
    if not isinstance(sequence, _Padded):
        return rnn.pad_packed_sequence(sequence, batch_first, padding_value, total_length)
    batch, lengths = sequence.padded, sequence.lengths
    time: Any = batch.shape[0]
    if total_length is None:
        longest: Any = lengths.max().item()
        torch._check(longest >= 0)
        torch._check(longest <= time)
        batch = batch.narrow(0, 0, longest)
    elif total_length is not time:
        batch = nn.functional.pad(batch, [0, 0] * (batch.dim() - 1) + [0, total_length - time])
    if padding_value:
        beyond = torch.arange(batch.shape[0], device=batch.device)[:, None] >= lengths
        batch = batch.masked_fill(beyond.view(*beyond.shape, *[1] * (batch.dim() - 2)), padding_value)
    return batch.transpose(0, 1) if batch_first else batch, lengths


def _forward(self: Any, mode: str, sequence: _Padded, hx: Any) -> tuple[Any, Any]:
    batch = sequence.padded
    if self.training and self.dropout and self.num_layers > 1:
        raise CaptureError("dropout between the layers is active", "call model.eval() before compiling")
    if hx is None:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size, *([self.hidden_size] if mode == "LSTM" else [])]
        states = [batch.new_zeros([rows, batch.shape[1], size]) for size in sizes]
    else:
        states = list(hx) if isinstance(hx, tuple) else [hx]
    result, *ends = torch.ops.graphforge.packed_recurrent(
        batch, sequence.lengths, states, self._flat_weights, mode, self.bias, self.num_layers, self.bidirectional
    )
    return _padded(result, sequence.lengths), tuple(ends) if mode == "LSTM" else ends[0]


# -- the layers: theirs is another forward as soon as a model packs, and until its capture ends ---

_forwards: dict[Any, Any] = {}


def _take_over() -> None:
    layers: tuple[Any, ...] = (nn.LSTM, nn.GRU, nn.RNN)
    for layer in layers:
        if layer not in _forwards:
            _forwards[layer] = layer.forward
            layer.forward = _forward_of(layer.forward)


def give_back() -> None:
    """Torch's recurrent layers are what they were."""
    while _forwards:
        layer, forward = _forwards.popitem()
        layer.forward = forward


def _forward_of(original: Any) -> Any:
    @functools.wraps(original)
    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        return _forward(self, self.mode, input, hx) if isinstance(input, _Padded) else original(self, input, hx)

    return forward
