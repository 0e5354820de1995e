"""An operator computed in another element type than its operands have: casts before and behind it, and what that costs.

Where digits are lost on the way the nodes say so (a ``Rounding`` in their metadata, which stays in the file), so that
whoever judges the results knows what they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphforge.ir.bodies import bodies_of, nodes_of
from graphforge.ir.builder import Builder
from graphforge.ir.dtypes import dtype_name, holds, is_float
from graphforge.ir.infer import schema_of

__all__ = ["Rounding", "cast_to", "compute_in", "decides", "inherit_rounding", "mark_rounding", "roundings_of_outputs"]

_PROPERTY = "graphforge.computed_in"
# Which input's element type decides, where that is not the first.
_DECIDES = {"Where": 1, "OneHot": 2}
# Constants of at most this many elements are converted on the spot.
_SMALL = 64


@dataclass(frozen=True, slots=True)
class Rounding:
    """An operator whose values are computed with fewer digits than they are asked for in.

    Attributes:
        operator: its type.
        asked: name of the element type that the values have.
        computed: name of the one that they are computed in.
    """

    operator: str
    asked: str
    computed: str

    def __str__(self) -> str:
        return f"{self.operator} of {self.asked} is computed in {self.computed}"


def decides(op_type: str) -> int:
    """The position of the input whose element type decides which kernel is meant."""
    return _DECIDES.get(op_type, 0)


def cast_to(op: Builder, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The value in another dtype; what an exact cast has made of a value is taken back instead of cast once more."""
    if value.dtype == dtype:
        return value
    if value.const_value is not None and value.const_value.size <= _SMALL:
        return op.constant(value.const_value.numpy().astype(dtype.numpy()), dtype)
    source = _uncast(value)
    if source is not None:
        return cast_to(op, source, dtype)
    converted: ir.Value = op.Cast(value, to=dtype)
    return converted


def _uncast(value: ir.Value) -> ir.Value | None:
    """What a Cast that loses nothing has made the value of."""
    producer = value.producer()
    if producer is None or producer.op_type != "Cast" or producer.domain != "":
        return None
    source = producer.inputs[0]
    if source is None or source.dtype is None or value.dtype is None or not holds(value.dtype, source.dtype):
        return None
    return source


def compute_in(
    op: Builder,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    *,
    asked: ir.DataType,
    computed: ir.DataType,
    outputs: int = 1,
    cast: Callable[[Builder, ir.Value, ir.DataType], ir.Value] = cast_to,
) -> list[ir.Value]:
    """Build the operator with its operands of type ``asked`` cast to ``computed``; its results are not cast back."""
    schema = schema_of(op_type, "", op.opset)
    assert schema is not None
    formals = schema.inputs
    variable = formals[min(decides(op_type), len(formals) - 1)].type_str
    first = len(op.created)
    given = []
    for position, value in enumerate(inputs):
        same = formals[min(position, len(formals) - 1)].type_str == variable
        # statistics, scales and grids beside a tensor have type variables of their own, and kernels for the same types
        moves = value is not None and value.dtype == asked and (same or is_float(asked))
        given.append(cast(op, value, computed) if value is not None and moves else value)
    casts = op.created[first:]
    made = op.node(op_type, given, _outputs=outputs, **attributes)
    results: list[ir.Value] = [made] if outputs == 1 else list(made)
    if not holds(computed, asked):
        rounding = Rounding(op_type, dtype_name(asked), dtype_name(computed))
        for node in casts or [op.created[-1]]:
            mark_rounding(node, rounding)
    return results


def mark_rounding(node: ir.Node, rounding: Rounding) -> None:
    """Let the node say that what it computes has fewer digits than was asked for."""
    node.metadata_props[_PROPERTY] = f"{rounding.operator} {rounding.asked} {rounding.computed}"


def inherit_rounding(old: Sequence[ir.Node], new: Sequence[ir.Node]) -> None:
    """Let what stands in the place of nodes that lose digits say so, too."""
    text = next((node.metadata_props[_PROPERTY] for node in old if _PROPERTY in node.metadata_props), None)
    if text is not None:
        for node in new:
            node.metadata_props.setdefault(_PROPERTY, text)


def roundings_of_outputs(model: ir.Model) -> dict[str, tuple[Rounding, ...]]:
    """Output -> what is computed with fewer digits on the way to it, for outputs with such a way."""
    if not any(_PROPERTY in node.metadata_props for node in nodes_of(model.graph)):
        return {}
    known: dict[ir.Value, frozenset[Rounding]] = {}

    def of_node(node: ir.Node) -> frozenset[Rounding]:
        found = {rounding for value in node.inputs if value is not None for rounding in known.get(value, ())}
        text = node.metadata_props.get(_PROPERTY)
        if text is not None:
            found.add(Rounding(*text.split()))
        for body in bodies_of(node):  # what a round of a loop computes, the next one reads
            for inner in body:
                found |= of_node(inner)
        return frozenset(found)

    for node in model.graph:
        rounded = of_node(node)
        if rounded:
            known.update(dict.fromkeys(node.outputs, rounded))
    return {
        value.name: tuple(sorted(known[value], key=str))
        for value in model.graph.outputs
        if value in known and value.name is not None
    }
