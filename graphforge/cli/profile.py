"""`graphforge profile`: latency of a bundle beside its eager model, measured interleaved."""

from __future__ import annotations

from typing import Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, optional_model_options
from graphforge.errors import UsageError

__all__ = ["command"]


@click.command("profile")
@click.argument("bundle", metavar="BUNDLE")
@optional_model_options
@click.option(
    "--runs",
    "--iterations",
    "runs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Timed runs of each side.",
)
@click.option("--warmup", type=click.IntRange(min=0), default=10, show_default=True, help="Untimed runs before.")
@click.option("--shape", metavar="HxW", help="Height and width of the pictures.  [default: as in the example]")
@click.option("--images", metavar="DIR", help="Measure on pictures of this folder, with pre- and post-processing, too.")
@click.option(
    "--also", multiple=True, metavar="BUNDLE", help="With --images: another bundle, in turn; repeat for more."
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="With --images: so many at once."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of each side.  [default: every CPU]")
@click.option(
    "--preprocess", metavar="FILE.toml", help="With --images: steps in place of those that the bundles bring."
)
@click.option("--layers", is_flag=True, help="Where ONNX Runtime spends its time, module by module, without MODEL.")
@click.option("--depth", type=click.IntRange(min=1), help="With --layers: cut modules to so many parts of their path.")
@json_option
def command(
    bundle: str,
    request: ModelRequest | None,
    runs: int,
    warmup: int,
    shape: str | None,
    images: str | None,
    also: tuple[str, ...],
    batch: int,
    threads: int | None,
    preprocess: str | None,
    layers: bool,
    depth: int | None,
    as_json: bool,
) -> None:
    """Measure mean, median, min, max, p90 and p99 latency and FPS, eager and ONNX Runtime in turn.

    A bundle whose target's own runtime is here (OpenVINO, TensorRT on its GPU) is run by that as well.  The eager side
    is MODEL, given as to `graphforge compile`; without it the artifact is measured alone.  Nothing the bundle names
    is imported or run.  Inputs are those that the bundle records unless some are given.

    \b
    Examples:
      graphforge profile out/resnet50 torchvision:resnet50
      graphforge profile out/net net.py:build --checkpoint net.pth
      graphforge profile out/resnet50 --runs 200 --json
      graphforge profile out/resnet50 --layers --depth 2
      graphforge profile out/rtmpose --shape 256x192 --images photos --warmup 50 --iterations 200
      graphforge profile out/rtmpose --also out/rtmpose_int8 --images photos --threads 1

    With --images, pictures are drawn from a folder and go through the bundle's own pre-processing: running means, the
    settings, and latencies of the model alone and of the whole, from pixels to detections.
    """
    from graphforge.verbs.profile import profile, profile_layers, profile_on_pictures

    if layers:
        if request is not None or images is not None:
            raise UsageError("--layers profiles the artifact alone", "leave MODEL and --images out")
        costs = profile_layers(bundle, runs=runs, warmup=warmup, threads=threads, depth=depth)
        if as_json:
            print_json(costs.to_dict())
        else:
            costs.render(stdout())
        return
    if depth is not None:
        raise UsageError("--depth is about modules", "add --layers")

    height_and_width = None if shape is None else _shape(shape)
    if images is None:
        for option, wanted in (("--also", also), ("--batch", batch > 1), ("--preprocess", preprocess)):
            if wanted:
                raise UsageError(f"{option} is for measuring on pictures", "name their folder: --images DIR")
    elif request is not None:
        raise UsageError("eager is not measured on pictures", "leave MODEL out, or --images")
    else:
        with progress(quiet=as_json) as begin:
            timed = profile_on_pictures(
                [bundle, *also],
                images,
                shape=height_and_width,
                runs=runs,
                warmup=warmup,
                batch=batch,
                threads=threads or 0,
                preprocess=preprocess,
                progress=begin,
            )
        if as_json:
            print_json(timed.to_dict())
        else:
            timed.render(stdout())
        return
    with progress(quiet=as_json) as begin:
        begin("measure")
        given: dict[str, Any] = {} if request is None else request.model_and_inputs()
        given.pop("dynamic_shapes", None)
        report = profile(bundle, **given, runs=runs, warmup=warmup, threads=threads, shape=height_and_width)
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())


def _shape(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not all(side.isdecimal() and len(side) < 10 and int(side) for side in (height, width)):
        raise UsageError(f"cannot read --shape {text!r}", "write height and width, --shape 256x192")
    return int(height), int(width)
