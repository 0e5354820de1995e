"""`graphforge explain`: where a node comes from and why it is as it is, or what a pass did."""

from __future__ import annotations

import click

from graphforge.cli.compile import options_by_name, own_passes_and_pipeline
from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options, plan_options

__all__ = ["command"]


@click.command("explain")
@model_options
@click.argument("what", metavar="NODE|MODULE|PASS")
@plan_options
@json_option
def command(
    request: ModelRequest,
    what: str,
    passes: tuple[str, ...],
    pipeline: str | None,
    target: str | None,
    opset: int | None,
    precision: str | None,
    target_options: tuple[str, ...],
    outputs: str | None,
    nms: str | None,
    as_json: bool,
) -> None:
    """Tell where a node of MODEL's delivered graph comes from and why it is as it is, or what a pass did.

    For a node: its source line, what was captured, each rewrite with before and after, what nearly fired there and why
    it did not, its element type and shape.  A module stands for all of its nodes.  For a pass: each of its rewrites,
    and the places that it left alone.

    \b
    Examples:
      graphforge explain net.py:build --input 'x:1x3x64x64' conv1/Conv
      graphforge explain net.py:build --input 'x:1x3x64x64' encoder.0
      graphforge explain net.py:build --input 'x:1x3x64x64' fold-batch-norm
    """
    from graphforge.verbs.explain import explain

    own, chosen = own_passes_and_pipeline(passes, pipeline)
    with progress(quiet=as_json) as begin:
        begin("load")
        report = explain(
            **request.model_and_inputs(),
            what=what,
            passes=own,
            pipeline=chosen,
            target=target or "onnx",
            opset=opset,
            precision=precision,
            target_options=options_by_name(target_options),
            outputs=outputs,
            nms=nms,
            substitutes=request.substitutes,
            custom_ops=request.custom_ops,
            progress=begin,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
