"""`graphforge bisect`: which pass makes the compiled graph depart from the eager model."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options

__all__ = ["command"]


@click.command("bisect")
@model_options
@click.option("--pass", "passes", multiple=True, metavar="FILE.py:Class", help="A pass of your own; repeat for more.")
@click.option("--pipeline", metavar="'a,b{opt=1},c'", help="Look among these passes instead of the default ones.")
@json_option
def command(request: ModelRequest, passes: tuple[str, ...], pipeline: str | None, as_json: bool) -> int:
    """Name the first pass after which MODEL's graph no longer computes what the eager model computes.

    Ends with exit code 1 when there is one.

    \b
    Examples:
      graphforge bisect net.py:build --input 'x:1x3x64x64'
      graphforge bisect net.py:build --input 'x:1x3x64x64' --pass my_pass.py:DropDropout
    """
    from graphforge.transform import load_pass_from_file
    from graphforge.verbs.bisect import bisect

    own = [load_pass_from_file(spec)() for spec in passes]
    with progress(quiet=as_json) as begin:
        begin("load")
        report = bisect(**request.model_and_inputs(), passes=own, pipeline=pipeline, progress=begin)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(not report.clean)
