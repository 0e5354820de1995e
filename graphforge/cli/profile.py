"""`graphforge profile`: latency of a bundle beside its eager model, measured interleaved."""

from __future__ import annotations

from typing import Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, optional_model_options

__all__ = ["command"]


@click.command("profile")
@click.argument("bundle", metavar="BUNDLE")
@optional_model_options
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True, help="Timed runs of each side.")
@click.option("--warmup", type=click.IntRange(min=0), default=10, show_default=True, help="Untimed runs before.")
@json_option
def command(bundle: str, request: ModelRequest | None, runs: int, warmup: int, as_json: bool) -> None:
    """Measure mean, median, min, max, p90 and p99 latency and FPS, eager and ONNX Runtime in turn.

    A bundle whose target's own runtime is here (OpenVINO, TensorRT on its GPU) is run by that as well.  The eager side
    is MODEL, given as to `graphforge compile`; without it the artifact is measured alone.  Nothing the bundle names
    is imported or run.  Inputs are those that the bundle records unless some are given.

    \b
    Examples:
      graphforge profile out/resnet50 torchvision:resnet50
      graphforge profile out/net net.py:build --checkpoint net.pth
      graphforge profile out/resnet50 --runs 200 --json
    """
    from graphforge.verbs.profile import profile

    with progress(quiet=as_json) as begin:
        begin("measure")
        given: dict[str, Any] = {} if request is None else request.model_and_inputs()
        given.pop("dynamic_shapes", None)
        report = profile(bundle, **given, runs=runs, warmup=warmup)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
