"""Operators that a runtime does better in the form they had before some opset, and which nodes are meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError

__all__ = ["OlderForm", "forms_of"]

_KNOWN = frozenset({"operator", "before", "because", "attributes", "rank", "dtypes", "wrong", "since", "until"})


@dataclass(frozen=True, slots=True)
class OlderForm:
    """An operator that is to be written as it was before some opset.

    Attributes:
        operator: of ONNX's own domain.
        before: the opset that brought what the runtime does not do, or does badly.
        because: what it does otherwise, a phrase.
        attributes: a node is meant where all of these have these values; what is absent counts as 0 or "".
        rank: a node is meant where its first input has this rank; None means any.
        dtypes: a node is meant where its first input is of one of these element types; empty means any.
        wrong: whether the newer form is refused or computed wrongly; else it is only slower.
    """

    operator: str
    before: int
    because: str
    attributes: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    rank: int | None = None
    dtypes: frozenset[str] = frozenset()
    wrong: bool = True

    def means(self, node: ir.Node) -> bool:
        """Whether the node is one of those."""
        if node.op_type != self.operator or node.domain != "":
            return False
        first = node.inputs[0] if node.inputs else None
        if self.rank is not None and (first is None or first.shape is None or len(first.shape) != self.rank):
            return False
        if self.dtypes and (first is None or first.dtype is None or first.dtype.numpy().name not in self.dtypes):
            return False
        return all(_value(node, name, wanted) == wanted for name, wanted in self.attributes.items())


def forms_of(table: str, written: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], OlderForm]]:
    """The entries ``[[form]]`` of a table, each with what was read of it.

    Raises:
        GraphForgeError: one lacks something, or has something that nobody reads.
    """
    for entry in written:
        strange = sorted(entry.keys() - _KNOWN) or sorted({"operator", "before", "because"} - entry.keys())
        if strange:
            raise GraphForgeError(f"the table of facts {table} has a form with a wrong or missing key {strange[0]!r}")
        yield (
            entry,
            OlderForm(
                operator=entry["operator"],
                before=entry["before"],
                because=entry["because"],
                attributes=entry.get("attributes", {}),
                rank=entry.get("rank"),
                dtypes=frozenset(entry.get("dtypes", "").split()),
                wrong=entry.get("wrong", True),
            ),
        )


def _value(node: ir.Node, name: str, wanted: int | str) -> int | str:
    attribute = node.attributes.get(name)
    if attribute is None:
        return 0 if isinstance(wanted, int) else ""
    return attribute.as_int() if isinstance(wanted, int) else attribute.as_string()
