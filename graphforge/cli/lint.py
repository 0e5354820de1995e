"""`graphforge lint`: an ONNX file or a bundle against what is known of a target's rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option
from graphforge.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from graphforge.targets.magicmind.lint import Finding

__all__ = ["command"]

# Of the shape of the JSON document; it grows when a key changes its meaning or goes.
SCHEMA = 1
# Targets whose rules are written down as rules; the others' own compilers answer.
_TARGETS = ("magicmind",)


@click.command("lint")
@click.argument("path", metavar="MODEL.onnx|BUNDLE")
@click.option("--target", required=True, metavar="NAME", help="Whose rules: magicmind.")
@json_option
def command(path: str, target: str, as_json: bool) -> int:
    """Check an ONNX file, or the whole folder that `graphforge compile` wrote, against the rules of a target.

    Every finding has its rule, how bad it is, what the rule rests on (documented, observed in working samples, or
    inferred), the node with the place it came from, and the way out.  Nothing is run.  Ends with exit code 1 when a
    finding is an error.

    \b
    Examples:
      graphforge lint model.onnx --target magicmind
      graphforge lint out/resnet50 --target magicmind --json
    """
    if target not in _TARGETS:
        raise UsageError(
            f"there are no rules to lint for target {target!r}",
            f"targets with rules: {', '.join(_TARGETS)}",
            "what the other targets take, their compilers say: graphforge compile --target NAME",
        )
    from graphforge.targets.magicmind.lint import lint

    findings = lint(Path(path))
    counts = Counter(finding.severity.value for finding in findings)
    summary = {f"{name}s": counts[name] for name in ("error", "warning", "note")}
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "path": path,
                "target": target,
                "summary": summary,
                "findings": [finding.to_dict() for finding in findings],
            }
        )
    else:
        _print(stdout(), findings)
        stdout().print(", ".join(_counted(counts[name], name) for name in ("error", "warning", "note")))
    return int(counts["error"] > 0)


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _print(console: Console, findings: Sequence[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not findings:
        return
    colours = {"error": "red", "warning": "yellow", "note": "dim"}
    table = Table()
    for name in ("rule", "severity", "evidence", "finding", "place", "way out"):
        table.add_column(name, overflow="fold", no_wrap=name in ("rule", "severity"))
    for finding in findings:
        severity = finding.severity.value
        table.add_row(
            finding.rule,
            f"[{colours[severity]}]{severity}[/]",
            ", ".join(finding.evidence),
            escape(finding.message),
            escape(str(finding.place)),
            escape(finding.fix),
        )
    console.print(table)
