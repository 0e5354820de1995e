"""Draw detections on a picture: boxes with label and score, keypoints, masks; one colour for each label."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphforge.runtime.dataset import Dataset
from graphforge.runtime.detections import Array, Detections, name_of

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

__all__ = ["LEAST_KEYPOINT_SCORE", "LEAST_SIDE", "colour_of", "drawn", "side_by_side"]

Box = tuple[float, float, float, float]

# Pictures whose longer side is smaller are magnified by a whole number, so that labels can be read.
LEAST_SIDE = 448

# Keypoints that score less are not drawn, where a model scores them: mmpose's threshold, and the SDK's.
LEAST_KEYPOINT_SCORE = 0.3

NOTHING_KNOWN = Dataset()

_GAP = 8
_FAR = 1e5  # pixels; beyond, a pen's integers may overflow
_GOLDEN = 0.618034  # hues this far apart on the circle stay apart for any count of labels


def drawn(
    picture: Image.Image, found: Detections, names: Sequence[str], dataset: Dataset = NOTHING_KNOWN
) -> Image.Image:
    """A copy of the picture with detections drawn, whose boxes are in the picture's pixels.

    Args:
        picture: to draw on.
        found: what is drawn.
        names: of the labels, beginning with label 0.
        dataset: colours, and how keypoints hang together.
    """
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
        colour = colour_of(int(found.labels[index]), dataset.class_colours)
        pen.rectangle(_upright(found.boxes[index]), outline=colour, width=line)
        if found.keypoints is not None:
            _draw_pose(pen, found, index, line, dataset)
    taken: list[Box] = []
    # poses that are all of one kind need no number for a name
    of_a_kind = found.keypoints is not None and not names and not found.labels.any()
    for index in range(len(found)):  # the best first: it has the best place
        label = int(found.labels[index])
        who = "" if found.ids is None else f"#{int(found.ids[index])} "
        name = "" if of_a_kind else f"{name_of(label, names)} "
        text = f"{who}{name}{float(found.scores[index]):.2f}"
        width, height = pen.textbbox((0, 0), text, font=font, anchor="la")[2:]
        plate = _free_place(_upright(found.boxes[index]), (width + 2 * line, height + 2), size, taken)
        taken.append(plate)
        pen.rectangle(plate, fill=colour_of(label, dataset.class_colours))
        pen.text((plate[0] + line, plate[1] + 1), text, font=font, anchor="la", fill="black")
    return canvas


def _draw_pose(pen: ImageDraw.ImageDraw, found: Detections, index: int, line: int, dataset: Dataset) -> None:
    """The skeleton's lines between keypoints that are seen, then the keypoints."""
    assert found.keypoints is not None
    points = found.keypoints[index]
    own = colour_of(int(found.labels[index]), dataset.class_colours)
    seen = [_is_seen(found, index, number) for number in range(len(points))]
    if len(dataset.keypoints) == len(points):
        for number, (one, other) in enumerate(dataset.skeleton):
            if seen[one] and seen[other]:
                colour = dataset.link_colours[number] if dataset.link_colours else own
                ends = [(float(points[end][0]), float(points[end][1])) for end in (one, other)]
                pen.line(ends, fill=colour, width=max(1, line))
    for number, point in enumerate(points):
        if seen[number]:
            colours = dataset.keypoint_colours if len(dataset.keypoint_colours) == len(points) else ()
            x, y, radius = float(point[0]), float(point[1]), 1.5 * line
            spot = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(spot, fill=colours[number] if colours else own, outline="black")


def _is_seen(found: Detections, index: int, number: int) -> bool:
    """Whether a keypoint is visible, sure enough, and at a place that a pen can reach."""
    assert found.keypoints is not None
    point = found.keypoints[index][number]
    if len(point) == 3 and point[2] <= 0:
        return False
    if found.keypoint_scores is not None and not found.keypoint_scores[index][number] > LEAST_KEYPOINT_SCORE:
        return False
    return bool(np.abs(point[:2]).max() <= _FAR)  # not NaN either


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


def _upright(box: Array) -> Box:
    """The box with its sides in order and not too far away, as a drawing pen wants them."""
    x1, y1, x2, y2 = (float(side) for side in np.clip(np.nan_to_num(box), -_FAR, _FAR))
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _free_place(box: Box, plate: tuple[float, float], size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a label of this size can stand: above its box, below it, inside it; the first place that is free."""
    width, height = plate
    left, right = max(0.0, min(box[0], size[0] - width)), max(0.0, min(box[2], size[0]) - width)
    places = [(x, y) for y in (box[1] - height, box[3], box[1], box[3] - height) for x in (left, right)]
    inside = [(x, y, x + width, y + height) for x, y in places if 0 <= y <= size[1] - height]
    free = [place for place in inside if not any(_meet(place, other) for other in taken)]
    return (free or inside or [(left, 0.0, left + width, height)])[0]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_masks(canvas: Image.Image, found: Detections) -> Image.Image:
    from PIL import Image

    assert found.masks is not None
    for index in reversed(range(len(found))):
        mask = Image.fromarray(np.asarray(found.masks[index], np.float32)).resize(canvas.size)
        share = Image.fromarray(np.where(np.asarray(mask) > 0.5, 110, 0).astype(np.uint8))
        canvas.paste(colour_of(int(found.labels[index])), (0, 0), share)
    return canvas


def colour_of(label: int, given: Sequence[tuple[int, int, int]] = ()) -> tuple[int, int, int]:
    """The given colour of a label, or one of its own."""
    if 0 <= label < len(given):
        return given[label]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
