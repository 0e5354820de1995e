"""Recurrent layers: any length and batch, every option; packed sequences refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphforge.errors import GraphForgeError
from tests.frontend.helpers import lower_and_compare


def _values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(dtype)


_DYNAMIC = {"input": {0: (1, 40), 1: (1, 9)}}
_OTHERS = [(_values(9, 2, 4),), (_values(1, 1, 4),)]
_KINDS: list[tuple[Any, dict[str, Any]]] = [
    (nn.LSTM, {}),
    (nn.GRU, {}),
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bias": False, "num_layers": 2}], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "more"), _KINDS, ids=["lstm", "gru", "rnn", "relu"])
def test_every_length(kind: Any, more: dict[str, Any], bidirectional: bool, options: dict[str, Any]) -> None:
    """The number of steps is dynamic: it is not unrolled, nor baked in."""
    layer = kind(4, 6, bidirectional=bidirectional, **more, **options)
    outcome = lower_and_compare(layer, (_values(5, 3, 4),), dynamic=_DYNAMIC, other_inputs=_OTHERS)
    assert outcome.counts[kind.__name__] == options.get("num_layers", 1)


def test_initial_states() -> None:
    layer = nn.LSTM(4, 6, 2, bidirectional=True)
    lower_and_compare(lambda x, h, c: layer(x, (h, c)), (_values(5, 3, 4), _values(4, 3, 6), _values(4, 3, 6) * 0.5))
    gru = nn.GRU(4, 6)
    lower_and_compare(lambda x, h: gru(x, h), (_values(5, 3, 4), _values(1, 3, 6)))


def test_without_batch_half_double_and_strict() -> None:
    lower_and_compare(nn.LSTM(4, 6), (_values(5, 4),))
    lower_and_compare(nn.LSTM(4, 6).half(), (_values(5, 3, 4, dtype=torch.float16),), atol=3e-3)
    # ONNX Runtime computes it in single precision, which the graph says
    doubled = lower_and_compare(nn.GRU(4, 6).double(), (_values(5, 3, 4, dtype=torch.float64),), atol=1e-6)
    assert doubled.rounded == {"GRU"}
    lower_and_compare(nn.GRU(4, 6), (_values(5, 3, 4),), method="export-strict")


@pytest.mark.parametrize(
    "cell",
    [nn.LSTMCell(4, 6), nn.GRUCell(4, 6), nn.RNNCell(4, 6), nn.RNNCell(4, 6, False, "relu")],
    ids=str,
)
def test_cells(cell: nn.Module) -> None:
    lower_and_compare(cell, (_values(3, 4),), dynamic={"input": {0: (1, 9)}}, other_inputs=[(_values(1, 4),)])


def test_cell_with_states() -> None:
    cell = nn.LSTMCell(4, 6)
    lower_and_compare(lambda x, h, c: cell(x, (h, c)), (_values(3, 4), _values(3, 6), _values(3, 6) * 0.5))


def test_computed_weights() -> None:
    """Weights that are not constants: put in order in the graph."""
    layer = nn.GRU(4, 6)
    names = [name for name, _ in layer.named_parameters()]

    def forward(x: Tensor, *weights: Tensor) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    lower_and_compare(forward, (_values(5, 3, 4), *(weight.detach() for weight in layer.parameters())))


def test_packed_sequences_are_refused() -> None:
    layer = nn.LSTM(4, 6)

    def forward(x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
        result: Tensor = layer(packed)[1][0]
        return result

    with pytest.raises(GraphForgeError, match="packs sequences"):
        lower_and_compare(forward, (_values(5, 3, 4), torch.tensor([5, 4, 2])))


def test_projection_is_refused() -> None:
    with pytest.raises(GraphForgeError, match="proj_size"):
        lower_and_compare(nn.LSTM(4, 6, proj_size=3), (_values(5, 3, 4),))


def test_eager_describes_layers_as_before_after_a_capture() -> None:
    """What capture changes to describe a layer is put back."""
    lower_and_compare(nn.LSTM(4, 6), (_values(5, 3, 4),))
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        layer = nn.LSTM(4, 6)
        result, _ = layer(mode.from_tensor(_values(5, 3, 4)))
    assert tuple(result.shape) == (5, 3, 6)
    assert nn.LSTM(4, 6)(_values(5, 3, 4))[0].shape == (5, 3, 6)
