"""A pose estimator from its bundle: a picture and boxes in, keypoints in the picture's own pixels out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runtime.detections import Array, Detections, detections_of
from graphforge.runtime.detector import nothing
from graphforge.runtime.heatmaps import poses_of_heatmaps
from graphforge.runtime.model import Picture, PictureModel

__all__ = ["PoseDetector"]


class PoseDetector(PictureModel):
    """A bundle that finds the keypoints of what is in a box (top-down), or of the whole picture.

    Its outputs are ``keypoints`` [B, P, 2 or 3] with ``keypoint_scores`` [B, P], or ``simcc_x`` and ``simcc_y``, or
    MMPose's undecoded heatmaps under the name ``output``.
    """

    def __call__(self, picture: Picture, boxes: Array | Sequence[Sequence[float]] | None = None) -> Detections:
        """The pose in each box, in their order.

        Args:
            picture: a file, a Pillow picture, or an array of bytes.
            boxes: [N, 4], xyxy in the picture's pixels; None is the whole picture.

        Raises:
            GraphForgeError: it is not a picture, a box has no area, or the outputs are not poses.
        """
        return self.of_boxes(self.pixels(picture), boxes)

    def of_boxes(self, pixels: Array, boxes: Array | Sequence[Sequence[float]] | None) -> Detections:
        """The same for pixels that are read, [H, W, 3], red first."""
        given = [[0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])]] if boxes is None else boxes
        wanted = np.asarray(given, np.float64).reshape(-1, 4)
        if boxes is not None and not self.crops:
            raise GraphForgeError(
                f"bundle {str(self.folder)!r} does not look at boxes: its pre-processing has no crop-box",
                "call it without boxes, or use it as a Detector",
            )
        if not len(wanted):
            return nothing(len(self.dataset.keypoints))
        rows = [self.row(pixels, [float(side) for side in box]) for box in wanted]
        points: list[Array] = []
        sure: list[Array] = []
        for some, outputs in self.runs(rows):
            maps = outputs.get("output")  # the SDK's name of undecoded heatmaps
            if self.codec and maps is not None and maps.ndim == 4:
                outputs = poses_of_heatmaps(maps, some[0].size, self.codec)
            images = detections_of(outputs, some[0].size)
            poses = [] if images is None else [one for one in images if one.keypoints is not None and len(one) == 1]
            if len(poses) < len(some):
                shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
                raise GraphForgeError(
                    f"bundle {str(self.folder)!r} does not give one pose for each box: its outputs are {shapes}",
                    "poses are known by their names: keypoints with keypoint_scores, or simcc_x with simcc_y",
                )
            for one, row in zip(poses, some, strict=False):
                assert one.keypoints is not None
                points.append(row.placement.points_to_picture(one.keypoints[0]))
                known = one.keypoint_scores
                sure.append(np.ones(len(one.keypoints[0]), np.float32) if known is None else known[0])
        scores = np.stack(sure)
        return Detections(
            wanted, scores.mean(axis=1), np.zeros(len(wanted), np.int64), np.stack(points), keypoint_scores=scores
        )
