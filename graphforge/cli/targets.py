"""`graphforge targets`: where a model can go, what can be asked of each target, and what runs here."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option
from graphforge.errors import GraphForgeError

if TYPE_CHECKING:
    from graphforge.targets import Target
    from graphforge.targets.options import Option

__all__ = ["command"]

# Of the shape of the JSON document; it grows when a key changes its meaning or goes.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class _Row:
    """How one target stands on this machine.

    Attributes:
        name: what users call it.
        makes: what it makes; "" when its package is broken.
        package: the package that adds it; "" for one of ours.
        compiles_here: whether models can be compiled for it, which takes its vendor's packages where it has some.
        cannot_compile: why not; "" when they can.
        runs_here: whether what it makes runs.
        cannot_run: why not, and what runs in its place; "" when it does.
    """

    name: str
    makes: str
    package: str
    compiles_here: bool
    cannot_compile: str
    runs_here: bool
    cannot_run: str


@click.command("targets")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List where a model can go, or tell all about one target: its precisions, options and operators.

    \b
    Examples:
      graphforge targets
      graphforge targets tensorrt
      graphforge targets magicmind --json

    Packages add targets of their own by the entry point `graphforge.targets`; graphforge/targets/README.md shows how.
    """
    from graphforge.targets import get_target, target_names

    if name is not None:
        _tell(get_target(name), as_json)
        return
    rows = [_row(one) for one in target_names()]
    if as_json:
        print_json({"schema": SCHEMA, "targets": [asdict(row) for row in rows]})
    else:
        _print_rows(rows)


def _row(name: str) -> _Row:
    """How a target stands; one whose package is broken is a row too, and the others are still told."""
    from graphforge.targets import get_target, target_origin

    package = target_origin(name)
    try:
        target = get_target(name)
        missing, elsewhere = target.available(), target.runs_here()
    except GraphForgeError as error:
        return _Row(name, "", package, False, error.message, False, "")
    except Exception as error:  # methods of somebody else's target may fail in any way
        return _Row(name, "", package, False, f"it fails when asked: {type(error).__name__}: {error}", False, "")
    return _Row(name, target.makes, package, missing is None, missing or "", elsewhere is None, elsewhere or "")


def _print_rows(rows: list[_Row]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = stdout()
    table = Table()
    table.add_column("target", no_wrap=True)
    table.add_column("makes", overflow="fold")
    table.add_column("compiles here")
    table.add_column("runs here")
    for row in rows:
        table.add_row(escape(row.name), escape(row.makes), _yes(row.compiles_here), _yes(row.runs_here))
    console.print(table)
    for row in rows:
        if not row.compiles_here:
            _say(console.width, f"{row.name} does not work here: {row.cannot_compile}")
        elif not row.runs_here:
            _say(console.width, f"{row.name} does not run here: {row.cannot_run}")
        if row.package:
            _say(console.width, f"{row.name} is added by {row.package}")
    _say(console.width, "`graphforge targets NAME` tells a target's precisions, options and operators")


def _tell(target: Target, as_json: bool) -> None:
    """All about one target."""
    from graphforge.targets.options import as_record, declared_options
    from graphforge.targets.support import TARGETS, runtimes

    row = _row(target.name)
    precision, *options = declared_options(target)
    tables = [runtimes(table) for table in target.tables]  # of each, its releases
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                **asdict(row),
                "precisions": [
                    {"name": name, "help": line, "default": name == precision.default}
                    for name, line in precision.values.items()
                ],
                "options": [
                    {"name": one.name, "value": one.form, "default": as_record(one.default), "help": one.help}
                    for one in options
                ],
                "operators": [
                    {
                        "runtime": table.title,
                        "oldest_opset": table.oldest_opset,
                        "newest_opset": table.newest_opset,
                        "evidence": table.evidence,
                        "document": table.document,
                        "note": table.note,
                    }
                    for releases in tables
                    for table in releases
                ],
            }
        )
        return
    width = stdout().width
    _say(width, f"{row.name}: {row.makes}")
    if row.package:
        _say(width, f"added by {row.package}", 1)
    _say(width, f"compiles here: {_answer(row.cannot_compile)}", 1)
    _say(width, f"runs here: {_answer(row.cannot_run)}", 1)
    click.echo("\nprecisions: --precision NAME")
    for name, line in precision.values.items():
        _say(width, f"{name}{'  [default]' if name == precision.default else ''}", 1)
        _say(width, line, 2)
    click.echo("\noptions: --option NAME=VALUE" if options else "\noptions: none")
    for one in options:
        _say(width, f"{one.name} = {one.form}", 1)
        _say(width, f"{one.help}{_default(one)}", 2)
    click.echo("\noperators" if tables else "\noperators: nothing is written down")
    for newest, *older in tables:
        _say(width, f"{newest.title}: {_opsets(newest.oldest_opset, newest.newest_opset)} ({newest.evidence})", 1)
        if newest.note:
            _say(width, newest.note, 2)
        if older:
            _say(width, f"and {len(older)} older releases", 2)
    for table in target.tables:
        if table in TARGETS:
            _say(width, f"`graphforge opset MODEL --target {table}` tells what of a model it takes")


def _say(width: int, text: str, level: int = 0) -> None:
    """One paragraph, wrapped at the width of the console, its later lines further in."""
    indent = "  " * level
    wrapped = textwrap.fill(
        text,
        width=max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent if level > 1 else f"{indent}  ",
        break_on_hyphens=False,
    )
    click.echo(wrapped)


def _default(one: Option) -> str:
    """The default as a user would write it; none where the help says what happens."""
    if one.default in (None, "", ()):
        return ""
    value = one.default
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"  [default: {value}]"


def _opsets(oldest: int | None, newest: int | None) -> str:
    if oldest is None and newest is None:
        return "opsets unknown"
    if newest is None:
        return f"opset {oldest} and up"
    if newest == oldest:
        return f"opset {newest} only"
    return f"opset up to {newest}" if oldest is None else f"opset {oldest} to {newest}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _answer(reason: str) -> str:
    return f"no: {reason}" if reason else "yes"
