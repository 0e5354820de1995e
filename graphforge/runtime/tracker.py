"""Poses through a video: detection every few frames, boxes from the last pose between, ids, smoothing.

The names and numbers are those that MMDeploy's pose tracker has, where it has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphforge.errors import UsageError, argument
from graphforge.runtime.detections import Array, Detections
from graphforge.runtime.detector import Detector
from graphforge.runtime.model import Picture
from graphforge.runtime.pipeline import Pipeline
from graphforge.runtime.pose import PoseDetector

__all__ = ["OneEuro", "PoseTracker", "overlap", "similarity"]

# Of a keypoint whose sigma nobody knows: between those of COCO's shoulders and hips.
_SIGMA = 0.09


@dataclass(slots=True)
class OneEuro:
    """Smooths keypoints: much where they stand still, little where they move (Casiez, Roussel, Vogel, 2012).

    Attributes:
        least_cutoff: the cutoff at rest, in cycles a frame; the smaller, the smoother.
        beta: how much the cutoff grows with speed, in cycles a pixel.
        speed_cutoff: the cutoff that the speed itself is smoothed with.
    """

    least_cutoff: float = 1.0
    beta: float = 0.007
    speed_cutoff: float = 1.0
    _points: Array | None = None
    _speed: Array | None = None

    def __call__(self, points: Array) -> Array:
        """[P, 2], smoothed; the first come back as they are, and so do points that are NaN or infinite."""
        if not np.isfinite(points).all():
            return points
        if self._points is None or self._speed is None:
            self._points, self._speed = points.copy(), np.zeros_like(points)
            return points
        speed = self._speed + _share(self.speed_cutoff) * (points - self._points - self._speed)
        pace = np.linalg.norm(speed, axis=-1, keepdims=True)
        self._points = self._points + _share(self.least_cutoff + self.beta * pace) * (points - self._points)
        self._speed = speed
        return self._points


@dataclass(slots=True)
class _Track:
    """One that is followed: who, when last seen, and how it looked."""

    number: int
    pose: Detections  # of one
    missing: int = 0
    smoother: OneEuro = field(default_factory=OneEuro)


class PoseTracker:
    """Follows poses through the frames of a video: ``tracker = PoseTracker(det, pose)``, then ``tracker(frame)``.

    Args:
        detector: finds boxes, on every ``det_interval``-th frame.
        pose: finds keypoints in them, on every frame.
        det_interval: 1 detects on every frame.
        score: boxes that score more are looked at.
        labels: only these labels are looked at; empty is all.
        keypoint_score: keypoints that score more make the box of the next frame.
        box_scale: that box, around those keypoints, is made so many times as large.
        similar: two poses that are more alike are the same one (object keypoint similarity with the dataset's sigmas,
            overlap of boxes where either has too few keypoints).
        max_missing: so many frames without it, and a track ends.
        smooth: whether keypoints are smoothed (`OneEuro`).
    """

    def __init__(
        self,
        detector: Detector,
        pose: PoseDetector,
        det_interval: int = 5,
        *,
        score: float = 0.5,
        labels: Sequence[int] = (),
        keypoint_score: float = 0.3,
        box_scale: float = 1.25,
        similar: float = 0.3,
        max_missing: int = 10,
        smooth: bool = True,
    ) -> None:
        if type(det_interval) is not int or det_interval < 1:
            raise UsageError(f"{argument('det_interval')}: expected a whole number above 0, got {det_interval!r}")
        self.pipeline = Pipeline(detector, pose, score, tuple(labels))
        self.det_interval = det_interval
        self.keypoint_score = keypoint_score
        self.box_scale = box_scale
        self.similar = similar
        self.max_missing = max_missing
        self.smooth = smooth
        self.frame = 0
        self.detections = 0
        self._tracks: list[_Track] = []
        self._next = 1

    def __call__(self, picture: Picture) -> Detections:
        """The poses on the next frame, each with the id of its track.

        Raises:
            GraphForgeError: it is not a picture.
        """
        pixels = self.pipeline.detector.pixels(picture)
        seen = [track for track in self._tracks if not track.missing]
        if self.frame % self.det_interval == 0 or not seen:
            found = self.pipeline.found(pixels)
            self.detections += 1
        else:
            found = self._followed(seen, (pixels.shape[1], pixels.shape[0]))
        self.frame += 1
        return self._numbered(self._distinct(self.pipeline.poses(pixels, found)))

    def _followed(self, tracks: Sequence[_Track], size: tuple[int, int]) -> Detections:
        """Boxes around the last poses, cut at the picture's edges; who is nearly out of it is let go."""
        kept, boxes = [], []
        for track in tracks:
            box = self._box_around(track.pose)
            box[:2] = np.maximum(box[:2], 0)
            box[2:] = np.minimum(box[2:], size)
            if (box[2:] - box[:2] > 1).all():
                kept.append(track.pose)
                boxes.append(box)
        if not kept:
            return tracks[0].pose.chosen(np.zeros(1, bool))
        scores = np.concatenate([one.scores for one in kept])
        return Detections(np.stack(boxes), scores, np.concatenate([one.labels for one in kept]))

    def _box_around(self, pose: Detections) -> Array:
        """The box around the keypoints of one pose that are sure enough, a little larger; its own box without any."""
        assert pose.keypoints is not None
        assert pose.keypoint_scores is not None
        points = pose.keypoints[0][pose.keypoint_scores[0] > self.keypoint_score, :2]
        if len(points) < 2:
            return np.array(pose.boxes[0], np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        middle, half = (low + high) / 2, (high - low) / 2 * self.box_scale
        return np.concatenate([middle - half, middle + half])

    def _distinct(self, poses: Detections) -> Detections:
        """Without those that fell onto another one; the better one stays."""
        if len(poses) < 2:
            return poses
        assert poses.keypoint_scores is not None
        order = np.argsort(-poses.scores * poses.keypoint_scores.mean(axis=1), kind="stable")
        alike = self._alike(poses, poses)
        kept: list[int] = []
        for index in order:
            if all(alike[index, other] < 0.9 for other in kept):
                kept.append(int(index))
        return poses.chosen(np.array(sorted(kept)))

    def _numbered(self, poses: Detections) -> Detections:
        """With ids: the most alike of all pairs of track and pose first, each once; who is left over is new."""
        ids = np.zeros(len(poses), np.int64)
        points = None if poses.keypoints is None else np.array(poses.keypoints, np.float64)
        taken: set[int] = set()
        if self._tracks and len(poses):
            last = _together([track.pose for track in self._tracks])
            alike = self._alike(last, poses)
            for place in np.argsort(-alike, axis=None, kind="stable"):
                which, index = divmod(int(place), len(poses))
                if not alike[which, index] > self.similar:  # NaN, too, which stands last
                    break
                if which not in taken and not ids[index]:
                    taken.add(which)
                    ids[index] = self._tracks[which].number
        by_number = {track.number: track for track in self._tracks}
        for index in range(len(poses)):
            one = poses.chosen(np.array([index]))
            if not ids[index]:
                ids[index] = self._next
                by_number[self._next] = _Track(self._next, one)
                self._next += 1
            track = by_number[int(ids[index])]
            if track.missing:
                track.smoother = OneEuro()  # what was before it was lost says nothing of where it is
            track.pose, track.missing = one, -1
            if self.smooth and points is not None:
                points[index, :, :2] = track.smoother(points[index, :, :2])
        for track in by_number.values():
            track.missing += 1
        self._tracks = [track for track in by_number.values() if track.missing <= self.max_missing]
        return replace(poses, keypoints=points, ids=ids)

    def _alike(self, some: Detections, others: Detections) -> Array:
        """[K, L] between 0 and 1."""
        boxes = overlap(some.boxes, others.boxes)
        if some.keypoints is None or others.keypoints is None:
            return boxes
        sigmas = np.array(self.pipeline.pose.dataset.sigmas or [_SIGMA] * some.keypoints.shape[1])
        assert some.keypoint_scores is not None
        assert others.keypoint_scores is not None
        least = np.minimum(some.keypoint_scores[:, None], others.keypoint_scores[None])
        both: Array = np.greater(least, self.keypoint_score)
        points = similarity(some.keypoints, others.keypoints, sigmas, _areas(some.boxes), both)
        return np.where(both.sum(axis=2) >= 3, points, boxes)


def similarity(some: Array, others: Array, sigmas: Array, areas: Array, both: Array | None = None) -> Array:
    """Object keypoint similarity (COCO's) of each pair, [K, L].

    Args:
        some: [K, P, 2 or more].
        others: [L, P, 2 or more].
        sigmas: [P].
        areas: [K], of the boxes of the first.
        both: [K, L, P], the keypoints that count; None is all.
    """
    squares = ((some[:, None, :, :2] - others[None, :, :, :2]) ** 2).sum(axis=-1)
    spread = 2 * (2 * sigmas) ** 2 * (np.maximum(areas, 1e-9)[:, None, None])
    near = np.exp(-squares / spread)
    counted = np.ones_like(near) if both is None else both.astype(np.float64)
    found: Array = (near * counted).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
    return found


def overlap(some: Array, others: Array) -> Array:
    """Intersection over union of each pair of boxes, [K, L]."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = _areas(some)[:, None] + _areas(others)[None] - shared
    found: Array = shared / np.maximum(union, 1e-9)
    return found


def _areas(boxes: Array) -> Array:
    areas: Array = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return areas


def _together(poses: Sequence[Detections]) -> Detections:
    def stacked(name: str) -> Array | None:
        arrays = [getattr(one, name) for one in poses]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    boxes, scores, labels = (
        np.concatenate([getattr(one, name) for one in poses]) for name in ("boxes", "scores", "labels")
    )
    return Detections(boxes, scores, labels, stacked("keypoints"), keypoint_scores=stacked("keypoint_scores"))


def _share(cutoff: float | Array) -> float | Array:
    """How much of a new value is taken, at a cutoff in cycles a frame."""
    turns = 2 * math.pi * cutoff
    return turns / (turns + 1)
