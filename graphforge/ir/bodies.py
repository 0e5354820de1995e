"""The bodies of If, Loop and Scan: which there are, the nodes in them, and types and shapes across their border."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from graphforge.ir.infer import infer_node

__all__ = ["bodies_of", "infer_bodies", "nodes_of", "type_body_inputs", "type_outputs_of_bodies"]


# The operators of the default domain that carry graphs; nodes of other domains are looked at.
_WITH_BODIES = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def bodies_of(node: ir.Node) -> Sequence[ir.Graph]:
    """The graphs a node carries (If, Loop, Scan)."""
    if node.domain == "" and node.op_type not in _WITH_BODIES:
        return ()
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def nodes_of(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes of a graph, each followed by those of its bodies; survives edits as iterating over a graph does.

    Several times faster than ``Graph.all_nodes``, which looks at every attribute of every node.
    """
    for node in graph:
        yield node
        if node.domain != "" or node.op_type in _WITH_BODIES:
            for body in bodies_of(node):
                yield from nodes_of(body)


def infer_bodies(node: ir.Node, opset: int) -> None:
    """Fill in unknown types and shapes in the bodies of a control-flow node, then those of its outputs."""
    for position, body in enumerate(bodies_of(node)):
        type_body_inputs(node, position, body)
        for inner in body:
            if bodies_of(inner):
                infer_bodies(inner, opset)
            infer_node(inner, opset)
    type_outputs_of_bodies(node)


def type_body_inputs(node: ir.Node, position: int, body: ir.Graph) -> None:
    """Give the inputs of a Loop's or Scan's body the types of what the node hands to them, where they have none."""
    given: list[ir.Value | None] = []
    if node.domain != "":
        return
    if node.op_type == "Loop" and position == 0:
        for value, kind in zip(body.inputs[:2], (ir.DataType.INT64, ir.DataType.BOOL), strict=False):
            if value.type is None:
                value.type = ir.TensorType(kind)
            if value.shape is None:
                value.shape = ir.Shape([])
        given = [None, None, *node.inputs[2:]]
    elif node.op_type == "Scan" and position == 0 and len(node.inputs) == len(body.inputs):
        # That of opset 8 has one input more: the lengths.
        given = list(node.inputs)
        _shape_scanned(node, body)
    for value, outer in zip(body.inputs, given, strict=False):
        if outer is not None and value.type is None:
            value.type = outer.type


def _shape_scanned(node: ir.Node, body: ir.Graph) -> None:
    """A scanned input reaches the body without the axis it is scanned along."""
    count_attribute = node.attributes.get("num_scan_inputs")
    if count_attribute is None:
        return
    count = count_attribute.as_int()
    axes_attribute = node.attributes.get("scan_input_axes")
    axes = list(axes_attribute.as_ints()) if axes_attribute is not None else [0] * count
    first = len(node.inputs) - count
    for value, outer, axis in zip(body.inputs[first:], node.inputs[first:], axes, strict=False):
        if value.shape is not None or outer is None or outer.shape is None or len(outer.shape) == 0:
            continue
        gone = axis % len(outer.shape)
        value.shape = ir.Shape([dim for place, dim in enumerate(outer.shape.dims) if place != gone])


def type_outputs_of_bodies(node: ir.Node) -> None:
    """Give the outputs of a control-flow node the types of what its bodies hand out, where they have none."""
    bodies = list(bodies_of(node))
    if not bodies or node.domain != "" or node.op_type not in ("If", "Loop", "Scan"):
        return
    skipped = 1 if node.op_type == "Loop" else 0
    for value, inner in zip(node.outputs, bodies[0].outputs[skipped:], strict=False):
        if value.type is None:
            value.type = inner.type
    if node.op_type == "If" and len(bodies) == 2:
        for value, one, other in zip(node.outputs, bodies[0].outputs, bodies[1].outputs, strict=False):
            if value.shape is None and one.shape is not None and one.shape == other.shape:
                value.shape = one.shape.copy()
        return
    states = len(node.inputs) - 2
    if node.op_type == "Scan" and "num_scan_inputs" in node.attributes:
        states = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
    outputs = list(zip(node.outputs, bodies[0].outputs[skipped:], strict=False))
    for value, inner in outputs[states:]:
        if node.op_type == "Loop" and value.shape is None and inner.shape is not None:
            value.shape = ir.Shape([ir.SymbolicDim(None), *inner.shape.dims])
