"""`graphforge diff`: module outputs of the eager model against an ONNX file, the first departure marked."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options

__all__ = ["command"]


@click.command("diff")
@model_options
@click.option("--against", required=True, metavar="BUNDLE|FILE.onnx", help="What was compiled.")
@json_option
def command(request: ModelRequest, against: str, as_json: bool) -> int:
    """Compare MODEL layer by layer with a bundle or file compiled from it, and mark the first module that departs.

    Tensors of the file are lined up with module outputs by the origins in its node metadata, in execution order.
    Ends with exit code 1 when something departs.

    \b
    Examples:
      graphforge diff net.py:build --input 'x:1x3x64x64' --against out/net
      graphforge diff torchvision:resnet18 --input-file photo.jpg --against edited.onnx --json
    """
    from graphforge.verbs.diff import diff

    with progress(quiet=as_json) as begin:
        begin("load")
        report = diff(against=against, **request.model_and_inputs(), progress=begin)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(report.first_departure is not None)
