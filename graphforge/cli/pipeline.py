"""`graphforge pipeline`: a detector and a pose estimator on a picture, a folder of pictures or a video."""

from __future__ import annotations

import click

from graphforge.cli.console import print_error, print_json, progress, stdout
from graphforge.cli.flags import flag
from graphforge.cli.request import json_option, limit_option

__all__ = ["command"]


@click.command("pipeline")
@click.argument("detector", metavar="DETECTOR")
@click.argument("pose", metavar="POSE")
@click.argument("source", metavar="SOURCE")
@click.option("--draw", metavar="PATH", help="A picture for a picture, an .mp4 for a video, a folder for a folder.")
@click.option("--score", type=float, default=0.3, show_default=True, help="Look at boxes that score more.")
@click.option("--label", "labels", type=int, multiple=True, help="Look at boxes of this label only; repeat for more.")
@click.option(
    "--det-interval",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="In a video: the detector looks at every such frame; between, boxes come from the last poses.",
)
@click.option("--smooth/--no-smooth", default=True, show_default=True, help="In a video: smooth keypoints.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads of each model.  [default: every CPU]")
@limit_option
@json_option
def command(
    detector: str,
    pose: str,
    source: str,
    draw: str | None,
    score: float,
    labels: tuple[int, ...],
    det_interval: int,
    smooth: bool,
    threads: int,
    as_json: bool,
) -> int:
    """Find boxes with the bundle DETECTOR and the pose in each with the bundle POSE, on SOURCE.

    SOURCE is a picture, a video, or a folder of pictures.  Crops go through POSE in batches of the size it takes.  In a
    video every pose has an id that stays with it.  Both bundles bring their pre-processing (`graphforge compile
    --preprocess`), POSE with a step crop-box.

    \b
    Examples:
      graphforge pipeline out/rtmdet out/rtmpose street.jpg --draw seen.png --label 0
      graphforge pipeline out/rtmdet out/rtmpose walk.mp4 --draw seen.mp4 --det-interval 5
      graphforge pipeline out/rtmdet out/rtmpose photos/ --draw seen/ --json
    """
    from graphforge.verbs.pipeline import pipeline

    with progress(quiet=as_json) as begin:
        report = pipeline(
            detector,
            pose,
            source,
            draw=draw,
            score=score,
            labels=labels,
            det_interval=det_interval,
            smooth=smooth,
            threads=threads,
            progress=begin,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
    error = report.error()
    if error is None:
        return 0
    message, *notes = error.told(flag)  # what was done is printed already, and stays the one document of --json
    print_error(message, notes)
    return error.exit_code
