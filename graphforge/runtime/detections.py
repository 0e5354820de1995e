"""Recognise detections among a model's named outputs, whatever form they come in.

Read are ``boxes`` with ``scores`` and ``labels`` (``keypoints``, ``keypoints_scores`` and ``masks`` where there are
any), of one image or, with one dim more in front, of a batch; ``dets`` with the score as fifth column; and both under a
prefix for each image, as a list of dicts is flattened: ``output_0_boxes``.  Rows beyond ``num_dets`` are padding; where
no count is given, a label of -1 is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphforge.errors import GraphForgeError

__all__ = ["Array", "Detections", "detections_of"]

Array = NDArray[Any]

_FIELDS = ("boxes", "dets", "scores", "labels", "keypoints_scores", "keypoints", "masks", "num_dets")
_NAME = re.compile(rf"(?P<prefix>.*?)(?P<field>{'|'.join(_FIELDS)})")
# dims of a field for one image: boxes [K, 4], scores [K], keypoints [K, P, 2 or 3], ...
_RANK = {"boxes": 2, "dets": 2, "scores": 1, "labels": 1, "keypoints": 3, "keypoints_scores": 2, "num_dets": 0}


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found on one image, in the order the model gives it.

    Attributes:
        boxes: [K, 4], xyxy in pixels of the model's input.
        scores: [K]; all 1 where the model gives none.
        labels: [K]; all 0 where the model gives none.
        keypoints: [K, P, 2 or 3], x and y in pixels of the model's input, then visibility.
        masks: [K, H, W], in the model's input, between 0 and 1.
    """

    boxes: Array
    scores: Array
    labels: Array
    keypoints: Array | None = None
    masks: Array | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> Detections:
        """Those that score more."""
        return self._chosen(self.scores > score)

    def moved(self, factors: tuple[float, float]) -> Detections:
        """With x and y multiplied: boxes and keypoints on the picture that the input was resized from; masks stay."""
        x, y = factors
        points = self.keypoints
        if points is not None:
            points = points.astype(np.float64)
            points[..., :2] *= (x, y)
        return replace(self, boxes=self.boxes * np.asarray([x, y, x, y]), keypoints=points)

    def _chosen(self, which: Array) -> Detections:
        return Detections(
            self.boxes[which],
            self.scores[which],
            self.labels[which],
            None if self.keypoints is None else self.keypoints[which],
            None if self.masks is None else self.masks[which],
        )


def detections_of(outputs: Mapping[str, Array]) -> list[Detections] | None:
    """The detections, one for each image in order; None when the outputs are none that are known.

    Raises:
        GraphForgeError: the names are those of detections, but the shapes do not fit each other.
    """
    fields_by_prefix: dict[str, dict[str, Array]] = {}
    for name, array in outputs.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            fields_by_prefix.setdefault(match["prefix"], {})[match["field"]] = array
    found = []
    for prefix, fields in fields_by_prefix.items():
        if _has_boxes(fields):
            found += _images_of(prefix, fields)
    return found or None


def _has_boxes(fields: Mapping[str, Array]) -> bool:
    boxes, dets = fields.get("boxes"), fields.get("dets")
    if dets is not None:
        return dets.ndim in (2, 3) and dets.shape[-1] == 5
    return boxes is not None and boxes.ndim in (2, 3) and boxes.shape[-1] == 4


def _images_of(prefix: str, fields: Mapping[str, Array]) -> list[Detections]:
    leading = fields["dets" if "dets" in fields else "boxes"]
    if leading.ndim == 2:
        count = fields.get("num_dets")
        if count is not None and count.shape == (1,):  # a count for each image, and there is one
            fields = {**fields, "num_dets": count[0]}
        return [_image_of(prefix, fields)]
    images = []
    for number in range(len(leading)):
        try:
            mine = {name: np.asarray(array[number]) for name, array in fields.items()}
        except IndexError:
            shapes = ", ".join(f"{prefix}{name} {array.shape}" for name, array in fields.items())
            raise GraphForgeError(f"outputs of one detector differ in their batch: {shapes}") from None
        images.append(_image_of(prefix, mine))
    return images


def _image_of(prefix: str, fields: Mapping[str, Array]) -> Detections:
    boxes = fields["dets"][:, :4] if "dets" in fields else fields["boxes"]
    scores = fields["dets"][:, 4] if "dets" in fields else fields.get("scores", np.ones(len(boxes), np.float32))
    labels = fields.get("labels", np.zeros(len(boxes), np.int64))
    for name, array in {"scores": scores, "labels": labels, **fields}.items():
        rank = _RANK.get(name, array.ndim)
        if array.ndim != rank or (array.ndim and len(array) != len(boxes)):
            raise GraphForgeError(
                f"output {prefix + name!r} of shape {array.shape} does not fit {len(boxes)} boxes",
                f"expected {rank} dims, the first of size {len(boxes)}" if rank else "expected a number for each image",
            )
    masks = fields.get("masks")
    if masks is not None and masks.ndim == 4:  # torchvision's [K, 1, H, W]
        masks = masks[:, 0]
    every = Detections(boxes, scores, labels, _keypoints_of(fields), masks)
    if "num_dets" in fields:
        return every._chosen(np.arange(len(boxes)) < int(fields["num_dets"]))
    return every._chosen(labels >= 0)


def _keypoints_of(fields: Mapping[str, Array]) -> Array | None:
    points = fields.get("keypoints")
    if points is None or points.shape[-1] not in (2, 3):
        return None
    return points
