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
    # Behind the node, so that the walk comes past them; what reads them stands further behind.
    rewriter.replace(node, rewriter.move_out(body, node))
