"""`graphforge optimize`: an ONNX file in, a better ONNX file out, and a table of what it saved."""

from __future__ import annotations

from pathlib import Path

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, onnx_options

__all__ = ["command"]


@click.command("optimize")
@onnx_options
@click.option(
    "-o", "--output", metavar="OUT.onnx", help="The new file.  [default: FILE.optimized.onnx beside FILE.onnx]"
)
@click.option("--opset", type=int, help="Opset to deliver.  [default: the file's own]")
@click.option("--no-verify", is_flag=True, help="Do not compare with the original.")
@json_option
def command(request: ModelRequest, output: str | None, opset: int | None, no_verify: bool, as_json: bool) -> None:
    """Make an ONNX file smaller and faster; the new file is compared with the original in ONNX Runtime.

    Folds constants and batch normalization, fuses what newer operators say in one node (where the opset has them),
    removes what does nothing.  Names of inputs and outputs stay, and so do those of every node that stays.

    \b
    Examples:
      graphforge optimize model.onnx
      graphforge optimize model.onnx -o smaller.onnx --opset 20
      graphforge optimize detector.onnx --input 'image:1x3x640x640' --dynamic 'image:0=1..4'

    Weights above 1.9 GB go to OUT.onnx.data beside the new file.  If one output differs, the command fails and leaves
    nothing.  `graphforge compile model.onnx` has all the other switches: passes of your own, targets, tolerances.
    """
    from graphforge.optimization import optimize, optimized_path

    path = Path(request.model)
    optimized_path(path, output)  # refused before anything is read
    with progress(quiet=as_json) as begin:
        inputs, further = request.examples()
        done = optimize(
            path,
            output,
            opset=opset,
            inputs=inputs,
            dynamic_shapes=request.dynamic,
            ranges=request.ranges,
            further_inputs=further,
            verify=not no_verify,
            seed=request.seed,
            progress=begin,
        )
    if as_json:
        print_json(done.to_dict())
    else:
        done.render(stdout())
