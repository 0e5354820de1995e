"""`graphforge opset`: the lowest opset a model needs, and the nodes that say so."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, model_options

__all__ = ["command"]


@click.command("opset")
@model_options
@json_option
def command(request: ModelRequest, as_json: bool) -> None:
    """Say which opset MODEL (or an ONNX file) needs, and which nodes are the reason.

    \b
    Examples:
      graphforge opset model.onnx
      graphforge opset torchvision:swin_t --input 'x:1x3x224x224'
    """
    from graphforge.verify.opset_audit import opset_report_of_file, opset_report_of_model

    with progress(quiet=as_json) as begin:
        begin("load")
        loaded = request.load()
        if loaded.onnx_path is not None:  # the file as it stands: nothing runs, so no inputs are needed
            report = opset_report_of_file(loaded.onnx_path)
        else:
            begin("capture")
            report = opset_report_of_model(request.prepare(loaded))
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
