"""Readable, stable names for nodes and values: module paths, not numbers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphforge.ir import bodies_of, origins_of

__all__ = ["assign_names"]


def assign_names(model: ir.Model) -> None:
    """Name every node ``module.path/OpType`` and its output alike; graph inputs, outputs and weights keep theirs.

    A name that would occur twice gets ``_1``, ``_2``, ... in graph order, so the same model has the same names always.
    """
    graph = model.graph
    reserved = {value.name for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()) if value.name}
    outputs = set(graph.outputs)
    taken: dict[str, int] = dict.fromkeys(reserved, 0)
    node_names: dict[str, int] = {}
    for owner, node in _nodes(graph):
        origins = origins_of(node)
        module = origins[0].module if origins else ""
        base = f"{module}/{node.op_type}" if module else node.op_type
        node.name = _unique(base, node_names)
        fixed = outputs if owner is graph else {*outputs, *owner.inputs}
        for position, value in enumerate(node.outputs):
            if value in fixed:
                continue
            if value.name == "" and not value.uses():
                continue  # an optional output left out
            value.name = _unique(node.name if position == 0 else f"{node.name}:{position}", taken)
    for owner in _subgraphs(graph):
        for value in owner.inputs:
            value.name = _unique(value.name or "carried", taken)


def _unique(base: str, taken: dict[str, int]) -> str:
    if base not in taken:
        taken[base] = 0
        return base
    while True:
        taken[base] += 1
        name = f"{base}_{taken[base]}"
        if name not in taken:
            taken[name] = 0
            return name


def _nodes(graph: ir.Graph) -> Iterator[tuple[ir.Graph, ir.Node]]:
    for node in graph:
        yield graph, node
        for body in bodies_of(node):
            yield from _nodes(body)


def _subgraphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    for node in graph:
        for body in bodies_of(node):
            yield body
            yield from _subgraphs(body)
