"""COCO's average precision and recall, of boxes and of keypoints, as pycocotools computes them."""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.evaluation.metric import Seen
from graphforge.evaluation.samples import CocoFile
from graphforge.runtime.dataset import Dataset
from graphforge.runtime.detections import Array
from graphforge.runtime.tracker import similarity

__all__ = ["BOX_FIGURES", "KEYPOINT_FIGURES", "Boxes", "Keypoints", "categories_of_labels"]

BOX_FIGURES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
KEYPOINT_FIGURES = "AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl".split()

# COCO's own, of its 17 keypoints of a person.
_SIGMAS = (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)

# As mmpose's CocoMetric has them: keypoints that score less say nothing of an instance's score, and of two instances
# that are more alike the lower goes.
_LEAST_KEYPOINT_SCORE = 0.2
_MOST_ALIKE = 0.9


class Boxes:
    """Average precision and recall of boxes, twelve figures.

    Args:
        truth: the annotations.
        categories: category of each label.
    """

    def __init__(self, truth: CocoFile, categories: Sequence[int | None]) -> None:
        self.truth = truth
        self.categories = categories

    def record(self, seen: Seen) -> Any:
        """The boxes in COCO's form."""
        found = seen.found
        if found is None:
            raise _not_detections(seen.outputs)
        records = []
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            category = self.categories[int(label)] if 0 <= int(label) < len(self.categories) else None
            if category is None:
                continue
            left, top, right, bottom = (float(side) for side in box)
            records.append(
                {
                    "image_id": seen.sample.image,
                    "category_id": category,
                    "score": float(score),
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
        return {"image": seen.sample.image, "found": records}

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        """As ``COCOeval.summarize`` has them, in its order."""
        return _evaluated(self.truth, records, "bbox", BOX_FIGURES)


class Keypoints:
    """Average precision and recall of keypoints, ten figures.

    Args:
        truth: the annotations.
        dataset: whose sigmas are taken, where it has some.
        categories: category of each label.
        images: the pictures that count, those on which nothing is looked at among them; empty is all that are seen.
    """

    def __init__(
        self, truth: CocoFile, dataset: Dataset, categories: Sequence[int | None], images: Collection[int] = ()
    ) -> None:
        self.truth = truth
        self.images = images
        self.categories = categories
        lengths = {len(one["keypoints"]) for one in truth.data["annotations"] if one.get("keypoints")}
        count = len(dataset.sigmas) or len(dataset.keypoints) or len(_SIGMAS)
        if lengths - {3 * count}:
            raise GraphForgeError(
                f"{str(truth.path)!r} has {sorted(lengths)[0] // 3} keypoints an annotation, and the model has {count}"
            )
        self.sigmas = np.array(dataset.sigmas or (np.array(_SIGMAS) / 10 if count == len(_SIGMAS) else ()))
        if not len(self.sigmas):
            raise GraphForgeError(
                f"nothing says how far apart people mark these {count} keypoints",
                "put them into the bundle's data set: sigmas = [...], one for each keypoint",
            )

    def record(self, seen: Seen) -> Any:
        """The keypoints in COCO's form, and the area of what was looked at."""
        found = seen.found
        if found is None or found.keypoints is None:
            raise _not_detections(seen.outputs)
        records = []
        for index, points in enumerate(found.keypoints):
            sure = None if found.keypoint_scores is None else found.keypoint_scores[index]
            if seen.sample.box is not None:
                # a detector's score, where boxes are those of one
                score, category = float(seen.sample.truth.get("score", 1.0)), seen.sample.truth["category_id"]
                wide, high = (side / scale for side, scale in zip(seen.row.size, seen.row.placement.scale, strict=True))
            else:
                label = int(found.labels[index])
                category = self.categories[label] if 0 <= label < len(self.categories) else None
                score = float(found.scores[index])
                wide, high = (float(side) for side in found.boxes[index, 2:] - found.boxes[index, :2])
            if category is None:
                continue
            if sure is not None and seen.sample.box is not None:
                counted = sure[sure > _LEAST_KEYPOINT_SCORE]
                score *= float(counted.mean()) if len(counted) else 0.0
            thirds = np.ones(len(points)) if sure is None else sure
            flat = np.concatenate([points[:, :2], np.asarray(thirds, np.float64)[:, None]], axis=1)
            records.append(
                {
                    "image_id": seen.sample.image,
                    "category_id": int(category),
                    "score": score,
                    "keypoints": [float(one) for one in flat.reshape(-1)],
                    "area": float(wide * high),
                }
            )
        return {"image": seen.sample.image, "found": records}

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        """As ``COCOeval.summarize`` has them, in its order."""
        by_image: dict[int, list[Any]] = {image: [] for image in self.images}
        for record in records:
            by_image.setdefault(record["image"], []).extend(record["found"])
        distinct = [{"image": image, "found": self._distinct(found)} for image, found in by_image.items()]
        return _evaluated(self.truth, distinct, "keypoints", KEYPOINT_FIGURES, self.sigmas)

    def _distinct(self, found: list[Any]) -> list[Any]:
        """Without those that are nearly the same as a better one."""
        if len(found) < 2:
            return found
        order = sorted(range(len(found)), key=lambda index: -found[index]["score"])
        points = np.array([np.reshape(one["keypoints"], (-1, 3)) for one in found])
        areas = np.array([one["area"] for one in found])
        alike = similarity(points, points, self.sigmas, areas)
        kept: list[int] = []
        for index in order:
            if all(alike[other, index] <= _MOST_ALIKE for other in kept):
                kept.append(index)
        return [found[index] for index in kept]


def categories_of_labels(truth: CocoFile, classes: Sequence[str]) -> tuple[list[int | None], str]:
    """The category of each label, and a note where that was a guess.

    Args:
        truth: the annotations.
        classes: names of the labels; without any, labels count the categories in the order of their ids.

    Raises:
        GraphForgeError: a category is none of the names.
    """
    if not classes:
        names = ", ".join(truth.categories.values())
        note = f"the bundle names no classes: label 0 is taken for the category with the lowest id, and so on ({names})"
        return list(truth.categories), note[:200]
    unknown = [name for name in truth.categories.values() if name not in classes]
    if unknown:
        near = difflib.get_close_matches(unknown[0], classes, 1, 0.5)
        raise GraphForgeError(
            f"{str(truth.path)!r} has the category {unknown[0]!r}, which the bundle does not find",
            f"did you mean {near[0]!r}?" if near else "",
            f"the bundle finds: {', '.join(classes)[:200]}",
        )
    ids = {name: number for number, name in truth.categories.items()}
    return [ids.get(name) for name in classes], ""


def _evaluated(
    truth: CocoFile, records: Sequence[Any], kind: str, names: Sequence[str], sigmas: Array | None = None
) -> Mapping[str, float]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise GraphForgeError("pycocotools is not installed", "pip install pycocotools") from None
    images: Collection[int] = {record["image"] for record in records}
    results = [one for record in records for one in record["found"]]
    if not results:
        return dict.fromkeys(names, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
        annotated = COCO()
        annotated.dataset = {**truth.data, "annotations": [_complete(one) for one in truth.data["annotations"]]}
        annotated.dataset.setdefault("info", {})
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(results), kind)
        evaluation.params.imgIds = sorted(images)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(names, evaluation.stats, strict=True)}


def _complete(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """With what pycocotools takes for granted."""
    whole = {"iscrowd": 0, **annotation}
    if "area" not in whole and "bbox" in whole:
        whole["area"] = whole["bbox"][2] * whole["bbox"][3]
    if "keypoints" in whole:
        whole.setdefault("num_keypoints", sum(flag > 0 for flag in whole["keypoints"][2::3]))
    return whole


def _not_detections(outputs: Mapping[str, Array]) -> GraphForgeError:
    shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
    return GraphForgeError(
        f"the outputs are not what this metric looks at: {shapes}",
        "detections are known by their names: boxes or dets, scores, labels, keypoints with keypoint_scores",
    )
