"""The linter for MagicMind: a model or a whole bundle against what is publicly known of MagicMind's rules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from graphforge.errors import GraphForgeError, argument
from graphforge.onnx_io.safety import read_model_proto

# Importing them registers their checks.
from graphforge.targets.magicmind.lint import calibration, config, graph, scripts
from graphforge.targets.magicmind.lint.finding import CHECKS, Check, Finding, Severity, Subject

__all__ = ["CHECKS", "Check", "Finding", "Severity", "Subject", "lint", "refuse_errors", "sorted_checks", "summarise"]

_ROOMS = (graph, config, calibration, scripts)
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
# More than this on one screen hides the first.
_MAX_SHOWN = 10


def lint(path: Path) -> list[Finding]:
    """Findings about an ONNX file or a bundle folder, errors first, otherwise in the order of the checks.

    Raises:
        GraphForgeError: the path is neither, or cannot be read.
    """
    subject = _subject(path)
    findings = [finding for check in sorted_checks() for finding in check.run(subject)]
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def sorted_checks() -> list[Check]:
    """All checks: graph, configuration, calibration, scripts, each by number."""
    return sorted(CHECKS.values(), key=lambda check: ("GCKS".index(check.id[0]), int(check.id[1:])))


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Stop at findings that are errors.

    Raises:
        GraphForgeError: there is one; the notes list them with their fixes.
    """
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return
    notes = [f"{error}" + (f"; {error.fix}" if error.fix else "") for error in errors[:_MAX_SHOWN]]
    if len(errors) > _MAX_SHOWN:
        notes.append(f"and {len(errors) - _MAX_SHOWN} more")
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise GraphForgeError(f"not ready for MagicMind, {count}: {errors[0].message}", *notes)


def summarise(findings: Iterable[Finding]) -> list[str]:
    """One line for all findings that say the same, with the first place."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.rule, finding.message), []).append(finding)
    return [f"{group[0]}" + (f" and {len(group) - 1} more" if len(group) > 1 else "") for group in groups.values()]


def _subject(path: Path) -> Subject:
    if path.is_file():
        read_model_proto(path)  # refuses what is not an ONNX file, or would reach outside its folder
        return Subject(path)
    if not path.is_dir():
        raise GraphForgeError(f"{path} does not exist", "give an ONNX file or the folder of a MagicMind bundle")
    if not (path / "bundle.json").is_file():
        files = sorted(str(file) for file in path.glob("*.onnx"))
        raise GraphForgeError(
            f"{path} is not a MagicMind bundle: it has no bundle.json",
            f"compile it with {argument('target', 'magicmind')}" + (f", or lint {' or '.join(files)}" if files else ""),
        )
    try:
        bundle = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
        settings = json.loads((path / bundle["config"]["file"]).read_text(encoding="utf-8"))
        onnx_file = path / bundle["model"]["file"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphForgeError(
            f"{path} is not a readable MagicMind bundle: {error}",
            "a bundle is the folder that a compilation for the target magicmind writes",
        ) from error
    read_model_proto(onnx_file)
    return Subject(onnx_file, settings, bundle, path)
