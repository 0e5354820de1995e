"""LSTM whose state is projected (proj_size), which ONNX's LSTM cannot be told.

Few steps are written out one by one; many, or a number that is known at run time only, become a Scan.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphforge.frontend.aten._steps import over_steps
from graphforge.frontend.emitter import Emitter

__all__ = ["projected_lstm"]

# Steps above this would make a file of more than 1,000 nodes for each layer and direction.
_MOST_STEPS = 64


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
    """Result and last states of a stack of layers."""
    if batch_first:
        x = op.transpose(x, [1, 0, 2])
    size = op.size(x, 0)
    steps = size if isinstance(size, int) and size <= _MOST_STEPS else None
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
    op: Emitter, x: ir.Value, h: ir.Value, c: ir.Value, own: Sequence[ir.Value], steps: int | None, *, backwards: bool
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """One direction of one layer: [steps, batch, projected], and its last states."""
    into, recurrent, *biases, projection = own
    before = op.MatMul(x, op.transpose(into, [1, 0]))
    for bias in biases:
        before = op.Add(before, bias)
    recurrent, projection = op.transpose(recurrent, [1, 0]), op.transpose(projection, [1, 0])

    def moved(emit: Emitter, states: list[ir.Value], here: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
        gates = emit.Add(here[0], emit.MatMul(states[0], recurrent))
        i, f, g, o = emit.Split(gates, axis=-1, num_outputs=4, _outputs=4)
        cell = emit.Add(emit.Mul(emit.Sigmoid(f), states[1]), emit.Mul(emit.Sigmoid(i), emit.Tanh(g)))
        state = emit.MatMul(emit.Mul(emit.Sigmoid(o), emit.Tanh(cell)), projection)
        state.shape, cell.shape = states[0].shape, states[1].shape
        return [state, cell], [state]

    if steps is None:
        (h, c), (y,) = over_steps(op, [h, c], [before], moved, backwards=backwards)
        return y, h, c
    results: list[ir.Value] = []
    for step in reversed(range(steps)) if backwards else range(steps):
        h, c = moved(op, [h, c], [op.Gather(before, step, axis=0)])[0]
        results.append(op.unsqueeze(h, [0]))
    joined: ir.Value = op.Concat(*(reversed(results) if backwards else results), axis=0)
    return joined, h, c
