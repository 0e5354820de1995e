"""`graphforge passes`: the passes in the order they run, what each does, its options."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["command"]


@click.command("passes")
@click.argument("name", required=False)
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

    The last line of the list is the text `graphforge compile --pipeline` takes, to be copied and changed.
    """
    from graphforge.passes import default_pipeline
    from graphforge.targets import get_target, options_for
    from graphforge.transform import Pipeline, default_registry

    if name is not None:
        _show_one(default_registry().get(name), as_json)
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
    from rich.markup import escape
    from rich.table import Table

    console = stdout()
    table = Table()
    for column in ("stage", "pass", "what it does", "options"):
        table.add_column(column, overflow="fold")
    for stage, passes in ordered.items():
        for index, item in enumerate(passes):
            table.add_row(stage if index == 0 else "", item.name, escape(type(item).summary()), _options(type(item)))
        table.add_section()
    for index, other in enumerate(others):
        table.add_row("on request" if index == 0 else "", other.name, escape(other.summary()), _options(other))
    console.print(table)
    console.print(f"--pipeline '{escape(Pipeline(canonical).spec())}'", soft_wrap=True)


def _show_one(pass_class: type[Pass], as_json: bool) -> None:
    import inspect
    import sys

    module = sys.modules[pass_class.__module__]
    text = inspect.getdoc(module) or inspect.getdoc(pass_class) or ""
    if as_json:
        print_json({**_facts(pass_class), "text": text})
        return
    click.echo(f"{pass_class.name}\n\n{text}")
    facts = _facts(pass_class)["options"]
    if facts:
        click.echo("\noptions:")
    for option in facts:
        default = "required" if option["required"] else f"default {option['default']}"
        click.echo(f"  {option['name']}: {option['type']}  ({default})")


def _facts(pass_class: type[Pass]) -> dict[str, Any]:
    return {
        "name": pass_class.name,
        "summary": pass_class.summary(),
        "options": [
            {
                "name": field.name,
                "type": str(field.type),
                "required": field.default is MISSING and field.default_factory is MISSING,
                "default": None if field.default is MISSING else field.default,
            }
            for field in fields(pass_class)
        ],
    }


def _options(pass_class: type[Pass]) -> str:
    return ", ".join(f"{option['name']}={option['default']}" for option in _facts(pass_class)["options"])
