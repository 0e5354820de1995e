"""Listeners: every edit of a graph is told at the one place where edits are made, the Rewriter.

The count that says whether a pass changed anything is one of them; so are the journal, and whoever wants to know what
took the place of what.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

__all__ = ["ChangeCount", "RewriteListener"]


class RewriteListener:
    """Hears of edits; a subclass says what it wants to hear.  ``Rewriter(listeners=...)`` or ``add_listener``."""

    def rule_starts(self, rule: str, nodes: Sequence[ir.Node]) -> None:
        """A rule is about to rewrite the nodes that it matched, the root first."""

    def rule_ends(self, fired: bool) -> None:
        """The rule is done; ``fired`` says whether it changed anything."""

    def node_replacing(self, nodes: Sequence[ir.Node]) -> None:
        """Other values are about to take the place of what the first of the nodes computes; all may be erased."""

    def node_editing(self, node: ir.Node) -> None:
        """An input or an attribute of a node is about to change, or the node is about to be taken out."""

    def node_created(self, node: ir.Node) -> None:
        """A node was built and stands in its graph."""

    def node_replaced(self, node: ir.Node, made: Sequence[ir.Node]) -> None:
        """Other values took the place of what a node computes; ``made`` are the nodes built for it, which may be none.

        Told after the edits that it consists of, each of which was told itself.
        """

    def node_erased(self, node: ir.Node) -> None:
        """A node was taken out of its graph."""

    def input_changed(self, node: ir.Node, index: int) -> None:
        """A node reads another value, or one more or less."""

    def attribute_changed(self, node: ir.Node, name: str) -> None:
        """An attribute was set or removed."""

    def value_changed(self, value: ir.Value) -> None:
        """A value's type, shape or data are others."""

    def rewrite_declined(self, rule: str, reason: str, node: ir.Node | None) -> None:
        """What nearly fired at a node and did not; ``rule`` is the pass where no rule did it."""

    def graph_changed(self, graph: ir.Graph, what: str) -> None:
        """Something of the graph as a whole: its ``outputs``, ``constants``, ``opset``, or the ``order`` of nodes."""


class ChangeCount(RewriteListener):
    """How many edits there were; zero means that the graph is untouched."""

    def __init__(self) -> None:
        self.changes = 0

    def node_created(self, node: ir.Node) -> None:
        """One more."""
        self.changes += 1

    def node_erased(self, node: ir.Node) -> None:
        """One more."""
        self.changes += 1

    def input_changed(self, node: ir.Node, index: int) -> None:
        """One more."""
        self.changes += 1

    def attribute_changed(self, node: ir.Node, name: str) -> None:
        """One more."""
        self.changes += 1

    def value_changed(self, value: ir.Value) -> None:
        """One more."""
        self.changes += 1

    def graph_changed(self, graph: ir.Graph, what: str) -> None:
        """One more."""
        self.changes += 1
