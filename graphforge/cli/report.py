"""`graphforge report`: one bundle as a page for the browser."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, stdout
from graphforge.cli.request import json_option

__all__ = ["command"]


@click.command("report")
@click.argument("bundle", metavar="BUNDLE")
@click.option("-o", "--output", metavar="FILE.html", help="File to write.  [default: report.html in the bundle]")
@json_option
def command(bundle: str, output: str | None, as_json: bool) -> None:
    """Write a bundle's steps, passes, operators and verification as one self-contained HTML page.

    \b
    Examples:
      graphforge report out/resnet50
      graphforge report out/resnet50 -o resnet50.html
    """
    from graphforge.verbs.report import report

    page = report(bundle, output)
    if as_json:
        print_json(page.to_dict())
    else:
        page.render(stdout())
