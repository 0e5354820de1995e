"""`graphforge inspect`: the IR of a model, one node a line, with the origin of every node."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, print_text, progress, stdout
from graphforge.cli.request import ModelRequest, capture_option, json_option, model_options

__all__ = ["command"]


@click.command("inspect")
@model_options
@click.option(
    "--level",
    type=click.Choice(["captured", "canonical", "legal"]),
    help="How far down the road: as captured (or read), after the default passes, or as the target gets it."
    "  [default: canonical; captured for an ONNX file]",
)
@click.option("--node", metavar="NAME", help="Only this node, with all of its origins.")
@click.option(
    "--full", is_flag=True, help="Every detail, in ONNX's textual syntax, which graphforge.ir.from_text reads."
)
@click.option("--summary", is_flag=True, help="Nodes, parameters, arithmetic and memory, module by module.")
@click.option("--depth", type=click.IntRange(min=1), help="With --summary: cut modules to so many parts of their path.")
@click.option("--target", default="onnx", show_default=True, help="The target of --level legal.")
@click.option("--opset", type=int, help="The opset of --level legal.")
@capture_option
@json_option
def command(
    request: ModelRequest,
    level: str | None,
    node: str | None,
    full: bool,
    summary: bool,
    depth: int | None,
    target: str,
    opset: int | None,
    capture: str,
    as_json: bool,
) -> None:
    """Print the IR of MODEL (anything `graphforge compile` takes, an ONNX file included) with its origins.

    One node a line: what it computes, its type, the operation, and the module path and source line it came from.
    Weights are shown by shape, as [16,3,3,3] f32; attributes that say no more than their default are left out.
    On a terminal lines are cut to its width; --node tells all about one node, --full all about all of them.
    Older opsets of an ONNX file are shown raised to the newest.  Of a TensorRT plan it tells what plan.json says.

    \b
    Examples:
      graphforge inspect net.py:build --input 'x:1x3x64x64'
      graphforge inspect net.py:build --input 'x:1x3x64x64' --level captured
      graphforge inspect out/net/model.onnx --node conv1
      graphforge inspect torchvision:resnet50 --input 'x:1x3x224x224' --summary --depth 2
      graphforge inspect out/plan/model.plan
    """
    from graphforge.verbs.inspect import inspect, inspect_plan

    if request.model.endswith(".plan"):
        plan = inspect_plan(request.model)
        if as_json:
            print_json(plan.to_dict())
        else:
            plan.render(stdout())
        return
    with progress(quiet=as_json) as begin:
        begin("load")
        found = inspect(
            **request.model_and_inputs(needed=False),
            level=level,
            node=node,
            summary=summary,
            depth=depth,
            target=target,
            opset=opset,
            capture=capture,
            progress=begin,
        )
    if as_json:
        print_json(found.to_dict())
    elif summary:
        found.render(stdout())
    elif full and node is None:
        print_text(found.text())
    else:
        console = stdout()
        colour = console.is_terminal and not console.no_color
        for line in found.lines(coloured=colour, width=console.width if console.is_terminal else None):
            print_text(line, colours=colour)
