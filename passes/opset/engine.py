"""Walks a graph down the opsets, version by version: our step, ONNX's own definition, a wider type, or an obstacle."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.ir import HOME_OPSET, schema_of
from graphforge.ir.describe import describe
from graphforge.ir.versions import Conflict, ConflictKind, changed_at, conflict_of, expand_function
from graphforge.passes.opset.retire import retire_types
from graphforge.passes.opset.step import NoLowerForm, Step, StepDown, Values
from graphforge.passes.opset.widen import widened
from graphforge.transform import Rewriter, bodies_of

__all__ = ["LOWEST_OPSET", "Obstacle", "lower_graph"]

LOWEST_OPSET = 11


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A node that an older opset cannot say.

    Attributes:
        node: the node.
        where: the node and its origin, for messages.
        opset: the lowest opset that can say it.
        reason: why a lower one cannot.
        cure: what to change, "" when there is nothing.
    """

    node: ir.Node
    where: str
    opset: int
    reason: str
    cure: str

    def describe(self) -> str:
        """One line: node, opset, reason and cure."""
        return f"{self.where} needs opset {self.opset}: {self.reason}" + (f"; {self.cure}" if self.cure else "")


def lower_graph(rewriter: Rewriter, opset: int) -> list[Obstacle]:
    """Bring the graph to the opset; what cannot be expressed there is left as it is and reported.

    The graph is at the opset afterwards when the result is empty, else between two opsets and good for nothing.
    """
    graph = rewriter.graph
    current = graph.opset_imports.get("", HOME_OPSET)
    descent = _Descent(rewriter)
    for version in range(current, opset, -1):
        descent.step(version)
    if not descent.obstacles:
        rewriter.set_opset(min(current, opset))
        descent.check(min(current, opset))
    return list(descent.obstacles.values())


@functools.cache
def steps_down_of(version: int) -> Mapping[str, StepDown]:
    """What opset ``version`` brought, said in the opset before it: operator -> step."""
    module = importlib.import_module(f"graphforge.passes.opset.lower_{version}")
    steps: Mapping[str, StepDown] = module.STEPS_DOWN
    return steps


class _Descent:
    """The state of one walk: the nodes by operator, so that a version costs what it changed, and the obstacles."""

    def __init__(self, rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        self.obstacles: dict[ir.Node, Obstacle] = {}
        self.nodes: dict[str, list[ir.Node]] = {}
        self.gone: set[ir.Node] = set()  # nodes in bodies whose owner was replaced
        for node in rewriter.graph.all_nodes():
            self._enlist(node)

    def step(self, version: int) -> None:
        """Bring every node from ``version`` to ``version - 1``."""
        steps = steps_down_of(version)
        for node, reason in retire_types(self.rewriter, version):
            self._report(node, version, NoLowerForm(reason))
        for op_type in sorted(changed_at(version)):
            for node in self.nodes.pop(op_type, ()):
                if node.graph is None or node in self.gone:
                    continue
                if node not in self.obstacles:
                    self._lower(node, version, steps)
                self._enlist(node)

    def _enlist(self, node: ir.Node) -> None:
        if node.domain == "" and node.graph is not None and node not in self.gone:
            self.nodes.setdefault(node.op_type, []).append(node)

    def check(self, opset: int) -> None:
        """The last word: whatever is not legal at the opset is an obstacle too."""
        for node in self.rewriter.graph.all_nodes():
            conflict = conflict_of(node, opset)
            if conflict is not None:
                self._report(node, opset + 1, NoLowerForm(conflict.text))

    def _lower(self, node: ir.Node, version: int, steps: Mapping[str, StepDown]) -> None:
        if node.op_type not in steps and conflict_of(node, version - 1) is None:
            return  # the change only admitted more than this node uses
        op = self.rewriter.builder(node)
        op.opset = version - 1
        step = Step(node, version - 1, self.rewriter, op)
        try:
            values = self._values(step, version, steps)
        except NoLowerForm as failure:
            for made in reversed(op.created):
                if made.graph is not None:
                    self.rewriter.erase(made)
            self._report(node, version, failure)
            return
        made_nodes = list(op.created)
        for made in made_nodes:
            for body in bodies_of(made):
                made_nodes.extend(body.all_nodes())
        if values is not None:
            bodies = list(bodies_of(node))
            self.rewriter.replace(node, values)
            for body in bodies:
                self.gone.update(inner for inner in body.all_nodes() if node.graph is None)
        for made in made_nodes:
            # ONNX's own definitions are written in the version itself: they may use what it brought.
            if made.graph is not None and made.domain == "" and made.op_type in changed_at(version):
                self._lower(made, version, steps)
            self._enlist(made)

    def _values(self, step: Step, version: int, steps: Mapping[str, StepDown]) -> Values | None:
        own = steps.get(step.node.op_type)
        if own is not None:
            values = own(step)
            if values is not None:
                return values
        _drop_defaults(step, version)
        conflict = conflict_of(step.node, step.opset)
        return None if conflict is None else _around(step, version, conflict)

    def _report(self, node: ir.Node, version: int, failure: NoLowerForm) -> None:
        self.obstacles.setdefault(node, Obstacle(node, describe(node), version, failure.reason, failure.cure))


def _drop_defaults(step: Step, version: int) -> None:
    """Remove attributes that the lower opset does not know and that ask for what it does anyway."""
    node = step.node
    new, old = schema_of(node.op_type, "", version), schema_of(node.op_type, "", step.opset)
    if new is None or old is None:
        return
    for name in list(node.attributes):
        if name in old.attributes or name not in new.attributes:
            continue
        default = new.attributes[name].default_value
        if default.name and ir.serde.deserialize_attribute(default).value == node.attributes[name].value:
            step.set(name, None)


def _around(step: Step, version: int, conflict: Conflict) -> Values:
    """Values for a node that has no step of its own: in a wider type, or as ONNX's own definition has it."""
    if conflict.kind == ConflictKind.TYPE:
        values = widened(step, conflict)
        if values is not None:
            return values
    lower, step.op.opset = step.op.opset, version
    try:
        expanded = expand_function(step.node, step.op, version)
    finally:
        step.op.opset = lower
    if expanded is None:
        raise NoLowerForm(conflict.text)
    return expanded
