"""`graphforge passes`: the passes in the order they run, what each does, its options."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["command"]

# In fewer columns a table would break the names of passes.
_WIDTH_OF_A_TABLE = 110


@click.command("passes")
@click.argument("name", required=False, metavar="[NAME|FILE.py:Class]")
@click.option("--target", default="onnx", show_default=True, help="The target whose passes follow the default ones.")
@click.option("--opset", type=int, help="The opset the target is asked for.")
@json_option
def command(name: str | None, target: str, opset: int | None, as_json: bool) -> None:
    """List the passes in the order they run, or tell all about one.

    \b
    Examples:
      graphforge passes
      graphforge passes --target tensorrt
      graphforge passes fold-batch-norm
      graphforge passes my_pass.py:DropDropout

    The last line of the list is the text `graphforge compile --pipeline` takes, to be copied and changed.
    """
    from graphforge.passes import default_pipeline
    from graphforge.targets import get_target, options_for
    from graphforge.transform import Pipeline, default_registry

    if name is not None:
        _show_one(name, as_json)
        return
    canonical = list(default_pipeline())
    chosen = get_target(target)
    legal = chosen.pipeline(options_for(chosen, opset=opset))
    ordered = {"canonical": canonical, f"legal for {target}": legal}
    placed = {item.name for stage in ordered.values() for item in stage}
    others = [default_registry().get(other) for other in default_registry().names() if other not in placed]
    if as_json:
        print_json(
            {
                "stages": {
                    stage: [{**_facts(type(item)), "spec": item.spec()} for item in passes]
                    for stage, passes in ordered.items()
                },
                "available": [_facts(item) for item in others],
                "pipeline": Pipeline(canonical).spec(),
            }
        )
        return
    stages = {stage: [type(item) for item in passes] for stage, passes in ordered.items()} | {"on request": others}
    _show_all(stages)
    click.echo(f"--pipeline '{Pipeline(canonical).spec()}'")


def _show_all(stages: Mapping[str, Sequence[type[Pass]]]) -> None:
    """A table where there is width for one, else a list; no name of a pass is ever broken."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    if console.width < _WIDTH_OF_A_TABLE:
        for stage, passes in stages.items():
            console.print(f"[bold]{stage}[/bold]")
            for item in passes:
                click.echo(f"  {item.name}")
                for text in filter(None, (item.summary(), _options(item))):
                    for line in Text(text).wrap(console, max(console.width - 6, 10)):
                        click.echo(f"      {line.plain}")
        return
    table = Table()
    for column in ("stage", "pass", "what it does", "options"):
        table.add_column(column, overflow="fold", no_wrap=column in ("stage", "pass"))
    for stage, passes in stages.items():
        for index, item in enumerate(passes):
            table.add_row(stage if index == 0 else "", item.name, escape(item.summary()), escape(_options(item)))
        table.add_section()
    console.print(table)


def _show_one(name: str, as_json: bool) -> None:
    """All about one pass: a built-in one or one of an installed package by its name, one of a file by FILE.py:Class."""
    import inspect
    import sys

    from graphforge.transform import default_registry, load_pass_from_file
    from graphforge.transform.example import example_of

    from_file = ".py" in name
    pass_class = load_pass_from_file(name) if from_file else default_registry().get(name)
    source = name if from_file else default_registry().source(name)
    # the docstring of the file tells more than that of the class, where there are both
    texts = [inspect.getdoc(sys.modules[pass_class.__module__]), inspect.getdoc(pass_class)]
    text = next((text for text in texts if text and not text.startswith(f"{pass_class.__name__}(")), "")
    facts = _facts(pass_class)
    example = example_of(pass_class)
    if as_json:
        shown = None if example is None else {field.name: getattr(example, field.name) for field in fields(example)}
        print_json({**facts, "text": text, "source": source, "example": shown})
        return
    click.echo(f"{pass_class.name}\n\n{text}" if text else pass_class.name)
    if facts["options"]:
        click.echo("\noptions:")
    for option in facts["options"]:
        default = "required" if option["required"] else f"default {option['default']}"
        click.echo(f"  {option['name']}: {option['type']}  ({default})")
    if example is not None:
        graphs = f"{example.before}\n\n==>\n\n{example.after}"
        click.echo(f"\nexample: --pipeline '{example.pipeline}'\n\n{textwrap.indent(graphs, '  ')}")
    click.echo(f"\nfrom: {source}")
    if from_file:
        click.echo(f"runs with: graphforge compile ... --pass {name}")


def _facts(pass_class: type[Pass]) -> dict[str, Any]:
    return {
        "name": pass_class.name,
        "summary": pass_class.summary(),
        "options": [
            {
                "name": field.name,
                "type": field.type.__name__ if isinstance(field.type, type) else str(field.type),
                "required": field.default is MISSING and field.default_factory is MISSING,
                "default": _default(field),
            }
            for field in fields(pass_class)
        ],
    }


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _options(pass_class: type[Pass]) -> str:
    return ", ".join(f"{option['name']}={option['default']}" for option in _facts(pass_class)["options"])
