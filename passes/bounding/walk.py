"""The walk over a graph that carries ragged tensors in fixed shapes: what is known of each value, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphforge.ir import Builder, bodies_of, constant_of, operator_name
from graphforge.ir.sizes import PROMISED_SIZES, largest
from graphforge.passes.bounding.rows import Extent, Ragged, Refusal, Rows, RowsTable, Square
from graphforge.transform import Rewriter

__all__ = ["Extents", "Walk"]

# The elements of a small integer tensor: plain numbers, or sizes that depend on data.
Extents = tuple["int | Extent", ...]


@dataclass
class Walk:
    """What is known while the nodes are rewritten in order.

    Attributes:
        rewriter: what edits the graph.
        ragged: values with a ragged axis, in fixed shape.
        squares: values with two ragged axes of the same rows.
        extents: integer values that hold sizes depending on data; they are computed anew from the counts.
        renewed: the same values as they are computed now.
        rows: the ragged axes.
        op: builds in front of the node at hand.
    """

    rewriter: Rewriter
    ragged: dict[ir.Value, Ragged] = field(default_factory=dict)
    squares: dict[ir.Value, Square] = field(default_factory=dict)
    extents: dict[ir.Value, Extents] = field(default_factory=dict)
    renewed: dict[ir.Value, ir.Value] = field(default_factory=dict)
    rows: RowsTable = field(default_factory=RowsTable)
    _bounded: dict[tuple[ir.Value, int | tuple[int, ...] | None], ir.Value] = field(default_factory=dict)
    op: Builder = field(default=None)  # type: ignore[assignment]  # set before the first node

    def visit(self, node: ir.Node, op: Builder) -> bool:
        """Carry one node; False when it has nothing to do with ragged tensors.

        Raises:
            Refusal: it has, and cannot be carried.
        """
        from graphforge.passes.bounding.table import BOUNDINGS, ELEMENTWISE, SOURCES, SQUARES

        self.op = op
        touched = [value for value in node.inputs if value is not None and self.is_touched(value)]
        if not touched and node.op_type not in SOURCES:
            for body in bodies_of(node):
                for inner in body.all_nodes():
                    if any(value is not None and self.is_touched(value) for value in inner.inputs):
                        raise Refusal("its body reads a tensor whose size depends on data")
            return False
        name = operator_name(node)
        square = self.squares.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
        if square is not None and name in SQUARES:
            SQUARES[name](self, node, square)
            return True
        bounding = BOUNDINGS.get(name)
        if any(value in self.squares for value in touched) and name not in ELEMENTWISE:
            raise Refusal(f"{name} cannot be expressed for a tensor two of whose sizes depend on data")
        if bounding is None:
            raise Refusal(f"{name} cannot be expressed for a tensor whose size depends on data")
        bounding(self, node)
        return True

    # -- reading -----------------------------------------------------------------------------------------------------

    def is_touched(self, value: ir.Value) -> bool:
        """Whether a value is ragged or holds sizes that depend on data."""
        return value in self.ragged or value in self.extents or value in self.squares

    def now(self, value: ir.Value | None) -> ir.Value | None:
        """A value in fixed shape, or a size as it is computed now; others as they are."""
        if value is None:
            return None
        known = self.ragged.get(value)
        if known is not None:
            return self.ranked(known)
        if value in self.squares:
            return self.squares[value].dense
        return self.renewed.get(value, value)

    def dense(self, value: ir.Value | None) -> ir.Value:
        """The same of an input that is there."""
        found = self.now(value)
        assert found is not None
        return found

    def ranked(self, known: Ragged) -> ir.Value:
        """A ragged tensor's fixed form; positions in rows become ranks among the valid ones."""
        if known.into is None or known.into.is_prefix:
            return known.dense
        ranks: ir.Value = self.op.Gather(known.into.ranks(self.op), known.dense, axis=0)
        return ranks

    def sizes(self, value: ir.Value) -> list[int | str]:
        """The sizes of a value in fixed shape, by name where one is dynamic for another reason than data."""
        known = self.ragged.get(value)
        dense = known.dense if known is not None else self.now(value)
        if dense is None or dense.shape is None:
            raise Refusal(f"the shape of {value.name!r} is not known")
        return [dim if isinstance(dim, int) else str(dim.value) for dim in dense.shape]

    def bound(self, size: int | str) -> int:
        """The most that a size can be within what was promised.

        Raises:
            Refusal: nothing was promised of it.
        """
        if isinstance(size, int):
            return size
        most = largest(size, self.rewriter.model.meta.get(PROMISED_SIZES, {}))
        if most is None:
            raise Refusal(f"the size {size} has no fixed bound")
        return most

    def bounded(self, value: ir.Value, axis: int | tuple[int, ...] | None = None) -> ir.Value:
        """A tensor with zeros behind an axis, some or all (None) of dynamic size, up to the most that was promised."""
        assert value.shape is not None
        dims = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
        axes = range(len(dims)) if axis is None else (axis,) if isinstance(axis, int) else axis
        moving = [at for at, dim in enumerate(dims) if not isinstance(dim, int) and at in axes]
        if not moving:
            return value
        known = self._bounded.get((value, axis))
        if known is not None:
            return known
        most = {at: self.bound(dims[at]) for at in moving}
        op, rank = self.op, len(dims)
        wanted = np.array([most.get(at, dim if isinstance(dim, int) else 0) for at, dim in enumerate(dims)], np.int64)
        chosen = np.array([at in most for at in range(rank)])
        missing = op.Where(op.constant(chosen), op.Sub(op.constant(wanted), op.Shape(value)), op.constant(0))
        padded = op.Pad(value, op.Concat(op.constant([0] * rank), missing, axis=0))
        # the sizes as numbers, so that what follows is of fixed size
        result: ir.Value = op.Reshape(padded, op.constant(wanted))
        self._bounded[value, axis] = result
        return result

    def shape(self, value: ir.Value) -> list[int]:
        """The sizes of a value in fixed shape.

        Raises:
            Refusal: one of them is dynamic.
        """
        known = self.ragged.get(value)
        dense = known.dense if known is not None else self.renewed.get(value, value)
        if dense.shape is None or not all(isinstance(dim, int) for dim in dense.shape):
            raise Refusal(f"the shape of {value.name!r} has no fixed bound (it is {dense.shape})")
        return [int(dim) for dim in dense.shape.numpy()]

    def elements(self, value: ir.Value | None) -> Extents | None:
        """What a small integer tensor holds, when it is a constant or holds sizes."""
        if value is None:
            return None
        known = self.extents.get(value)
        if known is not None:
            return known
        array = constant_of(value)
        return None if array is None else tuple(int(item) for item in array.reshape(-1))

    def single(self, value: ir.Value | None) -> int | Extent | None:
        """The one element of such a tensor."""
        found = self.elements(value)
        return found[0] if found is not None and len(found) == 1 else None

    def vector_of(self, value: ir.Value | None) -> list[int] | None:
        """The elements of a constant, None when one is not a plain number."""
        found = self.elements(value)
        if found is None or any(isinstance(item, Extent) for item in found):
            return None
        return [item for item in found if isinstance(item, int)]

    def scalar(self, value: ir.Value) -> ir.Value:
        """A size of one element, as rank 0."""
        current = self.dense(value)
        if current.shape is not None and len(current.shape) == 0:
            return current
        squeezed: ir.Value = self.op.Reshape(current, self.op.constant([], ir.DataType.INT64))
        return squeezed

    # -- writing -----------------------------------------------------------------------------------------------------

    def set(self, value: ir.Value, dense: ir.Value, axis: int, rows: Rows, **facts: object) -> None:
        """A result is ragged."""
        into = facts.get("into")
        assert into is None or isinstance(into, Rows)
        self.ragged[value] = Ragged(dense, axis, rows, into=into, iota=bool(facts.get("iota", False)))

    def set_size(self, value: ir.Value, now: ir.Value, extents: Sequence[int | Extent]) -> None:
        """A result holds sizes."""
        self.renewed[value] = now
        self.extents[value] = tuple(extents)

    def again(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        """The node on other inputs."""
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        made = self.op.node(node.op_type, list(inputs), _outputs=len(node.outputs), _domain=node.domain, **attributes)
        return (made,) if isinstance(made, ir.Value) else tuple(made)
