"""Patterns: small op graphs written in the op language, matched against nodes without touching them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, TypeAlias

import onnx_ir as ir

from graphforge.errors import InternalError
from graphforge.transform.facts import scalar_of

__all__ = ["OpPattern", "OutputPattern", "Pattern", "PatternBuilder", "Variable", "pattern_depth", "pattern_operators"]

# Operators whose first two inputs may be swapped.
COMMUTATIVE = frozenset("Add Mul And Or Xor Equal Max Min Sum Mean BitwiseAnd BitwiseOr BitwiseXor".split())

# A number in a pattern stands for the constant it was rounded to in the model's precision.
_RELATIVE = {ir.DataType.FLOAT16: 2e-3, ir.DataType.BFLOAT16: 1e-2, ir.DataType.DOUBLE: 1e-7}
_RELATIVE_OTHERS = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """Any value; the same variable twice means the same value twice."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A constant of one element with this value."""

    value: float | int | bool

    def matches(self, value: ir.Value) -> bool:
        """Whether the value is that constant, up to the rounding of its type."""
        found = scalar_of(value)
        if found is None:
            return False
        if isinstance(self.value, int) or isinstance(found, int):
            return found == self.value
        dtype = value.dtype
        relative = _RELATIVE_OTHERS if dtype is None else _RELATIVE.get(dtype, _RELATIVE_OTHERS)
        return math.isclose(found, self.value, rel_tol=relative)


@dataclass(frozen=True, slots=True, eq=False)
class OpPattern:
    """A node of the pattern.

    Attributes:
        rest: further inputs of the node are of no interest.
        name: how the match calls the node.
    """

    op_type: str
    domain: str
    inputs: tuple[Pattern | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    rest: bool = False
    outputs: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class OutputPattern:
    """One output of a node of the pattern."""

    op: OpPattern
    index: int = 0


Pattern: TypeAlias = Variable | Number | OutputPattern


class PatternBuilder:
    """The ``op`` that a rule's ``pattern`` receives: ``op.Mul(op.Relu(x), 2.0)``.

    Operands are variables, other patterns, numbers (a constant of that value) or None (an input left out); a trailing
    ``...`` allows further inputs.  Keyword arguments are attributes the node must have with this value; those with an
    underscore steer: ``_name`` (the match's word for the node, default the operator in lower case), ``_domain``,
    ``_outputs`` (a tuple of that many outputs is returned).
    """

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if op_type.startswith("_") or not op_type[0].isupper():
            raise AttributeError(op_type)

        def build(*operands: Any, **keywords: Any) -> Any:
            return self.node(op_type, *operands, **keywords)

        return build

    def node(
        self,
        op_type: str,
        *operands: Pattern | float | EllipsisType | None,
        _name: str = "",
        _domain: str = "",
        _outputs: int = 1,
        **attributes: Any,
    ) -> Any:
        """A node of the pattern, for names that are no Python attribute."""
        rest = bool(operands) and operands[-1] is ...
        inputs: list[Pattern | None] = []
        for operand in operands[:-1] if rest else operands:
            if isinstance(operand, bool | int | float):
                inputs.append(Number(operand))
            elif operand is None or isinstance(operand, Variable | Number | OutputPattern):
                inputs.append(operand)
            else:
                raise InternalError(f"{operand!r} cannot stand in a pattern")
        op = OpPattern(op_type, _domain, tuple(inputs), attributes, _name or op_type.lower(), rest, _outputs)
        if _outputs == 1:
            return OutputPattern(op)
        return tuple(OutputPattern(op, index) for index in range(_outputs))


def pattern_depth(op: OpPattern) -> int:
    """How many nodes lie on the longest way through the pattern."""
    below = [pattern_depth(item.op) for item in op.inputs if isinstance(item, OutputPattern)]
    return 1 + max(below, default=0)


def pattern_operators(op: OpPattern) -> Iterator[OpPattern]:
    """Every node of the pattern, some more than once."""
    yield op
    for item in op.inputs:
        if isinstance(item, OutputPattern):
            yield from pattern_operators(item.op)


@dataclass(slots=True)
class Bindings:
    """What a pattern's names stand for; ``reached`` counts the nodes recognised before a failure."""

    values: dict[Variable, ir.Value] = field(default_factory=dict)
    nodes: dict[OpPattern, ir.Node] = field(default_factory=dict)
    reached: int = 0
    failure: str = ""


def match_pattern(op: OpPattern, root: ir.Node, *, commutative: bool, bindings: Bindings) -> bool:
    """Match the pattern with its last node at ``root``; on success the bindings are filled."""
    return _solve([(op, root)], bindings, commutative)


Goal: TypeAlias = tuple[OpPattern, ir.Node]


def _solve(goals: list[Goal], bindings: Bindings, commutative: bool) -> bool:
    if not goals:
        return True
    (op, node), rest = goals[0], goals[1:]
    known = bindings.nodes.get(op)
    if known is not None:
        return known is node and _solve(rest, bindings, commutative)
    failure = _node_differs(op, node)
    if failure is not None:
        _remember(bindings, failure, same_op=node.op_type == op.op_type)
        return False
    for order in _orders(op, node, commutative):
        values = dict(bindings.values)
        nodes = dict(bindings.nodes)
        bindings.nodes[op] = node
        more = _bind_inputs(op, node, order, bindings)
        if more is not None and _solve([*more, *rest], bindings, commutative):
            return True
        bindings.values, bindings.nodes = values, nodes
    return False


def _orders(op: OpPattern, node: ir.Node, commutative: bool) -> Iterator[tuple[ir.Value | None, ...]]:
    inputs = tuple(node.inputs)
    yield inputs
    if (
        commutative
        and len(inputs) == 2
        and op.domain == ""
        and op.op_type in COMMUTATIVE
        and inputs[0] is not inputs[1]
    ):
        yield (inputs[1], inputs[0])


def _node_differs(op: OpPattern, node: ir.Node) -> str | None:
    if node.op_type != op.op_type or node.domain != op.domain:
        return f"expected {op.op_type}, found {node.op_type}"
    if len(node.inputs) > len(op.inputs) and not op.rest:
        return f"{op.op_type} has {len(node.inputs)} inputs, the pattern {len(op.inputs)}"
    if op.outputs == 1 and any(value._uses or value.is_graph_output() for value in node.outputs[1:]):
        return f"further outputs of {op.op_type} are read"
    for name, wanted in op.attributes.items():
        attribute = node.attributes.get(name)
        found = None if attribute is None else attribute.value
        if isinstance(wanted, list):
            wanted = tuple(wanted)
        if isinstance(found, list):
            found = tuple(found)
        if found != wanted:
            return f"attribute {name} of {op.op_type} is {found!r}, expected {wanted!r}"
    return None


def _bind_inputs(
    op: OpPattern, node: ir.Node, inputs: tuple[ir.Value | None, ...], bindings: Bindings
) -> list[Goal] | None:
    more: list[Goal] = []
    for position, wanted in enumerate(op.inputs):
        value = inputs[position] if position < len(inputs) else None
        if wanted is None or value is None:
            if wanted is not None or value is not None:
                _remember(bindings, f"input {position} of {op.op_type} is {'missing' if value is None else 'there'}")
                return None
            continue
        if isinstance(wanted, Variable):
            if bindings.values.setdefault(wanted, value) is not value:
                _remember(bindings, f"{wanted.name} stands for two different values")
                return None
        elif isinstance(wanted, Number):
            if not wanted.matches(value):
                _remember(bindings, f"input {position} of {op.op_type} is not the constant {wanted.value}")
                return None
        else:
            producer = value.producer()
            if producer is None or value.index() != wanted.index or producer.graph is not node.graph:
                _remember(bindings, f"input {position} of {op.op_type} is not computed by {wanted.op.op_type}")
                return None
            more.append((wanted.op, producer))
    return more


def _remember(bindings: Bindings, failure: str, *, same_op: bool = False) -> None:
    """Keep the failure that came farthest."""
    reached = len(bindings.nodes) + same_op
    if reached >= bindings.reached:
        bindings.reached = reached
        bindings.failure = failure
