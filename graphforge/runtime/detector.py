"""A detector from its bundle: pictures in, boxes (keypoints, masks) in the pictures' own pixels out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runtime.detections import Detections, detections_of
from graphforge.runtime.model import Picture, PictureModel, Row

__all__ = ["Detector"]


class Detector(PictureModel):
    """A bundle whose outputs are detections: ``found = Detector("out/detector")("street.jpg").above(0.3)``."""

    def __call__(self, picture: Picture) -> Detections:
        """What is found on one picture: a file, a Pillow picture, or an array of bytes.

        Raises:
            GraphForgeError: it is not a picture, or the outputs are not detections.
        """
        return self.batch([picture])[0]

    def batch(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The same for several, in as few runs as the bundle's batch allows."""
        return self.of_rows([self.row(self.pixels(picture)) for picture in pictures])

    def of_rows(self, rows: Sequence[Row]) -> list[Detections]:
        """The same for pictures that are prepared."""
        found: list[Detections] = []
        for some, outputs in self.runs(rows):
            images = detections_of(outputs, some[0].size)
            if images is None or len(images) < len(some):
                shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
                raise GraphForgeError(
                    f"bundle {str(self.folder)!r} is not a detector: its outputs are {shapes}",
                    "detections are known by their names: boxes or dets, scores, labels, keypoints, masks",
                )
            for one, row in zip(images, some, strict=False):  # images beyond are of rows that fill the batch up
                found.append(one.on_picture(row.placement, row.picture, row.size))
        return found


def nothing(keypoints: int | None = None) -> Detections:
    """Detections of which there are none.

    Args:
        keypoints: how many each would have.
    """
    none = np.zeros(0, np.float64)
    return Detections(
        np.zeros((0, 4)),
        none,
        none.astype(np.int64),
        None if keypoints is None else np.zeros((0, keypoints, 2)),
        keypoint_scores=None if keypoints is None else np.zeros((0, keypoints)),
    )
