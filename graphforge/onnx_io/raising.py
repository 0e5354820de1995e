"""Bring every node of an imported file to the home opset: older forms by steps, newer ones where they mean the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, Builder, here, infer_node, origins_of, schema_of
from graphforge.ir.bodies import bodies_of, type_body_inputs, type_outputs_of_bodies
from graphforge.ir.describe import describe
from graphforge.ir.versions import ConflictKind, conflict_of, versions_of
from graphforge.onnx_io.newer import lower_to_home
from graphforge.onnx_io.older import RAISES

__all__ = ["raise_graph"]

# From opset 6 on every change of an operator is covered; what changed before was never widely written to files.
_FIRST_COVERED = 6


@dataclass(slots=True)
class _Stated:
    """What the file says of its values.

    Attributes:
        trusted: whether its word is taken for sizes that nodes do not tell.
        taken: whether it was taken for any.
        wrong: where nodes compute something else.
    """

    trusted: bool
    taken: bool = False
    wrong: list[str] = field(default_factory=list)


def raise_graph(graph: ir.Graph, notes: list[str], *, as_stated: bool = True) -> bool:
    """Rewrite all nodes, bodies included, from ``node.version`` to the home opset and infer their types on the way.

    Args:
        graph: of the file.
        notes: what the user should know is added to them.
        as_stated: take the file's word for sizes that nodes do not tell.

    Returns:
        Whether its word was taken for any.

    Raises:
        GraphForgeError: a node cannot be expressed at the home opset.
    """
    stated = _Stated(as_stated)
    _raise_nodes(graph, graph, stated)
    wrong = stated.wrong
    if wrong:
        shown = "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else "")
        notes.append(f"the file states {len(wrong)} shapes or types that its nodes do not compute: {shown}")
    return stated.taken


def _raise_nodes(graph: ir.Graph, main: ir.Graph, stated: _Stated) -> None:
    for node in graph:
        bodies = bodies_of(node)
        for position, body in enumerate(bodies):
            type_body_inputs(node, position, body)
            _raise_nodes(body, main, stated)
        if node.domain == "" and node.version is not None:
            _raise_node(node, main)
        if node.graph is None:
            continue  # replaced; what stands for it was inferred as it was built
        node.version = None
        if bodies:
            type_outputs_of_bodies(node)
            infer_node(node, HOME_OPSET)
        else:
            _infer(node, stated)


def _infer(node: ir.Node, stated: _Stated) -> None:
    """Types and shapes of the outputs; what the file states fills the gaps, and gives way where it disagrees."""
    before = [(value.type, value.shape) for value in node.outputs]
    for value in node.outputs:
        value.type = value.shape = None
    infer_node(node, HOME_OPSET)
    for value, (kind, shape) in zip(node.outputs, before, strict=True):
        if value.type is None:
            value.type = kind
        elif kind is not None and value.type != kind:
            stated.wrong.append(f"{value.name} ({kind}, computed {value.type})")
        if shape is None:
            continue
        if value.shape is None:
            if stated.trusted:
                value.shape = shape
            stated.taken = stated.taken or stated.trusted
        elif not _fill(value.shape, shape, stated):
            stated.wrong.append(f"{value.name} ({shape}, computed {value.shape})")


def _fill(shape: ir.Shape, theirs: ir.Shape, stated: _Stated) -> bool:
    """Take over the file's dims where the computed ones are unknown; False where the two contradict each other."""
    if len(shape) != len(theirs):
        return False
    agrees = True
    for axis, (our_dim, their_dim) in enumerate(zip(list(shape.dims), theirs.dims, strict=True)):
        if isinstance(our_dim, int):
            agrees = agrees and (not isinstance(their_dim, int) or their_dim == our_dim)
        elif our_dim.value is None and stated.trusted and (isinstance(their_dim, int) or their_dim.value is not None):
            shape[axis] = their_dim
            stated.taken = True
    return agrees


def _raise_node(node: ir.Node, main: ir.Graph) -> None:
    version = node.version
    assert version is not None
    assert node.graph is not None
    schema = schema_of(node.op_type, "", version)
    if schema is None:
        known = versions_of(node.op_type)
        raise GraphForgeError(
            f"{describe(node)}: opset {version} has no such operator",
            here(node),
            f"it came with opset {known[0]}" if known else "an operator of your own needs a domain of its own",
        )
    problem = conflict_of(node, version)
    if problem is not None and not schema.deprecated:
        attribute = problem.name if problem.kind is ConflictKind.ATTRIBUTE else None
        raise GraphForgeError(f"{describe(node)}: {problem.text}", here(node, attribute=attribute))
    origins = origins_of(node)
    op = Builder(node.graph, before=node, origins=origins, opset=HOME_OPSET, constants=main)
    if schema.since_version > HOME_OPSET:
        values = lower_to_home(node, op, version)
    else:
        values = _raised(node, op, version)
    if values is not None:
        _replace(node, values)
        return
    problem = conflict_of(node, HOME_OPSET)
    if problem is not None:
        raise GraphForgeError(
            f"{describe(node)}, written in opset {version}, cannot be expressed at opset {HOME_OPSET}: {problem.text}",
            here(node),
        )


def _raised(node: ir.Node, op: Builder, version: int) -> list[ir.Value | None] | None:
    history = [since for since in versions_of(node.op_type) if version < since <= HOME_OPSET]
    if history and history[0] <= _FIRST_COVERED:
        raise GraphForgeError(
            f"{describe(node)} is written in opset {version}; it has changed at opset {history[0]}",
            f"files from opset {_FIRST_COVERED} on can be read; export this one again",
        )
    for since, step in RAISES.get(node.op_type, ()):
        if since <= version:
            continue
        values = step(node, op)
        if values is not None:
            return values
    return None


def _replace(node: ir.Node, values: list[ir.Value | None]) -> None:
    """Let the new values take over uses, names and types, and remove the node."""
    graph = node.graph
    assert graph is not None
    for old, new in zip(node.outputs, values, strict=True):
        if new is None:
            continue
        if new.type is None:
            new.type = old.type
        if new.shape is None:
            new.shape = old.shape
        producer = new.producer()
        if producer is None or producer.graph is not graph or (old.is_graph_output() and new.is_graph_output()):
            identity = ir.Node("", "Identity", [new], num_outputs=1)
            identity.outputs[0].type, identity.outputs[0].shape = new.type, new.shape
            graph.insert_before(node, identity)
            new = identity.outputs[0]
        if old.is_graph_output():
            for position, output in enumerate(graph.outputs):
                if output is old:
                    graph.outputs[position] = new
        name, old.name = old.name, None
        new.name = name
        ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)
