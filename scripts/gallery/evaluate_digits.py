"""mAP of the digit detector, eager and compiled, on canvases of digits that were held out of training.

    .venv/bin/python scripts/gallery/evaluate_digits.py [BUNDLE ...] [--count 500]

Every bundle is run by its target's own runner, on the very canvases that eager sees.  Average precision is COCO's
(pycocotools): over IoU thresholds .50 to .95, and at .50.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.digits import Canvas, DigitDetector, canvases, stacked, trained

__all__ = ["Precision", "average_precision", "evaluate_bundle", "evaluate_eager"]

Found = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # boxes [K, 4], scores [K], labels [K] of one image


@dataclass(frozen=True, slots=True)
class Precision:
    """COCO average precision.

    Attributes:
        mean: over the IoU thresholds .50, .55, ... .95.
        at_half: at the threshold .50.
        detections: how many there were.
        canvases: on how many pictures.
    """

    mean: float
    at_half: float
    detections: int
    canvases: int

    def describe(self, name: str) -> str:
        """One line, with digits enough to tell two apart."""
        return f"{name}: mAP {self.mean:.8f}, AP50 {self.at_half:.8f}, {self.detections} detections"


def main() -> None:
    """Print one line for eager and one for each bundle."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE")
    parser.add_argument("--count", type=int, default=500, help="canvases")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(evaluate_eager(trained(), options.count).describe(f"eager on {options.count} canvases"))
    for bundle in options.bundles:
        print(evaluate_bundle(bundle, options.count).describe(str(bundle)))


def evaluate_eager(model: DigitDetector, count: int) -> Precision:
    """The eager model, canvas by canvas."""

    def find(images: torch.Tensor) -> list[Found]:
        with torch.no_grad():
            results = model(images)
        return [(r["boxes"].numpy(), r["scores"].numpy(), r["labels"].numpy()) for r in results]

    return _evaluate(find, count, batch=1)


def evaluate_bundle(folder: Path, count: int) -> Precision:
    """A compiled bundle, in batches of the size it was compiled with; ragged and padded outputs alike."""
    from graphforge.runtime.detections import detections_of
    from graphforge.targets import get_target

    manifest = json.loads((folder / "manifest.json").read_text())
    (tensor,) = manifest["inputs"]
    runner = get_target(manifest["target"]["name"]).runner(folder)
    if runner is None:
        sys.exit(f"{folder} cannot be run on this machine")

    def find(images: torch.Tensor) -> list[Found]:
        outputs = runner.run({tensor["name"]: images.numpy()})
        found = detections_of(outputs)
        if found is None:
            sys.exit(f"{folder}: these outputs are no detections: {', '.join(outputs)}")
        return [(image.boxes, image.scores, image.labels) for image in found]

    try:
        return _evaluate(find, count, batch=tensor["shape"][0])
    finally:
        runner.close()


def average_precision(found: Sequence[Found], pages: Sequence[Canvas]) -> tuple[float, float]:
    """COCO's AP over .50:.95 and AP at .50 of what was found on some canvases."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(len(pages))],
        "categories": [{"id": label} for label in range(10)],
        "annotations": [
            {"image_id": number, "category_id": int(label), **_sides(box), "iscrowd": 0}
            for number, page in enumerate(pages)
            for box, label in zip(page.boxes.numpy(), page.labels, strict=True)
        ],
    }
    for number, annotation in enumerate(truth.dataset["annotations"], start=1):  # 0 would read as "not matched"
        annotation["id"] = number
    results = [
        {"image_id": number, "category_id": int(label), "score": float(score), **_sides(box)}
        for number, (boxes, scores, labels) in enumerate(found)
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]
    if not results:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def _evaluate(find: Callable[[torch.Tensor], list[Found]], count: int, *, batch: int) -> Precision:
    pages = canvases(count)
    found: list[Found] = []
    for first in range(0, count, batch):
        some = pages[first : first + batch]
        filled = [*some, *[some[-1]] * (batch - len(some))]  # the last batch is filled up, the fill not counted
        found += find(stacked(filled))[: len(some)]
    mean, at_half = average_precision(found, pages)
    return Precision(mean, at_half, sum(len(scores) for _, scores, _ in found), count)


def _sides(box: NDArray[Any]) -> dict[str, Any]:
    left, top, right, bottom = (float(side) for side in np.asarray(box, np.float64))
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


if __name__ == "__main__":
    main()
