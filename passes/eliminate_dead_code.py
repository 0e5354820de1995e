"""Remove nodes whose results nobody reads, outputs nobody asked for, and constants nobody uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx

from graphforge.ir import Graph, Node, schema_of
from graphforge.transform import Pass, Rewriter, bodies_of, int_attribute

__all__ = ["EliminateDeadCode"]


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """One walk from the end to the start."""

    name: ClassVar[str] = "eliminate-dead-code"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Clean the graph and its bodies."""
        _nodes(graph, rewriter)
        _constants(graph, rewriter)


def _nodes(graph: Graph, rewriter: Rewriter) -> None:
    for node in reversed(graph):
        if not any(value._uses or value.is_graph_output() for value in node.outputs):
            rewriter.erase(node)
            continue
        # Before the nodes in front of it: what only a dead part of a body read is then dead too.
        if node.attributes:
            for body in bodies_of(node):
                _nodes(body, rewriter)
        if len(node.outputs) > 1:
            _optional_outputs(node, rewriter)


def _optional_outputs(node: Node, rewriter: Rewriter) -> None:
    """Drop optional outputs at the end of the list."""
    if node.domain != "" or node.op_type in ("Split", "If", "Loop", "Scan"):
        return
    if node.op_type == "BatchNormalization" and int_attribute(node, "training_mode", 0):
        return  # must have them all
    schema = schema_of(node.op_type, "", rewriter.opset)
    if schema is None:
        return
    count = len(node.outputs)
    while count > 1:
        value = node.outputs[count - 1]
        formal = schema.outputs[min(count, len(schema.outputs)) - 1]
        if value._uses or value.is_graph_output() or formal.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
            break
        count -= 1
    rewriter.keep_outputs(node, count)


def _constants(graph: Graph, rewriter: Rewriter) -> None:
    pending = [graph]
    while pending:
        current = pending.pop()
        for value in list(current.initializers.values()):
            if not value._uses and not value.is_graph_input() and not value.is_graph_output():
                rewriter.drop_initializer(value)
        for node in current:
            if node.attributes:
                pending.extend(bodies_of(node))
