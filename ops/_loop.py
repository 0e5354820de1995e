"""A Loop whose body is written as a Python function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from graphforge.ir import Builder, Operand

__all__ = ["loop"]

# Builder of the body, number of the round, carried values -> whether to go on, the carried values of the next round.
Body = Callable[[Builder, ir.Value, list[ir.Value]], tuple[ir.Value | None, Sequence[ir.Value]]]


def loop(op: Builder, carried: Sequence[ir.Value], body: Body, *, name: str, rounds: Operand = None) -> list[ir.Value]:
    """Run ``body`` until it says stop, or ``rounds`` times; returns what was carried last.

    Shapes and types of the carried values stay as they are at the start.  The body may read any value of the graph
    around it.
    """
    graph = ir.Graph([], [], nodes=[], name=op.fresh_name(name))
    inner = op.inside(graph)
    scalar = ir.Shape([])
    number = ir.Value(name=op.fresh_name(f"{name}_round"), type=ir.TensorType(ir.DataType.INT64), shape=scalar)
    goes_on = ir.Value(name=op.fresh_name(f"{name}_goes_on"), type=ir.TensorType(ir.DataType.BOOL), shape=scalar)
    graph.inputs.extend([number, goes_on])
    for start in carried:
        shape = None if start.shape is None else start.shape.copy()
        graph.inputs.append(ir.Value(name=op.fresh_name(f"{name}_carried"), type=start.type, shape=shape))
    again, following = body(inner, number, list(graph.inputs[2:]))
    for value in (goes_on if again is None else again, *following):
        producer = value.producer()
        made_here = producer is not None and producer.graph is graph and value not in graph.outputs
        graph.outputs.append(value if made_here else inner.Identity(value))
    # TensorRT knows the condition inside only where one comes from outside.
    made = op.node("Loop", [rounds, True, *carried], _outputs=len(carried), body=graph)
    results = [made] if isinstance(made, ir.Value) else list(made)
    for result, start in zip(results, carried, strict=True):
        result.type = start.type
        result.shape = None if start.shape is None else start.shape.copy()
    return results
