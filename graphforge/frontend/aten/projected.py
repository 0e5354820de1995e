"""LSTM whose state is projected (proj_size), which ONNX's LSTM cannot be told: written out step by step."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter

__all__ = ["projected_lstm"]

# Steps above this would make a file of more than 10,000 nodes for each layer and direction.
_MOST_STEPS = 1024


def projected_lstm(
    op: Emitter,
    x: ir.Value,
    initial: Sequence[ir.Value],
    parameters: Sequence[ir.Value],
    *,
    biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[ir.Value]:
    """Result and last states of a stack of layers.

    Raises:
        LoweringError: the number of steps is dynamic, or very large.
    """
    if batch_first:
        x = op.transpose(x, [1, 0, 2])
    steps = op.size(x, 0)
    if not isinstance(steps, int) or steps > _MOST_STEPS:
        raise op.fail(
            f"a recurrent layer with proj_size is written out step by step, for at most {_MOST_STEPS} steps",
            "make the length static, or project the outputs with a Linear layer instead",
        )
    directions, each = 2 if bidirectional else 1, 5 if biases else 3
    hidden: list[ir.Value] = []
    cells: list[ir.Value] = []
    for layer in range(layers):
        results = []
        for direction in range(directions):
            place = layer * directions + direction
            states = [op.Gather(state, place, axis=0) for state in initial]
            own = parameters[place * each : (place + 1) * each]
            y, h, c = _direction(op, x, states[0], states[1], own, steps, backwards=direction == 1)
            results.append(y)
            hidden.append(h)
            cells.append(c)
        x = results[0] if directions == 1 else op.Concat(*results, axis=2)
    stacked = [op.Concat(*(op.unsqueeze(state, [0]) for state in states), axis=0) for states in (hidden, cells)]
    return [op.transpose(x, [1, 0, 2]) if batch_first else x, *stacked]


def _direction(
    op: Emitter, x: ir.Value, h: ir.Value, c: ir.Value, own: Sequence[ir.Value], steps: int, *, backwards: bool
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """One direction of one layer: [steps, batch, projected], and its last states."""
    into, recurrent, *biases, projection = own
    before = op.MatMul(x, op.transpose(into, [1, 0]))
    for bias in biases:
        before = op.Add(before, bias)
    recurrent, projection = op.transpose(recurrent, [1, 0]), op.transpose(projection, [1, 0])
    results: list[ir.Value] = []
    for step in reversed(range(steps)) if backwards else range(steps):
        gates = op.Add(op.Gather(before, step, axis=0), op.MatMul(h, recurrent))
        i, f, g, o = op.Split(gates, axis=-1, num_outputs=4, _outputs=4)
        c = op.Add(op.Mul(op.Sigmoid(f), c), op.Mul(op.Sigmoid(i), op.Tanh(g)))
        h = op.MatMul(op.Mul(op.Sigmoid(o), op.Tanh(c)), projection)
        results.append(op.unsqueeze(h, [0]))
    y: ir.Value = op.Concat(*(reversed(results) if backwards else results), axis=0)
    return y, h, c
