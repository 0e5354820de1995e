"""Heatmaps on a picture: one colour for each channel, strong where it is high, at the place where the model saw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphforge.runtime.draw import LEAST_SIDE, colour_of
from graphforge.runtime.files import Array
from graphforge.runtime.placement import Placement

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["heated", "heatmaps_among"]

# A map is as wide for its height as the input, up to this share: what has another shape does not show the picture.
_LIKE = 0.15
_STRONGEST = 200  # of 255, so that the picture is seen through it
_MOST = 3


def heatmaps_among(outputs: Mapping[str, Array], size: tuple[int, int], images: int) -> dict[str, Array]:
    """The outputs that are maps over the input, [B, C, h, w]; pictures, of one or three channels as large, are none.

    Args:
        outputs: by name.
        size: width and height of the input.
        images: how many went in.
    """
    found = {}
    for name, array in outputs.items():
        if array.ndim != 4 or array.dtype.kind != "f" or len(array) < images or min(array.shape[1:]) < 1:
            continue
        height, width = array.shape[2:]
        alike = abs(width * size[1] / (height * size[0]) - 1) <= _LIKE
        is_picture = array.shape[1] in (1, 3) and width >= size[0]
        if alike and min(height, width) >= 4 and not is_picture and bool(np.isfinite(array).all()):
            found[name] = array
    return dict(list(found.items())[:_MOST])


def heated(picture: Image.Image, maps: Array, placement: Placement, size: tuple[int, int]) -> Image.Image:
    """A copy of the picture with the highest of the maps at each place over it.

    Args:
        picture: to draw on.
        maps: [C, h, w].
        placement: where the picture lies in the input.
        size: width and height of the input.
    """
    from PIL import Image

    factor = max(1, -(-LEAST_SIDE // max(picture.size)))
    canvas = picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    highest = np.asarray(maps, np.float32).max(axis=0)
    low, high = float(np.median(highest)), float(highest.max())
    if high <= low:
        return canvas
    strength = Image.fromarray(np.clip((highest - low) / (high - low), 0, 1) * np.float32(_STRONGEST))
    channel = Image.fromarray(maps.argmax(axis=0).astype(np.int32))
    cells = [maps.shape[2 - axis] / size[axis] for axis in (0, 1)]
    across, down = (placement.scale[axis] / factor * cells[axis] for axis in (0, 1))
    where = (across, 0.0, placement.shift[0] * cells[0], 0.0, down, placement.shift[1] * cells[1])
    seen = strength.transform(canvas.size, Image.Transform.AFFINE, where, Image.Resampling.BILINEAR)
    whose = np.asarray(channel.transform(canvas.size, Image.Transform.AFFINE, where, Image.Resampling.NEAREST))
    palette = np.array([colour_of(number) for number in range(len(maps))], np.uint8)
    over = Image.fromarray(palette[whose])
    return Image.composite(over, canvas, Image.fromarray(np.asarray(seen).astype(np.uint8)))
