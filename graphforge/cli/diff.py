"""`graphforge diff`: module outputs of the eager model against an ONNX file, the first departure marked."""

from __future__ import annotations

from pathlib import Path

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options
from graphforge.errors import UsageError

__all__ = ["command"]


@click.command("diff")
@model_options
@click.option("--against", required=True, metavar="FILE.onnx", help="The compiled file.")
@json_option
def command(request: ModelRequest, against: str, as_json: bool) -> int:
    """Compare MODEL layer by layer with a file compiled from it, and mark the first module that departs.

    Tensors of the file are lined up with module outputs by the origins in its node metadata, in execution order.
    Ends with exit code 1 when something departs.

    \b
    Examples:
      graphforge diff net.py:build --input 'x:1x3x64x64' --against out/net/model.onnx
      graphforge diff torchvision:resnet18 --input-file photo.jpg --against edited.onnx --json
    """
    from graphforge.prepare import example_feeds, reference_runner
    from graphforge.runners.eager import EagerRunner
    from graphforge.verify.diff import diff_modules

    if not Path(against).is_file():
        raise UsageError(f"file {against!r} does not exist", "--against names the compiled .onnx file")
    with progress(quiet=as_json) as begin:
        begin("load")
        prepared = request.prepare()
        reference = reference_runner(prepared)
        if not isinstance(reference, EagerRunner):
            raise UsageError(
                f"{request.model!r} is an ONNX file and has no modules to compare with",
                "MODEL is the PyTorch model that --against was compiled from",
            )
        begin("compare")
        report = diff_modules(reference, against, example_feeds(prepared))
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(report.first_departure is not None)
