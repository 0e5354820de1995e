"""Detections on a picture: what is seen is where it should be, and labels do not hide each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from graphforge.runtime.detections import Detections, name_of
from graphforge.runtime.draw import _free_place, _meet, drawn, side_by_side


def _drawn(found: Detections, side: int = 500) -> NDArray[Any]:
    return np.asarray(drawn(Image.new("RGB", (side, side), "black"), found, ["cat"])).astype(int)


def _detections(*boxes: list[float], **more: NDArray[Any]) -> Detections:
    count = len(boxes)
    return Detections(np.asarray(boxes, float), np.linspace(0.9, 0.5, count), np.arange(count), **more)


def test_box_is_where_it_should_be() -> None:
    pixels = _drawn(_detections([100, 200, 300, 400]))
    lit = pixels.max(axis=2) > 0
    assert lit[300, 100]
    assert lit[300, 300]
    assert lit[400, 250]
    assert not lit[300, 105:295].any()
    assert not lit[410:].any()


def test_only_visible_keypoints_are_drawn() -> None:
    points = np.asarray([[[150, 250, 1], [250, 350, 0]]], float)
    pixels = _drawn(_detections([100, 200, 300, 400], keypoints=points))
    assert pixels[250, 150].max() > 100
    assert pixels[350, 250].max() == 0


def test_poses_without_classes_are_not_called_nought() -> None:
    points = np.asarray([[[150, 250, 1], [250, 350, 1]]], float)
    pose = _detections([100, 200, 300, 400], keypoints=points)
    black = Image.new("RGB", (500, 500), "black")
    of_no_name, of_name = (np.asarray(drawn(black, pose, names)) for names in ((), ("0",)))
    assert np.count_nonzero(of_no_name[:200]) < 0.9 * np.count_nonzero(of_name[:200])  # the plate above the box


def test_mask_tints_what_it_covers() -> None:
    mask = np.zeros((1, 500, 500), np.float32)
    mask[0, 250:300, 150:200] = 0.9
    mask[0, 300:350, 150:200] = 0.4
    pixels = _drawn(_detections([100, 200, 300, 400], masks=mask))
    assert pixels[275, 175].max() > 50
    assert pixels[325, 175].max() == 0


def test_small_pictures_are_magnified_with_their_boxes() -> None:
    pixels = _drawn(_detections([10, 20, 30, 40]), side=50)
    assert pixels.shape == (450, 450, 3)
    assert pixels[30 * 9, 30 * 9].max() > 0


def test_labels_stand_where_there_is_room() -> None:
    """Ten boxes on one another: no label hides another as long as there are places left, and all are on the picture."""
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(8):
        place = _free_place((100, 100, 300, 300), (40, 12), (500, 500), taken)
        assert not any(_meet(place, other) for other in taken)
        taken.append(place)
    for box in ([-50.0, -50.0, 5.0, 5.0], [495.0, 495.0, 600.0, 600.0]):
        left, top, right, bottom = _free_place((box[0], box[1], box[2], box[3]), (40, 12), (500, 500), [])
        assert 0 <= left < right <= 500
        assert 0 <= top < bottom <= 500


@pytest.mark.parametrize("side", [np.nan, np.inf, -1e30, 1e30])
def test_boxes_from_beyond_do_no_harm(side: float) -> None:
    points = np.asarray([[[side, 3.0, 1.0]]])
    assert _drawn(_detections([10, side, 50, 60], keypoints=points)).max() > 0


def test_names_and_numbers_of_labels() -> None:
    assert [name_of(label, ["cat"]) for label in (0, 1, -1)] == ["cat", "1", "-1"]


def test_pictures_side_by_side_keep_their_size() -> None:
    whole = side_by_side([Image.new("RGB", (10, 20)), Image.new("RGB", (30, 5))])
    assert whole.size == (10 + 8 + 30, 20)
