"""`graphforge.lint`: an ONNX file or a bundle against what is known of a target's rules."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import UsageError
from graphforge.shown import Shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from graphforge.targets.findings import Finding

__all__ = ["SCHEMA", "TARGETS", "LintReport", "lint"]

# Of the shape of the JSON document; it grows when a key changes its meaning or goes.
SCHEMA = 1
# Targets whose rules are written down as rules, or whose parser can be asked; the others' own compilers answer.
TARGETS = ("magicmind", "tensorrt")
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True, repr=False)
class LintReport(Shown):
    """What breaks the rules of a target.

    Attributes:
        path: what was read.
        target: whose rules.
        findings: errors first.
    """

    path: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """``error``, ``warning`` and ``note``: how many findings."""
        found = Counter(finding.severity.value for finding in self.findings)
        return {name: found[name] for name in _SEVERITIES}

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error."""
        return self.counts["error"] > 0

    def summary(self) -> str:
        """``1 error, 0 warnings, 2 notes in model.onnx for magicmind``."""
        return f"{self._counted()} in {self.path} for {self.target}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "schema": SCHEMA,
            "path": self.path,
            "target": self.target,
            "summary": {f"{name}s": count for name, count in self.counts.items()},
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def render(self, console: Console) -> None:
        """Print the findings and their number."""
        if self.findings:
            console.print(self._table())
        console.print(self._counted())

    def _counted(self) -> str:
        return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in self.counts.items())

    def _table(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        colours = {"error": "red", "warning": "yellow", "note": "dim"}
        table = Table()
        for name in ("rule", "severity", "evidence", "finding", "place", "way out"):
            table.add_column(name, overflow="fold", no_wrap=name in ("rule", "severity"))
        for finding in self.findings:
            severity = finding.severity.value
            table.add_row(
                finding.rule,
                f"[{colours[severity]}]{severity}[/]",
                ", ".join(finding.evidence),
                escape(finding.message),
                escape(str(finding.place)),
                escape(finding.fix),
            )
        return table


def lint(path: str | os.PathLike[str], target: str = "magicmind") -> LintReport:
    """Check an ONNX file, or a whole bundle, against the rules of a target; nothing is run or built.

    Args:
        path: an ONNX file, or a bundle (a ``Bundle`` or its folder).
        target: whose rules.

    Returns:
        The findings: rule, how bad, what it rests on, the node with its origin, and the way out.

    Raises:
        UsageError: no rules are written down for the target.
        GraphForgeError: the file or folder cannot be read.
    """
    from graphforge.targets import get_target

    if target not in TARGETS:
        get_target(target)  # a name that no target has is refused with the nearest one
        raise UsageError(
            f"there are no rules to lint for target {target!r}",
            f"targets with rules: {', '.join(TARGETS)}",
            "what the other targets take, their compilers say: compile the model for them",
        )
    from graphforge.onnx_io.blame import blaming

    place = os.fspath(path)
    with blaming(place):
        return LintReport(place, target, tuple(_rules_of(target)(Path(place))))


def _rules_of(target: str) -> Callable[[Path], list[Finding]]:
    if target == "tensorrt":
        from graphforge.targets.tensorrt.lint import lint as ask_tensorrt

        return ask_tensorrt
    from graphforge.targets.magicmind.lint import lint as ask_magicmind

    return ask_magicmind
