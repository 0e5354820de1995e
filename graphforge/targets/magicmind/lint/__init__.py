"""The linter for MagicMind: a model or a whole bundle against what is publicly known of MagicMind's rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from graphforge.doors import inside
from graphforge.errors import GraphForgeError, argument
from graphforge.onnx_io.importing import admit
from graphforge.schema import COUNT, FILE, TEXT, Either, Record, Several, one_of, read_json

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
        admit(path)  # refuses what is not an ONNX file, or would reach outside its folder
        return Subject(path)
    if not path.is_dir():
        raise GraphForgeError(f"{path} does not exist", "give an ONNX file or the folder of a MagicMind bundle")
    if not (path / "bundle.json").is_file():
        files = sorted(str(file) for file in path.glob("*.onnx"))
        raise GraphForgeError(
            f"{path} is not a MagicMind bundle: it has no bundle.json",
            f"compile it with {argument('target', 'magicmind')}" + (f", or lint {' or '.join(files)}" if files else ""),
        )
    bundle = _read(inside(path, "bundle.json"), _BUNDLE, "the description of a MagicMind bundle")
    settings = _read(inside(path, bundle["config"]["file"]), _CONFIG, "a configuration of MagicMind")
    onnx_file = inside(path, bundle["model"]["file"])
    admit(onnx_file)
    streams = (bundle.get("calibration") or {}).get("inputs", ())
    samples = [name for stream in streams for name in stream["files"]]
    for name in (*samples, *(str(Path(one).with_suffix(".bin")) for one in samples), *_READ_TOO):
        inside(path, name)
    return Subject(onnx_file, settings, bundle, path)


_READ_TOO = ("build_mm.py", "run_mm.py", "bench.sh", "build_config.json")
_DIMS = Either(Several(Either(one_of("a size", lambda data: isinstance(data, int)))))
_STREAM = Record({"index": COUNT, "files": Several(FILE), "files_per_feed": COUNT, "dtype": TEXT})
_BUNDLE = Record(
    {
        "config": Record({"file": FILE}),
        "model": Record({"file": FILE}),
        "inputs": Several(Record({"dims": _DIMS})),
    },
    {"calibration": Either(Record({"inputs": Several(_STREAM)}, {"algorithm": TEXT})), "pins": Several(TEXT)},
)
_ARCH = one_of(
    "an architecture",
    lambda data: isinstance(data, str) or (isinstance(data, list | dict) and all(isinstance(one, str) for one in data)),
)
_CONFIG = Record({}, {"archs": Several(_ARCH)})


def _read(file: Path, described: Record, what: str) -> dict[str, Any]:
    """JSON that anybody may have written, held against what our own looks like."""
    way_out = "a bundle is the folder that a compilation for the target magicmind writes"
    data: dict[str, Any] = read_json(file, what, way_out)
    bad = described.fault(data, "")
    inputs = len(data["inputs"]) if not bad and "inputs" in data else 0
    streams = ((data.get("calibration") or {}).get("inputs", ()) if inputs else ()) if not bad else ()
    if any(stream["index"] >= inputs for stream in streams):
        bad = "calibration.inputs: an index has no input"
    if bad:
        raise GraphForgeError(f"{str(file)!r} is not {what}: {bad}", way_out)
    return data
