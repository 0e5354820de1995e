"""Recurrent layers: any length and batch, every option; packed sequences (packed_recurrent) by their lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare, lower_only, operators


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


class _OfSome(nn.Module):
    """Reads the rows that data selects, with a state of their own, and a batch that is promised from 0 on."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(4, 3)

    def forward(self, x: Tensor, other: Tensor) -> Any:
        some = x[x[:, 0, 0] > 0]
        state = torch.ones(4, some.shape[0], 3)
        return self.lstm(some, (state, state)), self.gru(other)


def test_of_no_rows() -> None:
    """ONNX Runtime ends the process, so the file is looked at before it is run."""
    torch.manual_seed(0)
    model, example = _OfSome(), (_values(5, 6, 4), _values(6, 2, 4))
    dynamic = {"other": {1: (0, 4)}}
    assert operators(lower_only(model, example, dynamic=dynamic).model)["Pad"] == 4
    others = [(-torch.ones(5, 6, 4), _values(6, 0, 4)), (torch.ones(5, 6, 4), _values(6, 1, 4))]
    lower_and_compare(model, example, dynamic=dynamic, other_inputs=others)


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


class Packs(nn.Module):
    """Sorts nothing, asks for the longest or for all, fills up with a number, gives states of its own."""

    def __init__(self, layer: nn.Module, *, whole: bool, fill: float = 0.0, states: Any = None) -> None:
        super().__init__()
        self.layer, self.whole, self.fill, self.states = layer, whole, fill, states

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        first: Any = self.layer.batch_first
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
        states = None
        if self.states is not None:
            states = tuple(one.expand(-1, lengths.shape[0], -1).contiguous() for one in self.states)
            states = states if len(states) > 1 else states[0]
        result, last = self.layer(packed, states)
        total = x.shape[1 if first else 0] if self.whole else None
        padded, sizes = nn.utils.rnn.pad_packed_sequence(
            result, batch_first=first, padding_value=self.fill, total_length=total
        )
        return padded, sizes, last


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("options", [{"bidirectional": True}, {"batch_first": True, "num_layers": 2}], ids=str)
@pytest.mark.parametrize(("kind", "more"), _KINDS, ids=["lstm", "gru", "rnn", "relu"])
def test_a_packed_batch_stops_at_its_lengths(
    kind: Any, more: dict[str, Any], options: dict[str, Any], whole: bool
) -> None:
    layer = kind(4, 3, **more, **options)
    rows, steps = (0, 1) if options.get("batch_first") else (1, 0)
    dims = {rows: DimRange("rows", 1, 6), steps: DimRange("steps", 2, 9)}
    dynamic = {"x": dims, "lengths": {0: DimRange("rows", 1, 6)}}

    def batch(count: int, length: int) -> Tensor:
        x = _values(length, count, 4)
        return x.transpose(0, 1).contiguous() if rows == 0 else x

    lower_and_compare(
        Packs(layer, whole=whole).eval(),
        (batch(3, 6), torch.tensor([4, 6, 1])),
        dynamic=dynamic,
        other_inputs=[
            (batch(2, 9), torch.tensor([9, 2])),
            (batch(1, 2), torch.tensor([2 if whole else 1])),
        ],
    )


def test_states_and_filling_of_a_packed_batch_are_the_models_own() -> None:
    layer = nn.LSTM(4, 3, bidirectional=True)
    model = Packs(layer, whole=True, fill=-2.0, states=[_values(2, 1, 3), _values(2, 1, 3)]).eval()
    lower_and_compare(model, (_values(5, 3, 4), torch.tensor([5, 1, 3])))
    assert nn.LSTM.forward.__code__.co_filename.endswith("rnn.py")


def test_looking_into_a_packed_sequence_is_refused() -> None:
    layer = nn.LSTM(4, 6)

    def forward(x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
        result: Tensor = layer(packed)[0].data
        return result

    with pytest.raises(GraphForgeError, match="looks into a packed sequence"):
        lower_and_compare(forward, (_values(5, 3, 4), torch.tensor([5, 4, 2])))


def test_eager_describes_layers_as_before_after_a_capture() -> None:
    """What capture changes to describe a layer is put back."""
    lower_and_compare(nn.LSTM(4, 6), (_values(5, 3, 4),))
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        layer = nn.LSTM(4, 6)
        result, _ = layer(mode.from_tensor(_values(5, 3, 4)))
    assert tuple(result.shape) == (5, 3, 6)
    assert nn.LSTM(4, 6)(_values(5, 3, 4))[0].shape == (5, 3, 6)
