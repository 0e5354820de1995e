"""A computation over the steps of one axis as ONNX's Scan, for operators that ONNX does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter

__all__ = ["over_steps"]

Step = Callable[[Emitter, list[ir.Value], list[ir.Value]], tuple[list[ir.Value], list[ir.Value]]]


def over_steps(
    op: Emitter,
    states: Sequence[ir.Value],
    sequences: Sequence[ir.Value],
    step: Step,
    *,
    backwards: bool = False,
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Hand states from step to step along the first axis, and collect what each step gives.

    Along other axes ONNX Runtime's Scan ends the process where there are no elements; along the first it refuses to run
    no steps at all.

    Args:
        op: where to emit.
        states: what the first step starts with.
        sequences: what is cut into steps.
        step: given an emitter of the body, the states and this step's slices, returns new states and results, of the
            types and shapes of the states and of the slices of the first sequence.
        backwards: begin with the last step; its results still stand last.

    Returns:
        The last states, and the results with all steps in them.
    """
    body = Emitter(ir.Graph([], [], nodes=[], name="step"), constants=op.constants, origins=op.origins)
    body.symbol_names = op.symbol_names

    def taken(value: ir.Value, name: str, behind: int) -> ir.Value:
        assert value.shape is not None
        inner = ir.Value(name=name, type=value.type, shape=ir.Shape(value.shape.dims[behind:]))
        body.graph.inputs.append(inner)
        return inner

    inside = [taken(state, f"state_{place}", 0) for place, state in enumerate(states)]
    slices = [taken(sequence, f"step_{place}", 1) for place, sequence in enumerate(sequences)]
    new_states, results = step(body, inside, slices)
    for result in (*new_states, *results):
        if result.producer() is None or result in body.graph.outputs:  # every output is made inside, and once
            shape = result.shape
            result = body.Identity(result)
            result.shape = shape
        body.graph.outputs.append(result)
    made = op.node(
        "Scan",
        [*states, *sequences],
        _outputs=len(new_states) + len(results),
        body=body.graph,
        num_scan_inputs=len(sequences),
        scan_input_directions=[int(backwards)] * len(sequences),
        scan_output_directions=[int(backwards)] * len(results),
    )
    values = [made] if isinstance(made, ir.Value) else list(made)
    assert sequences[0].shape is not None
    steps = sequences[0].shape.dims[0]
    for place, (value, inner) in enumerate(zip(values, body.graph.outputs, strict=True)):
        assert inner.shape is not None
        dims = list(inner.shape.dims)
        if place >= len(new_states):
            dims.insert(0, steps)
        value.type, value.shape = inner.type, ir.Shape(dims)
    return values[: len(new_states)], values[len(new_states) :]
