"""Recurrent layers: LSTM, GRU, RNN, whole and one step, for any length of sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype

from graphforge.frontend.aten.projected import projected_lstm
from graphforge.frontend.emitter import Emitter, dim_label_of
from graphforge.frontend.rules import lowers

__all__: list[str] = []

# Where ONNX's gates stand among torch's: i f g o -> i o f c, r z n -> z r h.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def _stacked(op: Emitter, kind: str, per_direction: Sequence[Sequence[ir.Value]], name: str) -> ir.Value:
    """[directions, rows, ...]: each direction's matrices, gates in ONNX's order, one below the other."""
    tensors = [[op.weight(value) for value in values] for values in per_direction]
    if all(tensor is not None for row in tensors for tensor in row):
        known = [[tensor for tensor in row if tensor is not None] for row in tensors]
        first = known[0][0]
        rows = sum(tensor.shape[0] for tensor in known[0])

        def make() -> ir.TensorProtocol:
            return TorchTensor(
                torch.stack([torch.cat([_reordered(kind, t) for t in row]) for row in known]).contiguous()
            )

        shape = ir.Shape([len(known), rows, *first.shape[1:]])
        lazy = ir.LazyTensor(make, dtype=from_torch_dtype(first.dtype), shape=shape, name=name)
        return op.constant(lazy, name=name)
    stacks = []
    for values in per_direction:
        pieces = [_reordered_value(op, kind, value) for value in values]
        joined = op.Concat(*pieces, axis=0) if len(pieces) > 1 else pieces[0]
        stacks.append(op.unsqueeze(joined, [0]))
    stacked: ir.Value = op.Concat(*stacks, axis=0) if len(stacks) > 1 else stacks[0]
    return stacked


def _reordered(kind: str, tensor: torch.Tensor) -> torch.Tensor:
    gates = tensor.detach().chunk(len(_GATES[kind]))
    return torch.cat([gates[position] for position in _GATES[kind]])


def _reordered_value(op: Emitter, kind: str, value: ir.Value) -> ir.Value:
    order = _GATES[kind]
    if len(order) == 1:
        return value
    gates = op.Split(value, axis=0, num_outputs=len(order), _outputs=len(order))
    reordered: ir.Value = op.Concat(*[gates[position] for position in order], axis=0)
    return reordered


def _is_zero(value: ir.Value) -> bool:
    """Whether a state is the zeros that torch's modules make when none is given."""
    producer = value.producer()
    if producer is not None and producer.domain == "":
        if producer.op_type == "Expand":
            source = producer.inputs[0]
            return source is not None and _is_zero(source)
        if producer.op_type == "ConstantOfShape":
            filling = producer.attributes.get("value")
            return filling is None or not bool(np.any(filling.as_tensor().numpy()))
    tensor = value.const_value
    return tensor is not None and tensor.size <= 1 << 16 and not bool(np.any(tensor.numpy()))


def _layer(
    op: Emitter,
    kind: str,
    x: ir.Value,
    states: Sequence[ir.Value | None],
    parameters: Sequence[Sequence[ir.Value]],
    *,
    biases: bool,
    label: str,
    activation: str | None,
    lengths: ir.Value | None = None,
) -> tuple[ir.Value, ...]:
    """One layer over [time, batch, features]; returns Y [time, directions, batch, hidden] and the last states."""
    directions = len(parameters)
    hidden = op.static_size(parameters[0][1], 1)
    base = parameters[0][0].name or label
    weight = _stacked(op, kind, [[row[0]] for row in parameters], f"{base}_onnx")
    recurrence = _stacked(op, kind, [[row[1]] for row in parameters], f"{parameters[0][1].name or label}_onnx")
    bias = None
    if biases:
        bias = _stacked(op, kind, [[row[2], row[3]] for row in parameters], f"{parameters[0][2].name or label}_onnx")
    attributes: dict[str, Any] = {"hidden_size": hidden}
    if directions == 2:
        attributes["direction"] = "bidirectional"
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if activation is not None and activation != "Tanh":
        attributes["activations"] = [activation] * directions
    results: tuple[ir.Value, ...] = op.node(
        kind, [x, weight, recurrence, bias, lengths, *states], _outputs=len(states) + 1, **attributes
    )
    return results


def _recurrent(
    op: Emitter,
    kind: str,
    x: ir.Value,
    initial: Sequence[ir.Value],
    parameters: Sequence[ir.Value],
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    activation: str | None = None,
    lengths: ir.Value | None = None,
) -> list[ir.Value]:
    """Result and last states of a stack of layers, each row up to its length where there are ``lengths``.

    Raises:
        LoweringError: dropout between layers is active, or the layer projects its state.
    """
    if train and dropout > 0 and layers > 1:
        raise op.fail("dropout between the layers is active", "call model.eval() before compiling")
    directions = 2 if bidirectional else 1
    each = 4 if biases else 2
    if len(parameters) != layers * directions * each:  # with a projection of the state
        if kind != "LSTM" or lengths is not None:
            raise op.fail("this recurrent layer with proj_size cannot be expressed", "project with a Linear layer")
        return projected_lstm(
            op,
            x,
            initial,
            parameters,
            biases=biases,
            layers=layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
        )
    if batch_first:
        x = op.transpose(x, [1, 0, 2])
    rows_may_lack = kind != "RNN" and op.may_be_zero(str(dim_label_of(op.size(x, 1))))
    if rows_may_lack:  # of none, ONNX Runtime ends the process
        x = op.Pad(x, [0, 0, 0, 0, 1, 0])
        initial = [one if _is_zero(one) else op.Pad(one, [0, 0, 0, 0, 1, 0]) for one in initial]
        lengths = None if lengths is None else op.Concat(lengths, op.constant([1], lengths.dtype), axis=0)
    last: list[list[ir.Value]] = [[] for _ in initial]
    given: list[Sequence[ir.Value | None]] = []
    for state in initial:
        if _is_zero(state):
            given.append([None] * layers)
        elif layers == 1:
            given.append([state])
        else:
            pieces = op.Split(state, [directions] * layers, axis=0, _outputs=layers)
            given.append(list(pieces))
    for layer in range(layers):
        start = layer * directions * each
        rows = [parameters[start + d * each : start + (d + 1) * each] for d in range(directions)]
        states = [pieces[layer] for pieces in given]
        y, *ends = _layer(
            op,
            kind,
            x,
            states,
            rows,
            biases=biases,
            label=f"{kind.lower()}_{layer}",
            activation=activation,
            lengths=lengths,
        )
        turned = batch_first and layer == layers - 1
        if directions == 2:
            joined = 2 * op.static_size(rows[0][1], 1)
            x = op.Reshape(op.Transpose(y, perm=[2, 0, 1, 3] if turned else [0, 2, 1, 3]), [0, 0, joined])
        else:
            x = op.Squeeze(y, [1])
            x = op.transpose(x, [1, 0, 2]) if turned else x
        for collected, end in zip(last, ends, strict=True):
            collected.append(end)
    results = [x, *(op.Concat(*ends, axis=0) if len(ends) > 1 else ends[0] for ends in last)]
    if not rows_may_lack:
        return results
    return [op.slice(one, 0 if batch_first and one is x else 1, 0, -1) for one in results]


@lowers("aten.lstm.input")
def lstm(
    op: Emitter,
    x: ir.Value,
    hx: Sequence[ir.Value],
    params: Sequence[ir.Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[ir.Value]:
    """LSTM."""
    return _recurrent(op, "LSTM", x, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


@lowers("aten.gru.input")
def gru(
    op: Emitter,
    x: ir.Value,
    hx: ir.Value,
    params: Sequence[ir.Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[ir.Value]:
    """GRU."""
    return _recurrent(op, "GRU", x, [hx], params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


@lowers("aten.rnn_tanh.input")
def rnn_tanh(
    op: Emitter,
    x: ir.Value,
    hx: ir.Value,
    params: Sequence[ir.Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[ir.Value]:
    """RNN."""
    return _recurrent(
        op, "RNN", x, [hx], params, has_biases, num_layers, dropout, train, bidirectional, batch_first, "Tanh"
    )


@lowers("aten.rnn_relu.input")
def rnn_relu(
    op: Emitter,
    x: ir.Value,
    hx: ir.Value,
    params: Sequence[ir.Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[ir.Value]:
    """RNN."""
    return _recurrent(
        op, "RNN", x, [hx], params, has_biases, num_layers, dropout, train, bidirectional, batch_first, "Relu"
    )


@lowers("graphforge.packed_recurrent.default")
def up_to_lengths(
    op: Emitter,
    x: ir.Value,
    lengths: ir.Value,
    states: Sequence[ir.Value],
    params: Sequence[ir.Value],
    mode: str,
    biases: bool,
    layers: int,
    bidirectional: bool,
) -> list[ir.Value]:
    """LSTM, GRU or RNN over a padded batch that stops at each row's length."""
    kind, _, activation = mode.partition("_")
    limits = op.cast(lengths, ir.DataType.INT32)
    return _recurrent(
        op,
        kind,
        x,
        states,
        params,
        biases,
        layers,
        0.0,
        False,
        bidirectional,
        False,
        activation.title() or None,
        limits,
    )


@lowers(
    "aten.lstm.data",
    "aten.gru.data",
    "aten.rnn_tanh.data",
    "aten.rnn_relu.data",
    "aten._pack_padded_sequence.default",
    "aten._pad_packed_sequence.default",
)
def packed(op: Emitter, *_: Any, **__: Any) -> ir.Value:
    """Packed sequences are refused.

    Raises:
        LoweringError: always.
    """
    raise op.fail(
        "packed sequences have no form in an artifact: their layout depends on the lengths",
        "pass the padded batch to the layer and mask its output, or run sequences of one length",
    )


# -- one step ----------------------------------------------------------------------------------------------------------


def _cell(
    op: Emitter,
    kind: str,
    x: ir.Value,
    states: Sequence[ir.Value],
    parameters: Sequence[ir.Value | None],
    activation: str | None = None,
) -> list[ir.Value]:
    """One step of a layer: the layer on a sequence of length 1."""
    present = [parameter for parameter in parameters if parameter is not None]
    if len(present) == 3:
        raise op.fail("a cell with one bias of two", "give the cell both biases or none")
    given = [None if _is_zero(state) else op.unsqueeze(state, [0]) for state in states]
    _, *ends = _layer(
        op,
        kind,
        op.unsqueeze(x, [0]),
        given,
        [present],
        biases=len(present) == 4,
        label=f"{kind.lower()}_cell",
        activation=activation,
    )
    return [op.Squeeze(end, [0]) for end in ends]


@lowers("aten.lstm_cell.default")
def lstm_cell(
    op: Emitter,
    x: ir.Value,
    hx: Sequence[ir.Value],
    w_ih: ir.Value,
    w_hh: ir.Value,
    b_ih: ir.Value | None = None,
    b_hh: ir.Value | None = None,
) -> list[ir.Value]:
    """LSTM on one step."""
    return _cell(op, "LSTM", x, hx, [w_ih, w_hh, b_ih, b_hh])


@lowers("aten.gru_cell.default")
def gru_cell(
    op: Emitter,
    x: ir.Value,
    hx: ir.Value,
    w_ih: ir.Value,
    w_hh: ir.Value,
    b_ih: ir.Value | None = None,
    b_hh: ir.Value | None = None,
) -> ir.Value:
    """GRU on one step."""
    return _cell(op, "GRU", x, [hx], [w_ih, w_hh, b_ih, b_hh])[0]


@lowers("aten.rnn_tanh_cell.default")
def rnn_tanh_cell(
    op: Emitter,
    x: ir.Value,
    hx: ir.Value,
    w_ih: ir.Value,
    w_hh: ir.Value,
    b_ih: ir.Value | None = None,
    b_hh: ir.Value | None = None,
) -> ir.Value:
    """RNN on one step."""
    return _cell(op, "RNN", x, [hx], [w_ih, w_hh, b_ih, b_hh], "Tanh")[0]


@lowers("aten.rnn_relu_cell.default")
def rnn_relu_cell(
    op: Emitter,
    x: ir.Value,
    hx: ir.Value,
    w_ih: ir.Value,
    w_hh: ir.Value,
    b_ih: ir.Value | None = None,
    b_hh: ir.Value | None = None,
) -> ir.Value:
    """RNN on one step."""
    return _cell(op, "RNN", x, [hx], [w_ih, w_hh, b_ih, b_hh], "Relu")[0]
