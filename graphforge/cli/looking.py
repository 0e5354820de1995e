"""Options of `graphforge compile` for looking at its passes: what would run, what nearly fired, how long, the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graphforge.cli.console import print_json, print_text, stderr, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from graphforge.bundle import Bundle
    from graphforge.options import CompileOptions, Plan
    from graphforge.transform import Instrument

__all__ = ["looking_options", "print_account", "print_plan", "printing_after"]

C = TypeVar("C", bound=Callable[..., Any])


def looking_options(command: C) -> C:
    """Add `--dry-run`, `--explain`, `--time-passes` and `--print-after`."""
    decorators = (
        click.option(
            "--dry-run", is_flag=True, help="Print the passes that would run, with their options; do nothing."
        ),
        click.option("--explain", is_flag=True, help="Tell what nearly fired, where, and why it did not."),
        click.option("--time-passes", is_flag=True, help="Print the passes by the time they took."),
        click.option(
            "--print-after",
            multiple=True,
            metavar="PASS",
            help="Print the graph each time this pass has run (with --json: on stderr); repeat for more.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def printing_after(names: tuple[str, ...], *, as_json: bool) -> list[Instrument]:
    """The instrument that prints the graph after these passes; none where there are none."""
    if not names:
        return []
    from graphforge.transform import PrintAfter

    console = stderr() if as_json else stdout()
    width = console.width if console.is_terminal else None

    def write(text: str) -> None:
        print_text(text, to_stderr=as_json, colours=_has_colours(console))

    return [PrintAfter(names, write, width, _has_colours(console))]


def print_plan(planned: Plan, options: CompileOptions, model: str, folder: str, *, as_json: bool) -> None:
    """What would be done: the target and what is asked of it, then the passes of each stage."""
    facts = planned.to_dict()
    if as_json:
        print_json({"dry_run": True, "model": model, **facts, "verify": options.verify, "output": folder})
        return
    rows = {
        "model": model,
        "target": facts["target"],
        "opset": facts["opset"] or "the target's choice",
        "precision": facts["precision"] or "the target's choice",
        "verify": "yes" if options.verify else "no",
        "output": folder,
    }
    for name, value in rows.items():
        click.echo(f"{name:10} {value}")
    number = 0
    for stage, passes in planned.stages.items():
        click.echo(f"\n{stage}")
        for item in passes:
            number += 1
            click.echo(f"  {number:3}  {item.spec()}")
    click.echo("\nnothing was loaded or written: --dry-run")


def print_account(bundle: Bundle, *, explain: bool, time_passes: bool) -> None:
    """What the passes did, as far as it is asked for."""
    if time_passes:
        print_text(f"{bundle.pass_times()}\n")
    if explain:
        print_text(f"{bundle.explain()}\n")


def _has_colours(console: Console) -> bool:
    return console.is_terminal and not console.no_color
