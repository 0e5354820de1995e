"""`graphforge profile`: latency of a bundle beside its eager model, measured interleaved."""

from __future__ import annotations

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import json_option

__all__ = ["command"]


@click.command("profile")
@click.argument("bundle", metavar="BUNDLE")
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True, help="Timed runs of each side.")
@click.option("--warmup", type=click.IntRange(min=0), default=10, show_default=True, help="Untimed runs before.")
@json_option
def command(bundle: str, runs: int, warmup: int, as_json: bool) -> None:
    """Measure mean, median, min, max, p90 and p99 latency and FPS, eager and ONNX Runtime in turn.

    \b
    Examples:
      graphforge profile out/resnet50
      graphforge profile out/resnet50 --runs 200 --json
    """
    from graphforge.verbs.profile import profile

    with progress(quiet=as_json) as begin:
        begin("measure")
        report = profile(bundle, runs=runs, warmup=warmup)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
