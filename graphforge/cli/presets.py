"""`graphforge presets`: deploy configs that come with GraphForge, and each as it is written."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option

__all__ = ["command"]


@click.command("presets")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the deploy configs that `graphforge compile --deploy-config NAME` takes, or print one of them.

    What is printed is TOML, to be copied, changed and given as a file; `base = [...]` builds on others.

    \b
    Examples:
      graphforge presets
      graphforge presets pose-detection_simcc_onnxruntime_dynamic > mine.toml
      graphforge compile mmpose:rtmpose-m_8xb256-420e_coco-256x192 --deploy-config mine.toml
    """
    from graphforge.deploying import preset_names, preset_text

    if name is not None:
        text = preset_text(name)
        if as_json:
            print_json({"name": name, "text": text})
        else:
            click.echo(text, nl=False)
        return
    found = preset_names()
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    table = Table("preset", "for")
    for preset, about in found.items():
        table.add_row(preset, about)
    stdout().print(table)
