"""Draw detections on a picture: boxes with label and score, keypoints, masks; one colour for each label."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphforge.cli.detections import Detections

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LEAST_SIDE", "drawn", "side_by_side"]

# Pictures whose longer side is smaller are magnified by a whole number, so that labels can be read.
LEAST_SIDE = 448

_GAP = 8
_GOLDEN = 0.618034  # hues this far apart on the circle stay apart for any count of labels


def drawn(picture: Image.Image, found: Detections, names: Sequence[str]) -> Image.Image:
    """A copy of the picture with detections drawn, whose boxes are in the picture's pixels."""
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, -(-LEAST_SIDE // max(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    canvas = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
    if found.masks is not None:
        canvas = _with_masks(canvas, found)
    found = found.moved((factor, factor))
    line = max(2, round(max(size) / 400))
    font = ImageFont.load_default(size=max(11, round(max(size) / 40)))
    pen = ImageDraw.Draw(canvas)
    for index in reversed(range(len(found))):  # the best last, on top
        colour = _colour(int(found.labels[index]))
        box = [float(side) for side in found.boxes[index]]
        left, top, right, bottom = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
        pen.rectangle((left, top, right, bottom), outline=colour, width=line)
        if found.keypoints is not None:
            for point in found.keypoints[index]:
                if len(point) == 3 and point[2] <= 0:  # not visible
                    continue
                x, y, radius = float(point[0]), float(point[1]), 1.5 * line
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="black")
        text = f"{name_of(int(found.labels[index]), names)} {float(found.scores[index]):.2f}"
        place = pen.textbbox((left, top), text, font=font, anchor="lb")
        x = min(left, max(0, size[0] - (place[2] - place[0]) - 2 * line))
        y = top if place[1] >= 0 else top + (place[3] - place[1]) + line  # above the box, or inside at the upper edge
        place = pen.textbbox((x + line, y), text, font=font, anchor="lb")
        pen.rectangle((place[0] - line, place[1] - 1, place[2] + line, place[3] + 1), fill=colour)
        pen.text((x + line, y), text, font=font, anchor="lb", fill="black")
    return canvas


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Several pictures as one, from left to right."""
    from PIL import Image

    if len(pictures) == 1:
        return pictures[0]
    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    x = 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width + _GAP
    return whole


def name_of(label: int, names: Sequence[str]) -> str:
    """The label's name, or its number where it has none."""
    return names[label] if 0 <= label < len(names) else str(label)


def _with_masks(canvas: Image.Image, found: Detections) -> Image.Image:
    from PIL import Image

    assert found.masks is not None
    for index in reversed(range(len(found))):
        mask = Image.fromarray(np.asarray(found.masks[index], np.float32)).resize(canvas.size)
        share = Image.fromarray(np.where(np.asarray(mask) > 0.5, 110, 0).astype(np.uint8))
        canvas.paste(_colour(int(found.labels[index])), (0, 0), share)
    return canvas


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
