"""`graphforge diff`: where a compiled file goes another way than its model, down to the node and the source line."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options
from graphforge.cli.tolerances import tolerance_options, tolerances_of

__all__ = ["command"]


@click.command("diff")
@model_options
@click.option(
    "--against", required=True, metavar="BUNDLE|FILE.onnx|MODEL", help="What was compiled, or another PyTorch model."
)
@click.option(
    "--layers",
    default="modules",
    show_default=True,
    metavar="modules|all|PATTERN",
    help="What the table shows: what modules returned, all values, or those of modules such as 'backbone.*'.",
)
@click.option(
    "--memory", metavar="SIZE", help="Values held at once, for example 1GB (the default); the rest goes to disk."
)
@tolerance_options
@json_option
def command(
    request: ModelRequest,
    against: str,
    layers: str,
    memory: str | None,
    rtol: float | None,
    atol: float | None,
    as_json: bool,
) -> int:
    """Compare every value of MODEL with a bundle or file compiled from it, and name the node and line that is wrong.

    The model is run operator by operator, and each of its values is compared with the one that stands for it in the
    file.  A node that departs is run alone on the model's own values: what departs then is wrong here, what agrees was
    only handed on.  Ends with exit code 1 when an output differs or could not be compared.

    A bundle runs in its own runtime where this machine has it: OpenVINO hands out every value, TensorRT its outputs.

    \b
    Examples:
      graphforge diff net.py:build --input 'x:1x3x64x64' --against out/net
      graphforge diff net.py:build --input-file photo.jpg --against edited.onnx --layers 'head.*' --json
      graphforge diff net.py:build --against net.py:rewritten
    """
    from graphforge.verbs.diff import diff

    with progress(quiet=as_json) as begin:
        begin("load")
        report = diff(
            against=against,
            layers=layers,
            memory=memory,
            tolerances=tolerances_of(rtol, atol),
            **request.model_and_inputs(),
            progress=begin,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(not report.agrees)
