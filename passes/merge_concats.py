"""Merge a concat into the concat that reads it.    concat(concat(a, b), c) ==> concat(a, b, c), on the same axis"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, Node, Value
from graphforge.transform import Pass, Rewriter, bodies_of, has_one_use, int_attribute, is_op, rank_of

__all__ = ["MergeConcats"]


@dataclass(frozen=True)
class MergeConcats(Pass):
    """One walk in the order of the graph: a chain of concats becomes one, whatever its length.

    A concat that others read as well stays: merging it would compute its elements twice.
    """

    name: ClassVar[str] = "merge-concats"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge them in the graph and its bodies."""
        for node in graph:
            for body in bodies_of(node):
                self.run(body, rewriter)
            if is_op(node, "Concat"):
                _merge(node, graph, rewriter)


def _merge(node: Node, graph: Graph, rewriter: Rewriter) -> None:
    operands: list[Value | None] = []
    inner: list[Node] = []
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is None or producer is None or not is_op(producer, "Concat"):
            operands.append(value)
        elif not has_one_use(value) or producer.graph is not graph:
            rewriter.declined("the inner concat is read by others too", node)
            operands.append(value)
        elif _axis(producer) is None or _axis(producer) != _axis(node):
            rewriter.declined("the axes differ, or the rank is unknown", node)
            operands.append(value)
        else:
            operands.extend(producer.inputs)
            inner.append(producer)
    if inner:
        op = rewriter.builder(node)
        rewriter.replace([node, *inner], op.Concat(*operands, axis=int_attribute(node, "axis", 0)))


def _axis(node: Node) -> int | None:
    rank = rank_of(node.outputs[0])
    axis = int_attribute(node, "axis", 0)
    return axis if rank is None and axis >= 0 else None if rank is None else axis % rank
