"""`graphforge publish`: a checkpoint of a training run made one to hand out."""

from __future__ import annotations

from pathlib import Path

import click

from graphforge.cli.console import print_json
from graphforge.cli.request import json_option

__all__ = ["command"]


@click.command("publish")
@click.argument("source", metavar="IN.pth")
@click.argument("wanted", metavar="OUT.pth")
@click.option(
    "--weights",
    type=click.Choice(["auto", "ema", "plain"]),
    default="auto",
    show_default=True,
    help="Which to keep where there are averages (EMA) beside the weights that were trained; auto is what the "
    "framework itself loads.",
)
@click.option("--trust-pickle", is_flag=True, help="Allow a checkpoint that runs code when it is read.")
@json_option
def command(source: str, wanted: str, weights: str, trust_pickle: bool, as_json: bool) -> None:
    """Write a checkpoint with its weights and meta alone: no optimizer, schedule, log or second copy of the weights.

    The first eight letters of the file's SHA-256 and the date go into its name, OUT-1a2b3c4d_20260131.pth.

    \b
    Examples:
      graphforge publish epoch_10.pth rtmpose-m.pth
      graphforge publish epoch_10.pth rtmpose-m.pth --weights plain
    """
    from graphforge.frontend.openmmlab.publish import publish

    done = publish(Path(source), Path(wanted), weights=weights, trust_pickle=trust_pickle)
    if as_json:
        print_json(done.to_dict())
        return
    click.echo(f"{source}  {done.before:,} bytes")
    click.echo(f"{done.path}  {done.after:,} bytes, {done.weights} weights")
    if done.dropped:
        click.echo(f"left out: {', '.join(done.dropped)}")
