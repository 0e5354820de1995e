"""`graphforge bisect`: which pass, and which of its rewrites, makes the compiled graph depart from the eager model."""

from __future__ import annotations

import click

from graphforge.cli.compile import options_by_name, own_passes_and_pipeline
from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options, plan_options
from graphforge.cli.tolerances import tolerance_options, tolerances_of
from graphforge.errors import UsageError

__all__ = ["command"]


@click.command("bisect")
@model_options
@plan_options
@tolerance_options
@click.option("--nodes", is_flag=True, help="Nodes instead of passes: MODEL is an ONNX file; as `graphforge reduce`.")
@click.option(
    "--check", metavar="COMMAND", help="With --nodes: what fails by its exit code, as `graphforge reduce` takes it."
)
@click.option(
    "--gen-script", metavar="FILE.py", help="With --nodes: write a script that does the same with polygraphy."
)
@click.option("-o", "--output", metavar="DIR", help="Folder for the graph in front of the guilty pass, or the part.")
@json_option
def command(
    request: ModelRequest,
    passes: tuple[str, ...],
    pipeline: str | None,
    target: str | None,
    opset: int | None,
    precision: str | None,
    target_options: tuple[str, ...],
    outputs: str | None,
    nms: str | None,
    rtol: float | None,
    atol: float | None,
    nodes: bool,
    check: str | None,
    gen_script: str | None,
    output: str | None,
    as_json: bool,
) -> int:
    """Name the first pass, and its first rewrite, after which MODEL's graph no longer computes what eager computes.

    The passes are the canonical ones and the target's, as `graphforge compile` runs them.  The graph in front of the
    guilty pass is kept, with the command that shows the pass alone on it.  Ends with exit code 1 when there is one.

    \b
    Examples:
      graphforge bisect net.py:build --input 'x:1x3x64x64'
      graphforge bisect net.py:build --input 'x:1x3x64x64' --pass my_pass.py:DropDropout
      graphforge bisect detector.py:build --target tensorrt --outputs padded --opset 17
      graphforge bisect before.onnx --input-file inputs.npz --pipeline fuse-gelu
      graphforge bisect model.onnx --nodes --check 'trtexec --onnx={model}'
    """
    if nodes:
        from graphforge.cli.reduce import reduced

        return reduced(request, as_json=as_json, check=check, script=gen_script, output=output)
    if check is not None or gen_script is not None:
        raise UsageError("--check and --gen-script are about nodes", "add --nodes")
    from graphforge.verbs.bisect import bisect

    own, chosen = own_passes_and_pipeline(passes, pipeline)
    with progress(quiet=as_json) as begin:
        begin("load")
        report = bisect(
            **request.model_and_inputs(),
            passes=own,
            pipeline=chosen,
            target=target,
            opset=opset,
            precision=precision,
            target_options=options_by_name(target_options) or None,
            outputs=outputs,
            nms=nms,
            tolerances=tolerances_of(rtol, atol),
            substitutes=request.substitutes,
            custom_ops=request.custom_ops,
            output=output,
            progress=begin,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    return int(not report.clean)
