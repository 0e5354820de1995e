"""`graphforge inspect`: the IR of a model, one node a line, with the origin of every node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, capture_option, json_option, model_options
from graphforge.errors import GraphForgeError

if TYPE_CHECKING:
    import onnx_ir as ir

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
@click.option("--target", default="onnx", show_default=True, help="The target of --level legal.")
@click.option("--opset", type=int, help="The opset of --level legal.")
@capture_option
@json_option
def command(
    request: ModelRequest,
    level: str | None,
    node: str | None,
    full: bool,
    target: str,
    opset: int | None,
    capture: str,
    as_json: bool,
) -> None:
    """Print the IR of MODEL (anything `graphforge compile` takes, an ONNX file included) with its origins.

    One node a line: what it computes, its type, the operation, and the module path and source line it came from.
    Weights are shown by shape, as [16,3,3,3] f32; attributes that say no more than their default are left out.
    On a terminal lines are cut to its width; --node tells all about one node, --full all about all of them.
    Older opsets of an ONNX file are shown raised to the newest.

    \b
    Examples:
      graphforge inspect net.py:build --input 'x:1x3x64x64'
      graphforge inspect net.py:build --input 'x:1x3x64x64' --level captured
      graphforge inspect out/net/model.onnx --node conv1
    """
    from graphforge.ir import Level
    from graphforge.prepare import Prepared, to_canonical, to_ir
    from graphforge.spec import ShapeSpec
    from graphforge.targets import get_target, options_for
    from graphforge.transform import Pipeline, check_level

    chosen = get_target(target)
    target_passes = chosen.pipeline(options_for(chosen, opset=opset)) if level == "legal" else []
    with progress(quiet=as_json) as begin:
        begin("load")
        loaded = request.load()
        # an ONNX file is only read, so it needs no inputs
        prepared = request.prepare(loaded) if loaded.onnx_path is None else Prepared(loaded, ShapeSpec(()))
        level = level or ("canonical" if loaded.onnx_path is None else "captured")
        begin("capture")
        model, _ = to_ir(prepared, capture=capture, check=level != "captured")
        if level != "captured":
            begin("canonicalise")
            to_canonical(model)
        if target_passes:
            begin("legalise")
            Pipeline(target_passes).run(model)
            check_level(model, Level.LEGAL, f"the passes of target {target}", owner=chosen)
    shown = None if node is None else _find(model, node)
    if as_json:
        nodes = model.graph.all_nodes() if shown is None else [shown]
        print_json({"level": level, "nodes": [_described(item) for item in nodes]})
    elif shown is not None:
        _print_node(shown)
    else:
        _print(model, full)


def _print(model: ir.Model, full: bool) -> None:
    from graphforge.ir import to_text
    from graphforge.ir.printer import lines_of

    if full:
        click.echo(to_text(model, origins=True))
        return
    console = stdout()
    colour = console.is_terminal and not console.no_color
    for line in lines_of(model, width=console.width if console.is_terminal else None):
        click.echo(line.coloured() if colour else str(line), color=colour)


def _find(model: ir.Model, name: str) -> ir.Node:
    import difflib

    nodes = {node.name: node for node in model.graph.all_nodes() if node.name is not None}
    nodes |= {output.name: node for node in nodes.values() for output in node.outputs if output.name is not None}
    if name in nodes:
        return nodes[name]
    close = difflib.get_close_matches(name, nodes, n=3)
    raise GraphForgeError(
        f"there is no node {name!r}",
        f"did you mean {' or '.join(close)}?" if close else "",
        f"the graph has {sum(1 for _ in model.graph.all_nodes())} nodes; without --node they are all shown",
    )


def _described(node: ir.Node) -> dict[str, Any]:
    from dataclasses import asdict

    from graphforge.ir import origins_of

    return {
        "name": node.name,
        "op": node.op_type,
        "domain": node.domain,
        "inputs": [None if value is None else value.name for value in node.inputs],
        "outputs": [_value(value) for value in node.outputs],
        "attributes": {name: str(attribute.value) for name, attribute in node.attributes.items()},
        "origins": [asdict(origin) for origin in origins_of(node)],
    }


def _value(value: ir.Value) -> dict[str, Any]:
    return {
        "name": value.name,
        "dtype": None if value.dtype is None else value.dtype.name.lower(),
        "shape": None if value.shape is None else [dim if isinstance(dim, int) else str(dim) for dim in value.shape],
    }


def _print_node(node: ir.Node) -> None:
    from graphforge.ir import origins_of

    click.echo(f"{node.name}: {node.domain + '::' if node.domain else ''}{node.op_type}")
    for value in node.inputs:
        if value is not None:
            click.echo(f"  input   {value.name}  {_typed(value)}")
    for name, attribute in node.attributes.items():
        click.echo(f"  attr    {name} = {attribute.value}")
    for value in node.outputs:
        click.echo(f"  output  {value.name}  {_typed(value)}")
    for origin in origins_of(node):
        made_by = f", made by {origin.made_by}" if origin.made_by else ""
        click.echo(f"  origin  {origin.describe()}{made_by}")


def _typed(value: ir.Value) -> str:
    facts = _value(value)
    shape = "?" if facts["shape"] is None else "x".join(map(str, facts["shape"])) or "scalar"
    return f"{facts['dtype'] or '?'} {shape}"
