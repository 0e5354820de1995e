"""Snapshot: all that a pass can change in a graph, for comparison.  It tells of edits that no rewriter was told of."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.transform.facts import bodies_of

__all__ = ["snapshot"]


def snapshot(model: ir.Model) -> list[tuple[Any, ...]]:
    """The facts of a model, by identity; equal to a later one when nothing was edited in between."""
    facts: list[tuple[Any, ...]] = []
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        facts.append((tuple(graph.inputs), tuple(graph.outputs), tuple(output.name for output in graph.outputs)))
        facts.extend(map(_declared, graph.inputs))
        facts.extend((name, value, value.const_value) for name, value in graph.initializers.items())
        for node in graph:
            attributes = tuple(node.attributes.values()) if node.attributes else ()
            # Attr compares by value, which for tensors is slow: compare identities.
            facts.append((node, node.domain, node.op_type, node.inputs, node.outputs, tuple(map(_Same, attributes))))
            for value in node.outputs:
                facts.append(_declared(value))
            if attributes:
                pending.extend(bodies_of(node))
    return facts


def _declared(value: ir.Value) -> tuple[Any, ...]:
    return value.name, value.type, None if value.shape is None else tuple(value.shape.dims)


class _Same:
    """Equal to nothing but the same object."""

    __slots__ = ("item",)

    def __init__(self, item: object) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.item is other.item

    def __hash__(self) -> int:
        return hash(id(self.item))
