"""Rule: what to look for, when to decline, what to put there instead."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import onnx_ir as ir

from graphforge.errors import InternalError
from graphforge.transform.pattern import (
    Bindings,
    OpPattern,
    OutputPattern,
    PatternBuilder,
    Variable,
    match_pattern,
    pattern_operators,
)

__all__ = ["Match", "NoMatch", "Replacement", "Rule"]

Replacement: TypeAlias = ir.Value | Sequence[ir.Value | None] | Mapping[ir.Value, ir.Value] | None


@dataclass(frozen=True, slots=True)
class NoMatch:
    """A pattern that does not fit, or a rewrite that must not happen, with the reason."""

    reason: str
    node: ir.Node | None = None


_NOTHING = NoMatch("")


@dataclass(frozen=True)
class Match:
    """A place where a pattern fits.

    The pattern's variables, the nodes (by operator in lower case or by ``_name``) and the facts that ``check`` added
    are attributes: ``m.x``, ``m.conv``, ``m.axis``.

    Attributes:
        root: the node that computes the pattern's result.
        nodes: all matched nodes, the root first.
        names: what the names stand for.
    """

    root: ir.Node
    nodes: tuple[ir.Node, ...]
    names: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.names[name]
        except KeyError:
            known = ", ".join(self.names)
            raise AttributeError(f"the match has no {name!r}; it has {known}") from None

    def no(self, reason: str, node: ir.Node | None = None) -> NoMatch:
        """Decline, saying why and at which node."""
        return NoMatch(reason, node or self.root)

    def having(self, **facts: Any) -> Match:
        """This match with facts for ``rewrite``."""
        return Match(self.root, self.nodes, {**self.names, **facts})


class Rule:
    """A rewrite of a small pattern.

    A subclass writes ``pattern``, may write ``check`` and writes ``rewrite``::

        class DropDoubleNeg(Rule):
            def pattern(self, op, x):
                return op.Neg(op.Neg(x))

            def rewrite(self, op, m):
                return m.x

    Attributes:
        commutative: Add, Mul and the other symmetric operators match with their two inputs in either order.
        allow_shared: also fire when results inside the pattern are read from outside; those nodes then stay.
    """

    commutative: ClassVar[bool] = True
    allow_shared: ClassVar[bool] = False

    def pattern(self, op: Any, *variables: Any) -> Any:
        """The pattern in the op language; parameters after ``op`` are variables, named by themselves."""
        raise NotImplementedError

    def check(self, m: Match) -> Match | NoMatch:
        """Decide whether to fire: return the match (``m.having(...)`` to pass facts on) or ``m.no(reason)``."""
        return m

    def rewrite(self, op: Any, m: Match) -> Replacement:
        """Build the replacement in front of the root; returns what replaces the root's outputs, or old -> new."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return type(self).__name__

    @cached_property
    def root(self) -> OpPattern:
        """The pattern's last node."""
        parameters = list(inspect.signature(self.pattern).parameters)[1:]
        result = self.pattern(PatternBuilder(), *(Variable(name) for name in parameters))
        if isinstance(result, tuple):
            result = result[0]
        if not isinstance(result, OutputPattern):
            raise InternalError(f"{self.name}: the pattern must end in an operator")
        return result.op

    @cached_property
    def operators(self) -> frozenset[tuple[str, str]]:
        """Domain and type of every operator of the pattern: a graph that lacks one has no match."""
        return frozenset((op.domain, op.op_type) for op in pattern_operators(self.root))

    @cached_property
    def _above_root(self) -> tuple[str, ...]:
        """The operators that must compute some input of the root."""
        return tuple(item.op.op_type for item in self.root.inputs if isinstance(item, OutputPattern))

    def match(self, node: ir.Node) -> Match | NoMatch:
        """Try the pattern at a node; says how far it came where it fails."""
        if self._above_root:
            # Most attempts end here, before anything is allocated.
            above = [
                value._producer.op_type for value in node.inputs if value is not None and value._producer is not None
            ]
            for op_type in self._above_root:
                if op_type not in above:
                    return _NOTHING
        bindings = Bindings()
        if not match_pattern(self.root, node, commutative=self.commutative, bindings=bindings):
            return NoMatch(bindings.failure if bindings.reached > 1 else "", node)
        nodes = tuple(bindings.nodes.values())
        if not self.allow_shared and len(nodes) > 1:
            inside = set(nodes)
            for inner in nodes[1:]:
                for value in inner.outputs:
                    if value.is_graph_output() or any(user not in inside for user, _ in value._uses):
                        return NoMatch(f"the result of {inner.op_type} is read elsewhere", inner)
        names: dict[str, Any] = {op.name: found for op, found in reversed(bindings.nodes.items())}
        names.update({variable.name: value for variable, value in bindings.values.items()})
        return Match(node, nodes, names)
