"""A bundle in a few tables: steps, outputs, and everything its user should know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["closeness", "print_summary", "verdict_of"]

# Rows of the table of what layers cost in int8.
_LAYERS = 12


def verdict_of(manifest: Mapping[str, Any]) -> str:
    """``verified``, ``not verified``, ``undecided`` or ``failed``."""
    verification = manifest.get("verification", {})
    if verification.get("verdict") == "undecided":
        return "undecided"
    passed: bool | None = verification.get("passed")
    return {True: "verified", None: "not verified"}.get(passed, "failed")


def closeness(manifest: Mapping[str, Any]) -> str:
    """How close the outputs came to the reference's: ``max rel 1.2e-06``; "" where nothing was compared."""
    outputs = [output for trial in manifest.get("verification", {}).get("trials", ()) for output in trial["outputs"]]
    if not outputs:
        return ""
    worst = _worst(outputs, "max_rel")
    return worst if worst == "exact" else f"max rel {worst}"


def print_summary(console: Console, path: Path, manifest: Mapping[str, Any]) -> None:
    """The closing tables: steps, then outputs, then everything the user should know."""
    from rich.markup import escape

    console.print(_steps_table(manifest))
    verification = manifest["verification"]
    if verification.get("trials"):
        console.print(_outputs_table(verification))
        tried = (_inputs_of(trial) for trial in verification["trials"])
        console.print(f"inputs tried: {escape(' | '.join(dict.fromkeys(tried)))}", soft_wrap=True)
    if manifest.get("sensitivity"):
        console.print(_sensitivity_table(manifest["sensitivity"]))
    for one in manifest["capture"]["substitutions"]:
        times = "once" if one["calls"] == 1 else f"{one['calls']} times"
        console.print(f"[dim]substituted[/dim] {escape(one['function'])} {times}", soft_wrap=True)
    for fallback in manifest["lowering"]["fallbacks"]:
        where = " at ".join(part for part in (fallback["module"], fallback["source"]) if part)
        console.print(f"[yellow]fallback[/yellow] {escape(fallback['operator'])} {escape(where)}", soft_wrap=True)
    for note in dict.fromkeys([*manifest["notes"], *verification.get("notes", [])]):
        console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
    word = verdict_of(manifest)
    verdict = f"[{ {'verified': 'green', 'failed': 'red'}.get(word, 'yellow') }]{word}[/]"
    if word == "undecided":
        for line in verification["failures"]:
            console.print(f"[yellow]undecided[/yellow] {escape(line)}", soft_wrap=True)
    reason = f" ({verification['skipped']})" if verification.get("skipped") else ""
    main, *others = manifest["files"]
    beside = f" and {len(others)} more files beside it" if others else ""
    # a plan that this machine cannot run: what was run and compared is named, not the plan
    checked = manifest["artifact"].get("checked", main)
    if verification["passed"] and checked not in (main, "the plan"):
        verdict = f"[green]verified[/green] {escape(checked)}, [yellow]not run here[/yellow]"
    console.print(f"{verdict}{escape(reason)}: {escape(str(path / main))}{beside}", soft_wrap=True)


def _steps_table(manifest: Mapping[str, Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="steps", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    table.add_column("nodes", justify="right")
    for step in manifest["steps"]:
        table.add_row(escape(step["name"]), f"{step['seconds']:.2f}", str(step.get("nodes", "")))
    table.add_section()
    table.add_row("all", f"{sum(step['seconds'] for step in manifest['steps']):.2f}", str(manifest["nodes"]))
    return table


def _sensitivity_table(sensitivity: Mapping[str, Any]) -> Table:
    """The layers that cost most when they alone are in int8; all of them are in the bundle."""
    from rich.markup import escape
    from rich.table import Table

    layers = sensitivity["layers"]
    title = f"alone in int8, {sensitivity['evaluations']} evaluations in {sensitivity['seconds']:.1f} s"
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    table.add_column("line")
    table.add_column("noise", justify="right")
    table.add_column("drop", justify="right")
    table.add_column("kept")
    for layer in layers[:_LAYERS]:
        drop = "" if layer["drop"] is None else f"{layer['drop']:.3g}"
        kept = "float32" if layer["kept"] else ""
        where = layer["source"].rpartition("/")[2]
        named = f"{layer['operator']} {layer['module'] or layer['name']}"
        table.add_row(escape(named), escape(where), f"{100 * layer['noise']:.2g} %", drop, kept)
    if len(layers) > _LAYERS:
        table.add_row(f"and {len(layers) - _LAYERS} more", "", "", "", "")
    return table


def _outputs_table(verification: Mapping[str, Any]) -> Table:
    """One row per output: the worst of all trials, and the shapes it came in."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{verification['artifact']} against {verification['reference']}"), title_justify="left")
    table.add_column("output")
    table.add_column("dtype")
    table.add_column("max abs", justify="right")
    table.add_column("max rel", justify="right")
    table.add_column("allowed")
    table.add_column("shapes")
    by_output: dict[str, list[Mapping[str, Any]]] = {}
    for trial in verification["trials"]:
        for output in trial["outputs"]:
            by_output.setdefault(output["name"], []).append(output)
    for name, seen in by_output.items():
        shapes = dict.fromkeys("x".join(map(str, output["shape"])) or "scalar" for output in seen)
        table.add_row(
            escape(name),
            escape(seen[0]["dtype"]),
            _worst(seen, "max_abs"),
            _worst(seen, "max_rel"),
            escape(_worst_trial(seen)["tolerance"]),
            ", ".join(shapes),
        )
    return table


def _inputs_of(trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in trial["inputs"].items())


def _worst_trial(outputs: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Where the output differs most: what was allowed there stands beside it."""
    return max(outputs, key=lambda output: output["max_abs"] if isinstance(output["max_abs"], int | float) else 0.0)


def _worst(outputs: list[Mapping[str, Any]], key: str) -> str:
    values = [output[key] for output in outputs]
    words = [value for value in values if isinstance(value, str)]  # "nan", "inf"
    numbers = [value for value in values if isinstance(value, int | float)]
    return words[0] if words else f"{max(numbers):.2g}" if numbers else "exact"
