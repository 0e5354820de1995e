"""`graphforge report`: one bundle as a page for the browser."""

from __future__ import annotations

from typing import Any

import click

from graphforge.cli.compile import own_passes_and_pipeline
from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, optional_model_options
from graphforge.errors import UsageError

__all__ = ["command"]


@click.command("report")
@click.argument("bundle", metavar="BUNDLE")
@optional_model_options
@click.option(
    "--pass",
    "passes",
    multiple=True,
    metavar="FILE.py:Class",
    help="A pass of your own that BUNDLE was compiled with, so that its rewrites are shown; repeat for more.",
)
@click.option(
    "--picture",
    "pictures",
    multiple=True,
    metavar="FILE",
    help="Run BUNDLE on a picture and draw the detections, poses or heatmaps it finds; repeat for more.",
)
@click.option("-o", "--output", metavar="FILE.html", help="File to write.  [default: report.html in the bundle]")
@json_option
def command(
    bundle: str,
    request: ModelRequest | None,
    passes: tuple[str, ...],
    pictures: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    """Write a bundle as one self-contained HTML page: verdict, graph, where it departs, passes, verification.

    The graph is folded by module, searchable and coloured by dtype; with MODEL, given as to `graphforge compile`, by
    error and time too, and each node shows the spread of its values and the rewrites that led to it.  Without it, and
    without --picture, nothing is run.

    \b
    Examples:
      graphforge report out/resnet50
      graphforge report out/net net.py:build -o net.html
      graphforge report out/detector net.py:build --picture street.jpg
    """
    from graphforge.verbs.report import report

    if passes and request is None:
        raise UsageError("--pass is about MODEL, which is not given", "name it behind BUNDLE")
    own, _ = own_passes_and_pipeline(passes, None)
    with progress(quiet=as_json) as begin:
        given: dict[str, Any] = {}
        if request is not None:
            begin("load")
            given = {**request.model_and_inputs(), "progress": begin}
            given = {name: value for name, value in given.items() if value not in (None, {}, ())}
        page = report(bundle, output, passes=own, pictures=pictures, **given)
    if as_json:
        print_json(page.to_dict())
    else:
        page.render(stdout())
