"""Put the branch of an If in its place when the condition is constant.    if(true, a, b) ==> a"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, Node
from graphforge.transform import Pass, Rewriter, bodies_of, is_constant, is_op, scalar_of

__all__ = ["InlineBranches"]


@dataclass(frozen=True)
class InlineBranches(Pass):
    """Branches of branches too; what the other branch computed is gone."""

    name: ClassVar[str] = "inline-branches"
    edits_through_rewriter: ClassVar[bool] = True

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Inline them in the graph and its bodies."""
        for node in graph:
            if is_op(node, "If") and is_constant(node.inputs[0]):
                # What moves in front of the node is looked at as well: it is put after it first.
                _inline(node, graph, rewriter)
                continue
            for body in bodies_of(node):
                self.run(body, rewriter)


def _inline(node: Node, graph: Graph, rewriter: Rewriter) -> None:
    condition = scalar_of(node.inputs[0])
    if condition is None:
        rewriter.declined("the condition has not exactly one element", node)
        return
    body = node.attributes["then_branch" if condition else "else_branch"].as_graph()
    results = list(body.outputs)
    nodes = list(body)
    constants = list(body.initializers.values())
    body.outputs.clear()
    body.initializers.clear()
    body.remove(nodes)
    for value in constants:
        value.name = rewriter.names.fresh(str(value.name))
        rewriter.graph.register_initializer(value)
    for inner in nodes:
        for value in inner.outputs:
            if value.name:
                value.name = rewriter.names.fresh(value.name)
        for deeper in bodies_of(inner):
            _rename(deeper, rewriter)
    # Behind the node, so that the walk comes past them; what reads them stands further behind.
    graph.insert_after(node, nodes)
    rewriter.changes += 1
    rewriter.replace(node, results)


def _rename(body: Graph, rewriter: Rewriter) -> None:
    """Two branches may use the same names; inlined they would meet."""
    for value in (*body.inputs, *body.initializers.values()):
        value.name = rewriter.names.fresh(str(value.name))
    for node in body:
        for value in node.outputs:
            if value.name:
                value.name = rewriter.names.fresh(value.name)
        for deeper in bodies_of(node):
            _rename(deeper, rewriter)
