"""What linters say: a finding, how bad it is, what it rests on, and its place."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

__all__ = ["TAGS", "Finding", "NodePlace", "Severity"]

# What a rule rests on.
TAGS = {"D": "documented", "O": "observed", "I": "inferred", "A": "asked"}


class Severity(enum.Enum):
    """How bad: an error is expected to fail at the import or the build, or to give wrong results in silence."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class NodePlace:
    """A node as the place of a finding.

    Attributes:
        node: its name, "" when it has none.
        operator: its operator.
        origin: where it came from, "" when the file does not say.
    """

    node: str
    operator: str
    origin: str

    def __str__(self) -> str:
        place = f"node {self.node or '(unnamed)'} ({self.operator})"
        return f"{place}, from {self.origin}" if self.origin else place


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the linter found.

    Attributes:
        rule: id of the rule, ``G2``.
        severity: how bad.
        tag: what the rule rests on: D documented, O observed, I inferred, A asked of the vendor's library; several may
            apply.
        message: what is the matter.
        place: the node and where it came from, or the file and key; "" when it is about the whole.
        fix: the way out, "" when there is none.
    """

    rule: str
    severity: Severity
    tag: str
    message: str
    place: NodePlace | str = ""
    fix: str = ""

    @property
    def evidence(self) -> list[str]:
        """The tag in words: ``documented``, ``observed``, ``inferred``, ``asked``."""
        return [TAGS[letter] for letter in self.tag.split(",")]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; the same keys for every finding."""
        at_node = self.place if isinstance(self.place, NodePlace) else None
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "evidence": self.evidence,
            "message": self.message,
            "node": at_node.node if at_node else None,
            "operator": at_node.operator if at_node else None,
            "origin": at_node.origin if at_node and at_node.origin else None,
            "file": self.place if isinstance(self.place, str) and self.place else None,
            "fix": self.fix or None,
        }

    def __str__(self) -> str:
        text = f"{self.severity.value} {self.rule} [{self.tag}]: {self.message}"
        return text + (f" ({self.place})" if self.place else "")
