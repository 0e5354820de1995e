"""Operators that a runtime does better, or only, in another form; which nodes are meant, and what that form is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError

__all__ = ["Form", "forms_of"]

_NEEDED = frozenset({"operator", "because"})
_KNOWN = _NEEDED | {"before", "written", "attributes", "rank", "uneven", "wrong", "cure", "since", "until"}


@dataclass(frozen=True, slots=True)
class Form:
    """An operator that is to be written otherwise.

    Attributes:
        operator: of ONNX's own domain.
        because: what the runtime does otherwise, a phrase.
        before: the opset that brought what it does not do; the form is that from before it.  0 where none would do.
        written: the other form by the name that `legalise-opset` has for it, where it is not that of an older opset.
        attributes: a node is meant where all of these have these values; what is absent counts as 0 or "".
        rank: a node is meant where its first input has this rank; None means any.
        uneven: a node is meant where its second input is of another size than its first outside the node's ``axis``.
        wrong: whether the form as it is is refused or computed wrongly; else it is only slower.
        cure: what the user can do where there is no other form.
    """

    operator: str
    because: str
    before: int = 0
    written: str = ""
    attributes: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    rank: int | None = None
    uneven: bool = False
    wrong: bool = True
    cure: str = ""

    @property
    def has_another(self) -> bool:
        """Whether there is another form."""
        return bool(self.before or self.written)

    def holds_at(self, version: int) -> bool:
        """Whether this version of the operator is meant."""
        return version >= self.before

    def means(self, node: ir.Node) -> bool:
        """Whether the node is one of those."""
        if node.op_type != self.operator or node.domain != "":
            return False
        first = node.inputs[0] if node.inputs else None
        if self.rank is not None and (first is None or first.shape is None or len(first.shape) != self.rank):
            return False
        if self.uneven and not _is_uneven(node):
            return False
        return all(_value(node, name, wanted) == wanted for name, wanted in self.attributes.items())


def forms_of(table: str, written: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Form]]:
    """The entries ``[[form]]`` of a table, each with what was read of it.

    Raises:
        GraphForgeError: one lacks something, or has something that nobody reads.
    """
    for entry in written:
        strange = sorted(entry.keys() - _KNOWN) or sorted(_NEEDED - entry.keys())
        if strange:
            raise GraphForgeError(f"the table of facts {table} has a form with a wrong or missing key {strange[0]!r}")
        yield entry, Form(**{key: value for key, value in entry.items() if key not in ("since", "until")})


def _value(node: ir.Node, name: str, wanted: int | str) -> int | str:
    attribute = node.attributes.get(name)
    if attribute is None:
        return 0 if isinstance(wanted, int) else ""
    if not isinstance(attribute.value, type(wanted)):  # a damaged file; text that is not UTF-8 stays bytes
        return 0 if isinstance(wanted, int) else ""
    return attribute.value


def _is_uneven(node: ir.Node) -> bool:
    shapes = [value.shape for value in node.inputs[:2] if value is not None and value.shape is not None]
    if len(shapes) != 2 or len(shapes[0]) != len(shapes[1]):
        return False
    axis = int(_value(node, "axis", 0)) % len(shapes[0])
    return any(at != axis and shapes[0][at] != shapes[1][at] for at in range(len(shapes[0])))
