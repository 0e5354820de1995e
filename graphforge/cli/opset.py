"""`graphforge opset`: what each opset can do for a model, and what each runtime lacks of it."""

from __future__ import annotations

from pathlib import Path

import click

from graphforge.cli.console import print_json, progress, stderr, stdout
from graphforge.cli.request import ModelRequest, capture_option, json_option, model_options
from graphforge.targets.semantic import NMS_FORMS, OUTPUT_FORMS

__all__ = ["command"]


@click.command("opset")
@model_options
@click.option(
    "--target",
    metavar="NAME",
    help="Only this runtime: onnxruntime, tensorrt, magicmind, openvino, coreml, ncnn.  [default: all]",
)
@click.option(
    "--outputs", type=click.Choice(OUTPUT_FORMS), help="Of data-dependent results, as in `graphforge compile`."
)
@click.option("--nms", type=click.Choice(NMS_FORMS), help="How NMS is written, as in `graphforge compile`.")
@click.option("--prove", is_flag=True, help="Deliver every legal opset and run each beside the reference.")
@click.option("--html", metavar="FILE", help="Write the answer as one self-contained page, too.")
@capture_option
@json_option
def command(
    request: ModelRequest,
    target: str | None,
    outputs: str | None,
    nms: str | None,
    prove: bool,
    html: str | None,
    capture: str,
    as_json: bool,
) -> int:
    """Say which opsets MODEL (or an ONNX file) can be delivered in, and what runtimes take of it.

    For every opset from 11 to the newest: legal as it stands, legal after legalisation (which operators, how), or
    impossible (which nodes, from which source lines, the lowest opset that would do, what to change).  For every
    runtime: the operators it lacks, and where that is known from.  Ends with exit code 1 when --prove finds a legal
    opset whose file is invalid or gives other results.

    \b
    Examples:
      graphforge opset model.onnx
      graphforge opset torchvision:swin_t --input 'x:1x3x224x224' --target openvino
      graphforge opset net.py:build --input 'x:1x3x64x64' --prove --html opsets.html
    """
    from graphforge.verbs.opset import opset

    with progress(quiet=as_json) as begin:
        begin("load")
        answer = opset(
            **request.model_and_inputs(needed=prove),
            target=target,
            outputs=outputs,
            nms=nms,
            prove=prove,
            capture=capture,
            progress=begin,
        )
    page = None
    if html is not None:
        from graphforge.opsets.render import write_page

        page = write_page(answer, Path(html), model=request.model)
    if as_json:
        print_json(answer.to_dict())
    else:
        answer.render(stdout())
    if page is not None:
        stderr().print(f"written: {page}", soft_wrap=True, markup=False)
    return int(answer.is_disproved)
