"""A detector and a pose estimator, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphforge.runtime.detections import Detections
from graphforge.runtime.detector import Detector
from graphforge.runtime.model import Picture
from graphforge.runtime.pose import PoseDetector

__all__ = ["Pipeline"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Boxes by a detector, then the pose in each.

    Attributes:
        detector: finds the boxes.
        pose: finds the keypoints in them; its crops go in batches of what its bundle takes.
        score: boxes that score more are looked at.
        labels: only these labels are looked at; empty is all.
    """

    detector: Detector
    pose: PoseDetector
    score: float = 0.3
    labels: Collection[int] = ()

    def __call__(self, picture: Picture) -> Detections:
        """Boxes, scores and labels of the detector, with keypoints, all in the picture's pixels.

        Raises:
            GraphForgeError: it is not a picture.
        """
        pixels = self.detector.pixels(picture)
        return self.poses(pixels, self.found(pixels))

    def batch(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The same for several."""
        return [self(picture) for picture in pictures]

    def found(self, pixels: Picture) -> Detections:
        """What the detector finds that is looked at, and has an area."""
        every = self.detector.of_rows([self.detector.row(np.asarray(pixels))])[0]
        wanted = every.scores > self.score
        if self.labels:
            wanted &= np.isin(every.labels, list(self.labels))
        sides = every.boxes[:, 2:] - every.boxes[:, :2]
        return every.chosen(wanted & (sides > 0).all(axis=1) & np.isfinite(every.boxes).all(axis=1))

    def poses(self, pixels: Picture, found: Detections) -> Detections:
        """The same detections with the keypoints in their boxes."""
        poses = self.pose.of_boxes(np.asarray(pixels), found.boxes)
        return replace(found, keypoints=poses.keypoints, keypoint_scores=poses.keypoint_scores)
