"""Compute once what is computed twice: nodes of the same operator, inputs and attributes become one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.ir import Graph, Node
from graphforge.transform import Pass, Rewriter, bodies_of
from graphforge.transform.pattern import COMMUTATIVE

__all__ = ["EliminateCommonSubexpressions"]

# Another value each time, or (Identity) nothing to compute: it stands where a graph output needs a node of its own.
_NEVER = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout Identity".split()
)
# Attributes that are large tensors are compared by identity only.
_LARGE = 1 << 16


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """One walk with a table of what is computed already; a body also finds what its enclosing graphs compute."""

    name: ClassVar[str] = "eliminate-common-subexpressions"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge equal nodes of the graph and its bodies."""
        _graph(graph, rewriter, {}, {})


def _graph(graph: Graph, rewriter: Rewriter, table: dict[Hashable, Node], order: dict[ir.Value, int]) -> None:
    added: list[Hashable] = []
    for node in graph:
        if node.attributes:
            for body in bodies_of(node):
                _graph(body, rewriter, table, order)
        key = _key(node, order)
        if key is None:
            continue
        known = table.get(key)
        if known is None:
            table[key] = node
            added.append(key)
            continue
        for value, other in zip(node.outputs, known.outputs, strict=True):
            # An Identity in its place would save nothing.
            if value.is_graph_output() and (other.is_graph_output() or other.graph is not graph):
                break
        else:
            rewriter.replace(node, known.outputs)
    # What a body computes is not there outside of it.
    for key in added:
        del table[key]


def _key(node: Node, order: dict[ir.Value, int]) -> Hashable | None:
    """What the node computes; None when nodes like it are never merged."""
    if node.domain not in ("", "graphforge") or node.op_type in _NEVER:
        return None
    inputs: tuple[ir.Value | None, ...] = tuple(node.inputs)
    if len(inputs) == 2 and node.op_type in COMMUTATIVE and node.domain == "":
        one, other = inputs
        if one is not None and other is not None and _rank(one, order) > _rank(other, order):
            inputs = (other, one)
    attributes: list[tuple[str, Hashable]] = []
    if node.attributes:
        for name, attribute in sorted(node.attributes.items()):
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) or attribute.is_ref():
                return None
            attributes.append((name, _attribute_key(attribute)))
    return (node.domain, node.op_type, node.overload, inputs, tuple(attributes), len(node.outputs))


def _rank(value: ir.Value, order: dict[ir.Value, int]) -> int:
    """A number of its own for each value, the same in every run."""
    return order.setdefault(value, len(order))


def _attribute_key(attribute: ir.Attr) -> Hashable:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        if value.nbytes > _LARGE or value.dtype == ir.DataType.STRING:
            return id(value)
        return (value.dtype, tuple(value.shape.numpy()), value.tobytes())
    if isinstance(value, list):
        return tuple(value)
    # 1 and 1.0 are equal in Python, but not as attributes.
    return (attribute.type, value) if isinstance(value, Hashable) else id(value)
