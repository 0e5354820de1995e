"""Write the graph in an older opset, one version at a time; what that opset cannot express is an error with a cure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.ir import HOME_OPSET, Graph, describe, here, nodes_of
from graphforge.ir.versions import ir_version_for, versions_of
from graphforge.passes.opset.engine import LOWEST_OPSET, lower_graph, steps_down_of
from graphforge.passes.opset.other_forms import OTHER_FORMS
from graphforge.passes.opset.step import NoLowerForm, Step
from graphforge.targets.tables import Facts, Form, facts_of
from graphforge.transform import Pass, Rewriter

__all__ = ["LegaliseOpset"]

# A reader needs the first few; the rest have the same kind of reason.
_SHOWN = 6


@dataclass(frozen=True)
class LegaliseOpset(Pass):
    """Lower every node to what it was called and how it worked then.

    Attributes:
        opset: the version of the default domain to arrive at, 11 to the home opset.
        runtime: go lower still where this runtime (by the name of its table of facts, ``onnxruntime``, or the path of
            one) has no kernel for an operator at ``opset``, and write in another form what its table says that it does
            badly or wrongly, node by node; "" asks no runtime.
        exactly: arrive at ``opset`` itself, whatever the runtime has no kernel for there.
    """

    name: ClassVar[str] = "legalise-opset"
    opset: int = HOME_OPSET
    runtime: str = ""
    exactly: bool = False

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Lower every node.

        Raises:
            UsageError: there is no such opset, or the graph is at an older one already.
            GraphForgeError: some nodes cannot be expressed there; names them, their origins and what to do.
        """
        current = graph.opset_imports.get("", HOME_OPSET)
        if not LOWEST_OPSET <= self.opset <= HOME_OPSET:
            raise UsageError(
                f"opset {self.opset} cannot be delivered, expected {LOWEST_OPSET} to {HOME_OPSET}",
                f"graphs are written in opset {HOME_OPSET} and never raised" if self.opset > HOME_OPSET else "",
            )
        if self.opset > current:
            raise UsageError(f"the graph is at opset {current} already, it cannot be raised to {self.opset}")
        facts = facts_of(self.runtime) if self.runtime else None
        target = self.opset if facts is None or self.exactly else self._with_kernels(graph, rewriter, facts)
        obstacles = lower_graph(rewriter, target)
        if obstacles:
            needed = max(obstacle.opset for obstacle in obstacles)
            shown = [obstacle.describe() for obstacle in obstacles[:_SHOWN]]
            shown.insert(1, here(obstacles[0].node))
            if len(obstacles) > _SHOWN:
                shown.append(f"... and {len(obstacles) - _SHOWN} more")
            count = "one node" if len(obstacles) == 1 else f"{len(obstacles)} nodes"
            raise GraphForgeError(
                f"the model cannot be written in opset {target}: {count} cannot be expressed there",
                *shown,
                f"the lowest opset that would do is {needed}: {argument('opset', needed)}",
            )
        rewritten = 0 if facts is None else _in_other_forms(graph, rewriter, facts, target)
        if target != current or rewritten:
            _drop_orphans(graph, rewriter)
        rewriter.model.ir_version = min(rewriter.model.ir_version or 99, ir_version_for(target))

    def _with_kernels(self, graph: Graph, rewriter: Rewriter, facts: Facts) -> int:
        nodes = [node for node in nodes_of(graph) if node.domain == ""]
        # the newest opset at which each operator found here has a kernel
        last = {
            node.op_type: facts.without_kernel[node.op_type] - 1
            for node in nodes
            if node.op_type in facts.without_kernel and _has_older_version(node.op_type, facts)
        }
        target = min((self.opset, *last.values()))
        if target < self.opset:
            names = ", ".join(sorted(name for name, opset in last.items() if opset < self.opset))
            rewriter.note(f"opset {target}: {facts.called} has no CPU kernel for {names} above it")
        return target


def _in_other_forms(graph: Graph, rewriter: Rewriter, facts: Facts, opset: int) -> int:
    """Write node by node what the runtime wants in another form; the number of nodes written so."""
    done: Counter[Form] = Counter()
    asked = [form for form in facts.forms if form.before <= opset]
    for node in [one for one in nodes_of(graph) if any(one.op_type == form.operator for form in asked)]:
        form = next((form for form in asked if form.means(node)), None)
        if form is not None and _in_another_form(node, form, rewriter, facts, opset):
            done[form] += 1
    for form, count in done.items():
        if form.wrong:
            nodes = "one node is" if count == 1 else f"{count} nodes are"
            how = f"as before opset {form.before}" if form.before else form.written.replace("-", " ")
            rewriter.note(f"{form.operator}: {nodes} written {how}: {facts.called} {form.because}")
    return done.total()


def _in_another_form(node: ir.Node, form: Form, rewriter: Rewriter, facts: Facts, opset: int) -> bool:
    """Whether the node was written so.

    Raises:
        GraphForgeError: it cannot be, and the runtime gets it wrong as it is.
    """
    op = rewriter.builder(node)
    op.opset = opset
    step = steps_down_of(form.before)[node.op_type] if form.before else OTHER_FORMS.get(form.written)
    try:
        if step is None:
            raise NoLowerForm("nothing here writes it otherwise", form.cure)
        values = step(Step(node, opset, rewriter, op))
    except NoLowerForm as failure:
        for made in reversed(op.created):
            if made.graph is not None:
                rewriter.erase(made)
        if not form.wrong:
            return False
        raise GraphForgeError(
            f"{facts.called} {form.because}, and {describe(node)} has no other form: {failure.reason}",
            here(node),
            failure.cure or form.cure,
        ) from None
    if values is None:
        return False
    rewriter.replace(node, values)
    return True


def _has_older_version(op_type: str, facts: Facts) -> bool:
    """Whether the operator has a version with a kernel that can be delivered: Swish has none at any opset."""
    versions = [version for version in versions_of(op_type) if version < facts.without_kernel[op_type]]
    return bool(versions) and facts.without_kernel[op_type] > LOWEST_OPSET


def _drop_orphans(graph: Graph, rewriter: Rewriter) -> None:
    """Constants that nobody reads any more, such as axes that became attributes."""
    for value in list(graph.initializers.values()):
        if not value._uses and not value.is_graph_output() and not value.is_graph_input():
            rewriter.drop_initializer(value)
