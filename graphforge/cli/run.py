"""`graphforge run`: a bundle on a picture or on arrays; detections are printed and drawn."""

from __future__ import annotations

from pathlib import Path

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import custom_op_option, json_option, limit_option
from graphforge.errors import UsageError

__all__ = ["command"]


@click.command("run")
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="[NAME=]FILE",
    help="A picture, .npy, or .npz (inputs by name); repeat for more inputs, or for more pictures of one input.",
)
@click.option("--draw", metavar="FILE", help="Write the picture with detections drawn; several stand side by side.")
@click.option("--score", type=float, default=0.3, show_default=True, help="Show detections that score more.")
@click.option("--labels", metavar="FILE", help="Names of the labels, one a line, beginning with label 0.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="What the brightest pixel becomes: 1, or 255 for models that take 0..255.",
)
@click.option("--mean", metavar="M[,M,M]", help="Subtracted from pixels after --scale, one number or one a channel.")
@click.option("--std", metavar="S[,S,S]", help="Pixels are divided by it after --mean.")
@click.option("--preprocess", metavar="FILE.toml", help="Steps for pictures, in place of those that the bundle brings.")
@custom_op_option
@limit_option
@json_option
def command(
    bundle: str,
    inputs: tuple[str, ...],
    draw: str | None,
    score: float,
    labels: str | None,
    scale: float,
    mean: str | None,
    std: str | None,
    preprocess: str | None,
    as_json: bool,
) -> None:
    """Run BUNDLE, a folder made by `graphforge compile`, and show what it says.

    \b
    Examples:
      graphforge run out/detector --input street.jpg --draw seen.png --labels coco.txt
      graphforge run out/detector --input a.jpg --input b.jpg --score 0.5 --json
      graphforge run out/resnet50 --input cat.jpg --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
      graphforge run out/bert --input ids=ids.npy --input mask=mask.npy

    A picture is prepared by the steps that the bundle brings (`graphforge compile --preprocess`), and boxes and points
    go back the same way, to pixels of the picture as it came.  Without steps it becomes RGB (grey where the input has
    one channel) between 0 and 1, stretched to the input's size, and a note says so.
    Outputs named boxes, scores, labels, keypoints, keypoint_scores, masks, dets, num_dets, also as output_0_boxes, are
    detections: printed and drawn.  Other outputs are listed by name, shape and range.
    """
    from graphforge.verbs.run import run

    files = [_named_file(text) for text in inputs]
    means, deviations = _numbers("--mean", mean, 0.0), _numbers("--std", std, 1.0)
    with progress(quiet=as_json) as begin:
        report = run(
            bundle,
            files,
            score=score,
            labels=labels,
            scale=scale,
            mean=means,
            std=deviations,
            preprocess=preprocess,
            draw=draw,
            progress=begin,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())


def _named_file(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    # a file may have = in its own name
    return (name, path) if equals and not Path(text).is_file() else ("", text)


def _numbers(option: str, text: str | None, default: float) -> tuple[float, ...]:
    if text is None:
        return (default,)
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"cannot read {option} {text!r}", f"write it as {option} 0.5 or {option} 0.5,0.5,0.5"
        ) from None
