"""Recognise detections among a model's named outputs, whatever form they come in.

Read are ``boxes`` with ``scores`` and ``labels`` (``keypoints``, ``keypoints_scores`` and ``masks`` where there are
any), of one image or, with one dim more in front, of a batch; ``dets`` with the score as fifth column; and both under a
prefix for each image, as a list of dicts is flattened: ``output_0_boxes``.  ``keypoints`` without boxes, [B, P, 2], are
one pose for each image; ``simcc_x`` and ``simcc_y`` are decoded into them first.  Rows beyond ``num_dets`` are
padding; where no count is given, a label of -1 is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphforge.errors import GraphForgeError
from graphforge.runtime.placement import Placement

__all__ = ["Array", "Detections", "detections_of", "name_of"]

Array = NDArray[Any]

_FIELDS = ("boxes", "dets", "labels", "keypoints_scores", "keypoint_scores", "keypoints", "scores", "masks", "num_dets")
_NAME = re.compile(rf"(?P<prefix>.*?)(?P<field>{'|'.join(_FIELDS)})")
# dims of a field for one image: boxes [K, 4], scores [K], keypoints [K, P, 2 or 3], ...
_RANK = {"boxes": 2, "dets": 2, "scores": 1, "labels": 1, "keypoints": 3, "num_dets": 0}
_RANK |= dict.fromkeys(("keypoints_scores", "keypoint_scores"), 2)


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found on one image, in the order the model gives it.

    Attributes:
        boxes: [K, 4], xyxy in pixels of the model's input.
        scores: [K]; all 1 where the model gives none.
        labels: [K]; all 0 where the model gives none.
        keypoints: [K, P, 2 or 3], x and y in pixels of the model's input, then visibility.
        masks: [K, H, W], in the model's input, between 0 and 1.
        keypoint_scores: [K, P], how sure the model is of each keypoint.
        ids: [K], who is who from picture to picture.
    """

    boxes: Array
    scores: Array
    labels: Array
    keypoints: Array | None = None
    masks: Array | None = None
    keypoint_scores: Array | None = None
    ids: Array | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> Detections:
        """Those that score more."""
        return self.chosen(self.scores > score)

    def moved(self, factors: tuple[float, float]) -> Detections:
        """With x and y multiplied: boxes and keypoints on the picture that the input was resized from; masks stay."""
        x, y = factors
        points = self.keypoints
        if points is not None:
            points = points.astype(np.float64)
            points[..., :2] *= (x, y)
        return replace(self, boxes=self.boxes * np.asarray([x, y, x, y]), keypoints=points)

    def on_picture(self, placement: Placement, picture: tuple[int, int], size: tuple[int, int]) -> Detections:
        """In the pixels of the picture that lies so in the input.

        Args:
            placement: where it lies.
            picture: its width and height.
            size: width and height of the input.
        """
        return replace(
            self,
            boxes=placement.boxes_to_picture(self.boxes, picture),
            keypoints=None if self.keypoints is None else placement.points_to_picture(self.keypoints),
            masks=None if self.masks is None else placement.masks_to_picture(self.masks, picture, size),
        )

    def chosen(self, which: Array) -> Detections:
        """Those of a mask, or of these places in this order."""
        arrays = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        some: dict[str, Any] = {name: None if array is None else array[which] for name, array in arrays.items()}
        return Detections(**some)

    def to_list(self, names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Each as plain data: label, name, score, box, keypoints and their scores, id."""
        listed = []
        for index in range(len(self)):
            label = int(self.labels[index])
            entry: dict[str, Any] = {
                "label": label,
                "name": name_of(label, names),
                "score": float(self.scores[index]),
                "box": [float(side) for side in self.boxes[index]],
            }
            if self.keypoints is not None:
                entry["keypoints"] = self.keypoints[index].tolist()
            if self.keypoint_scores is not None:
                entry["keypoint_scores"] = self.keypoint_scores[index].tolist()
            if self.ids is not None:
                entry["id"] = int(self.ids[index])
            listed.append(entry)
        return listed


def name_of(label: int, names: Sequence[str]) -> str:
    """The label's name, or its number where it has none."""
    return names[label] if 0 <= label < len(names) else str(label)


def detections_of(outputs: Mapping[str, Array], size: tuple[int, int] | None = None) -> list[Detections] | None:
    """The detections, one for each image in order; None when the outputs are none that are known.

    Args:
        outputs: by name.
        size: width and height of the input, which ``simcc_x`` and ``simcc_y`` are decoded for; None leaves them.

    Raises:
        GraphForgeError: the names are those of detections, but the shapes do not fit each other.
    """
    if size is not None and outputs.keys() >= {"simcc_x", "simcc_y"}:
        outputs = {**outputs, **poses_of_simcc(outputs["simcc_x"], outputs["simcc_y"], size)}
    fields_by_prefix: dict[str, dict[str, Array]] = {}
    for name, array in outputs.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            fields_by_prefix.setdefault(match["prefix"], {})[match["field"]] = array
    found = []
    for prefix, fields in fields_by_prefix.items():
        if _has_boxes(fields):
            found += _images_of(prefix, fields)
        elif _has_poses(fields):
            found += _poses_of(prefix, fields)
    return found or None


def _has_boxes(fields: Mapping[str, Array]) -> bool:
    boxes, dets = fields.get("boxes"), fields.get("dets")
    if dets is not None:
        return dets.ndim in (2, 3) and dets.shape[-1] == 5
    return boxes is not None and boxes.ndim in (2, 3) and boxes.shape[-1] == 4


def poses_of_simcc(across: Array, down: Array, size: tuple[int, int]) -> dict[str, Array]:
    """Keypoints from two rows of scores for each, one over x and one over y: where the highest score is.

    Args:
        across: [B, P, W * k].
        down: [B, P, H * k].
        size: W and H.
    """
    x, y = across.argmax(-1), down.argmax(-1)
    scores = np.minimum(across.max(-1), down.max(-1))
    places = np.stack([x / (across.shape[-1] / size[0]), y / (down.shape[-1] / size[1])], axis=-1)
    places[scores <= 0] = -1 / (across.shape[-1] / size[0])  # found nowhere: as mmpose says it
    return {"keypoints": places.astype(np.float32), "keypoint_scores": scores}


def _has_poses(fields: Mapping[str, Array]) -> bool:
    points = fields.get("keypoints")
    return points is not None and points.ndim in (3, 4) and points.shape[-1] in (2, 3)


def _poses_of(prefix: str, fields: Mapping[str, Array]) -> list[Detections]:
    """Poses without boxes: one for each image, or several with one dim more; their boxes are drawn around them."""
    several = fields["keypoints"].ndim == 4
    images = []
    for number, points in enumerate(fields["keypoints"]):
        points = points if several else points[None]
        sure = fields.get("keypoint_scores")
        sure = None if sure is None else sure[number].reshape(points.shape[:2])
        own = fields.get("scores")
        if own is not None and several:
            scores = own[number]
        else:
            scores = np.ones(len(points), np.float32) if sure is None else sure.mean(axis=-1)
        if len(scores) != len(points):
            raise GraphForgeError(f"outputs {prefix}scores and {prefix}keypoints differ in their count")
        ends = [points[..., :2].min(axis=1), points[..., :2].max(axis=1)]
        boxes = np.concatenate(ends, axis=-1) if len(points) else np.zeros((0, 4), np.float32)
        labels = np.zeros(len(points), np.int64)
        images.append(Detections(boxes, scores, labels, points, keypoint_scores=sure))
    return images


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
    points = _keypoints_of(fields)
    # torchvision's keypoints_scores are logits and say nothing of one keypoint by itself
    sure = None if points is None else fields.get("keypoint_scores")
    every = Detections(boxes, scores, labels, points, masks, sure)
    if "num_dets" in fields:
        return every.chosen(np.arange(len(boxes)) < int(fields["num_dets"]))
    return every.chosen(labels >= 0)


def _keypoints_of(fields: Mapping[str, Array]) -> Array | None:
    points = fields.get("keypoints")
    if points is None or points.shape[-1] not in (2, 3):
        return None
    return points
