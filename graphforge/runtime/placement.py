"""Where a picture lies in the model's input, and the way back for boxes and points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphforge.runtime.files import Array

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """``x_input = x_picture * scale + shift`` on each axis; (x, y), counted from the outer edge of the first pixel.

    Attributes:
        scale: of x and of y.
        shift: of x and of y, in pixels of the input.
        cut: boxes that reach beyond the picture, into what was filled in, are cut to it.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)
    cut: bool = False

    @classmethod
    def stretched(cls, picture: tuple[int, int], size: tuple[int, int]) -> Placement:
        """A picture (width, height) that fills an input of another size."""
        return cls((size[0] / picture[0], size[1] / picture[1]))

    def then(self, scale: tuple[float, float], shift: tuple[float, float] = (0.0, 0.0)) -> Placement:
        """After a further step with this scale and shift."""
        return Placement(
            (self.scale[0] * scale[0], self.scale[1] * scale[1]),
            (self.shift[0] * scale[0] + shift[0], self.shift[1] * scale[1] + shift[1]),
            self.cut,
        )

    def points_to_picture(self, points: Array) -> Array:
        """[..., 2 or more]: x and y in the picture's pixels, what follows them as it is."""
        moved = np.array(points, np.float64)
        moved[..., :2] = (moved[..., :2] - self.shift) / self.scale
        return moved

    def points_to_input(self, points: Array) -> Array:
        """The way there."""
        moved = np.array(points, np.float64)
        moved[..., :2] = moved[..., :2] * self.scale + self.shift
        return moved

    def boxes_to_picture(self, boxes: Array, picture: tuple[int, int]) -> Array:
        """[..., 4], xyxy.

        Args:
            boxes: in the input.
            picture: width and height of the picture.
        """
        moved = (np.asarray(boxes, np.float64) - (*self.shift, *self.shift)) / (*self.scale, *self.scale)
        return np.clip(moved, 0, (*picture, *picture)) if self.cut else moved

    def boxes_to_input(self, boxes: Array) -> Array:
        """The way there."""
        return np.asarray(boxes, np.float64) * (*self.scale, *self.scale) + (*self.shift, *self.shift)

    def masks_to_picture(self, masks: Array, picture: tuple[int, int], size: tuple[int, int]) -> Array:
        """The part of [K, H, W] that the picture fills, cut to whole pixels of the mask.

        Args:
            masks: over the whole input.
            picture: width and height of the picture.
            size: width and height of the input.
        """
        bounds = []
        for axis in (0, 1):
            cells = masks.shape[2 - axis]
            ends = [self.shift[axis], self.shift[axis] + picture[axis] * self.scale[axis]]
            first, last = (round(min(max(end / size[axis], 0.0), 1.0) * cells) for end in ends)
            bounds.append((min(first, cells - 1), max(last, first + 1)))
        (left, right), (top, bottom) = bounds
        return masks[:, top:bottom, left:right]
