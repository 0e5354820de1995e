"""`graphforge evaluate`: accuracy of a bundle on a data set, beside its eager model."""

from __future__ import annotations

from typing import Any

import click

from graphforge.cli.console import print_json, progress, stdout
from graphforge.cli.request import ModelRequest, json_option, optional_model_options

__all__ = ["command"]


@click.command("evaluate")
@click.argument("bundle", metavar="BUNDLE")
@optional_model_options
@click.option(
    "--data",
    required=True,
    metavar="FILE|DIR",
    help="Annotations (COCO's .json), a text file of pictures and labels, or a folder of pictures as they should be.",
)
@click.option("--images", required=True, metavar="DIR", help="The folder of the pictures.")
@click.option(
    "--metric",
    metavar="NAME|FILE.py:Class",
    help="bbox, keypoints, top, miou, psnr, or a class of your own.  [default: what the data is for]",
)
@click.option("--also", multiple=True, metavar="BUNDLE", help="Another bundle beside the first; repeat for more.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="The first N pictures only.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="So many pictures at once.")
@click.option("--boxes", metavar="FILE", help="Boxes of a detector, COCO's results, for a bundle that looks at boxes.")
@click.option("--peak", type=click.FloatRange(min=0, min_open=True), help="psnr: the brightest pixel of the output.")
@click.option("--preprocess", metavar="FILE.toml", help="Steps for pictures, in place of those that the bundle brings.")
@click.option("--resume", metavar="DIR", help="Keep what is done here, and go on with what an earlier run kept.")
@json_option
def command(
    bundle: str,
    request: ModelRequest | None,
    data: str,
    images: str,
    metric: str | None,
    also: tuple[str, ...],
    samples: int | None,
    batch: int,
    boxes: str | None,
    peak: float | None,
    preprocess: str | None,
    resume: str | None,
    as_json: bool,
) -> None:
    """Measure how good the results of BUNDLE are on a data set; the eager MODEL stands beside it where it is given.

    bbox and keypoints are COCO's average precision and recall (pycocotools): twelve figures and ten.  A bundle that
    looks at boxes (crop-box) is given those that are annotated, or a detector's (--boxes).  top: the share of pictures
    whose label is the first, or among the first five.  miou: overlap of each class's pixels, 255 left out.  psnr: with
    ssim, of bytes.

    \b
    A class of your own has two methods:
      record(seen)      plain data of one sample: seen.found (detections), seen.outputs, seen.sample.truth, seen.row
      figures(records)  {name: number} of all of them

    \b
    Examples:
      graphforge evaluate out/rtmdet --data instances_val2017.json --images val2017 --samples 500
      graphforge evaluate out/digits digits.py:detector --data digits.json --images canvases
      graphforge evaluate out/rtmpose --also out/rtmpose_int8 --data person_keypoints_val2017.json --images val2017
      graphforge evaluate out/resnet50 --data val.txt --images val --batch 8 --resume out/records --json
    """
    from graphforge.verbs.evaluate import evaluate

    given: dict[str, Any] = {} if request is None else request.model_and_inputs()
    given.pop("dynamic_shapes", None)
    with progress(quiet=as_json) as begin:
        report = evaluate(
            [bundle, *also],
            **given,
            data=data,
            images=images,
            metric=metric,
            samples=samples,
            batch=batch,
            boxes=boxes,
            peak=peak,
            preprocess=preprocess,
            resume=resume,
            progress=begin,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        report.render(stdout())
