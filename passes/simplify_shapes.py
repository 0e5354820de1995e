"""Write shape operands that are computed at run time as constants: 0 copies a dim, one dim may be -1."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphforge.ir import Graph, Node, constant_of
from graphforge.ir.sizes import may_be_zero
from graphforge.passes.merge_reshapes import promised_zeros
from graphforge.transform import Pass, Rewriter, bodies_of, int_attribute, is_constant
from graphforge.transform.shape_values import Element, ShapeValues, Term

__all__ = ["SimplifyShapes"]


@dataclass(frozen=True)
class SimplifyShapes(Pass):
    """Follow what shape computations hold; where the operand can be a constant, the computation dies."""

    name: ClassVar[str] = "simplify-shapes"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Simplify the graph and its bodies."""
        _graph(graph, rewriter, ShapeValues())


def _graph(graph: Graph, rewriter: Rewriter, values: ShapeValues) -> None:
    for node in graph:
        if node.domain == "":
            simplify = _SIMPLIFICATIONS.get(node.op_type)
            if simplify is not None:
                simplify(node, rewriter, values)
            if node.graph is not None:
                values.visit(node)
        if node.attributes:
            for body in bodies_of(node):
                _graph(body, rewriter, values)


def _reshape(node: Node, rewriter: Rewriter, values: ShapeValues) -> None:
    source, shape = node.inputs[0], node.inputs[1]
    if source is None or shape is None or is_constant(shape) or int_attribute(node, "allowzero", 0):
        return
    wanted = values.elements(shape)
    dims = values.dims(source)
    if wanted is None or dims is None:
        rewriter.declined("what the target holds is unknown", node)
        return
    # A 0 in the target would copy; a dim that happens to be 0 at run time does so as well, and copies what it replaces.
    target = _target(wanted, dims, promised_zeros(rewriter))
    if target is None:
        rewriter.declined("more than one dim of the target is unknown", node)
        return
    _set_constant(node, 1, target, rewriter)


def _target(wanted: tuple[Element, ...], dims: tuple[Element, ...], zeros: Collection[str]) -> list[int] | None:
    target: list[int] = []
    copied: list[Term] = []
    for axis, item in enumerate(wanted):
        if isinstance(item, int):
            target.append(item)
        elif axis < len(dims) and item == dims[axis]:
            target.append(0)
            copied.append(item)
        elif -1 in target or -1 in wanted:
            return None
        else:
            target.append(-1)
    if -1 not in target:
        return target
    # Besides a dim of size 0, a -1 has no value.
    if 0 in wanted or any(may_be_zero(symbol, zeros) for item in copied for symbol in item.symbols):
        return None
    return target


def _expand(node: Node, rewriter: Rewriter, values: ShapeValues) -> None:
    source, shape = node.inputs[0], node.inputs[1]
    if source is None or shape is None or is_constant(shape):
        return
    wanted, dims = values.elements(shape), values.dims(source)
    if wanted is None or dims is None:
        return
    target: list[int] = []
    offset = len(wanted) - len(dims)
    for axis, item in enumerate(wanted):
        if isinstance(item, int):
            target.append(item)
        elif axis >= offset and dims[axis - offset] == item:
            target.append(1)  # the input has this dim already
        else:
            rewriter.declined("the target has a dim that is known at run time only", node)
            return
    _set_constant(node, 1, target, rewriter)


def _slice(node: Node, rewriter: Rewriter, values: ShapeValues) -> None:
    """An end that is the size of the axis is written as "to the end"."""
    source, ends = node.inputs[0], node.inputs[2]
    if source is None or ends is None or is_constant(ends):
        return
    wanted, dims = values.elements(ends), values.dims(source)
    steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = constant_of(node.inputs[3])
    else:
        axes = np.arange(0 if wanted is None else len(wanted))
    if wanted is None or dims is None or axes is None or steps is None or (steps < 0).any():
        return
    target: list[int] = []
    for item, axis in zip(wanted, axes.tolist(), strict=True):
        if isinstance(item, int):
            target.append(item)
        elif dims[axis] == item:
            target.append(2**63 - 1)
        else:
            return
    _set_constant(node, 2, target, rewriter)


def _set_constant(node: Node, index: int, target: list[int], rewriter: Rewriter) -> None:
    old = node.inputs[index]
    assert old is not None
    dtype = np.int64 if old.dtype is None else old.dtype.numpy()
    rewriter.set_input(node, index, rewriter.constant(np.array(target, dtype=dtype)))


_SIMPLIFICATIONS: dict[str, Callable[[Node, Rewriter, ShapeValues], None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
}
