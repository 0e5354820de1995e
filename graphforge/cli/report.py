"""`graphforge report`: one bundle as a page for the browser."""

from __future__ import annotations

from typing import Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, optional_model_options

__all__ = ["command"]


@click.command("report")
@click.argument("bundle", metavar="BUNDLE")
@optional_model_options
@click.option("-o", "--output", metavar="FILE.html", help="File to write.  [default: report.html in the bundle]")
@json_option
def command(bundle: str, request: ModelRequest | None, output: str | None, as_json: bool) -> None:
    """Write a bundle as one self-contained HTML page: verdict, graph, where it departs, passes, verification.

    The graph is folded by module, searchable and coloured by dtype; with MODEL, given as to `graphforge compile`, by
    error and time too, and each node shows the rewrites that led to it.  Without it nothing is run.

    \b
    Examples:
      graphforge report out/resnet50
      graphforge report out/net net.py:build -o net.html
    """
    from graphforge.verbs.report import report

    with progress(quiet=as_json) as begin:
        given: dict[str, Any] = {}
        if request is not None:
            begin("load")
            given = {**request.model_and_inputs(), "progress": begin}
            given = {name: value for name, value in given.items() if value not in (None, {}, ())}
        page = report(bundle, output, **given)
    if as_json:
        print_json(page.to_dict())
    else:
        page.render(stdout())
