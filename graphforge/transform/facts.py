"""Small questions that passes ask about values and nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.ir.bodies import bodies_of
from graphforge.ir.infer import constant_of

__all__ = [
    "bodies_of",
    "dims_of",
    "has_one_use",
    "int_attribute",
    "ints_attribute",
    "is_constant",
    "is_op",
    "known_dims",
    "rank_of",
    "scalar_of",
    "use_count",
]


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of the default domain."""
    return node is not None and node.domain == "" and node.op_type in op_types


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is the same in every run (an initializer that callers cannot override)."""
    return value is not None and value.const_value is not None and value.is_initializer() and not value.is_graph_input()


def use_count(value: ir.Value) -> int:
    """How many inputs of nodes read the value, plus one when the graph hands it out.

    Does not copy the uses, which ``Value.uses`` does: a value read by every node would make passes quadratic.
    """
    return len(value._uses) + value.is_graph_output()


def has_one_use(value: ir.Value) -> bool:
    """Whether exactly one input of one node reads the value and the graph does not hand it out."""
    return len(value._uses) == 1 and not value.is_graph_output()


def scalar_of(value: ir.Value | None) -> float | int | bool | None:
    """The number that a constant of exactly one element holds, None for everything else."""
    if value is None or value.const_value is None:
        return None
    constant = constant_of(value, limit=1)
    if constant is None or constant.size != 1 or constant.dtype.kind in "OSU":
        return None
    number = constant.reshape(-1)[0]
    return number.item() if isinstance(number, np.generic) and number.dtype.kind in "iufb" else float(number)


def rank_of(value: ir.Value | None) -> int | None:
    """The number of dims, None when unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def dims_of(value: ir.Value | None) -> tuple[int | ir.SymbolicDim, ...] | None:
    """The dims, None when the rank is unknown."""
    return None if value is None or value.shape is None else value.shape.dims


def known_dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """The dims when all of them are numbers, else None."""
    dims = dims_of(value)
    if dims is None:
        return None
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    return sizes if len(sizes) == len(dims) else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list-of-integers attribute, None when absent."""
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())
