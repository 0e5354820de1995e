"""Every form in which models hand out detections is read, and padding never becomes a detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphforge.errors import GraphForgeError
from graphforge.runtime.detections import Detections, detections_of

BOXES = np.asarray([[0, 0, 4, 4], [1, 2, 5, 8], [2, 2, 3, 3]], np.float32)
SCORES = np.asarray([0.9, 0.5, 0.2], np.float32)
LABELS = np.asarray([3, 0, 1], np.int64)

Array = NDArray[Any]


def _found(outputs: dict[str, Array]) -> list[Detections]:
    found = detections_of(outputs)
    assert found is not None
    return found


def test_one_image() -> None:
    (found,) = _found({"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    np.testing.assert_array_equal(found.boxes, BOXES)
    np.testing.assert_array_equal(found.above(0.4).labels, [3, 0])
    np.testing.assert_array_equal(found.moved((2, 10)).boxes[1], [2, 20, 10, 80])


def test_a_dict_for_each_image() -> None:
    outputs: dict[str, Array] = {}
    for number, count in enumerate((3, 0, 1)):
        outputs |= {
            f"output_{number}_boxes": BOXES[:count],
            f"output_{number}_scores": SCORES[:count],
            f"output_{number}_labels": LABELS[:count],
        }
    assert [len(found) for found in _found(outputs)] == [3, 0, 1]


def test_padding_beyond_the_count_is_left_out() -> None:
    outputs: dict[str, Array] = {
        "boxes": np.stack([BOXES, BOXES]),
        "scores": np.stack([SCORES, SCORES]),
        "labels": np.stack([LABELS, LABELS]),
        "num_dets": np.asarray([1, 3]),
    }
    assert [len(found) for found in _found(outputs)] == [1, 3]


def test_one_image_may_have_its_count_in_a_vector() -> None:
    (found,) = _found({"boxes": BOXES, "scores": SCORES, "labels": LABELS, "num_dets": np.asarray([2])})
    np.testing.assert_array_equal(found.labels, [3, 0])


def test_label_of_minus_one_is_padding_where_there_is_no_count() -> None:
    outputs: dict[str, Array] = {
        "dets": np.concatenate([BOXES, SCORES[:, None]], 1)[None],
        "labels": np.asarray([[2, -1, -1]]),
    }
    (found,) = _found(outputs)
    np.testing.assert_array_equal(found.scores, [np.float32(0.9)])
    np.testing.assert_array_equal(found.labels, [2])


def test_keypoints_and_masks_follow() -> None:
    points, masks = np.zeros((3, 17, 3)), np.zeros((3, 1, 8, 8))
    points[:, :, 0] = np.arange(3)[:, None]
    (found,) = _found({"boxes": BOXES, "scores": SCORES, "keypoints": points, "masks": masks})
    few = found.above(0.4)
    assert few.keypoints is not None
    assert few.masks is not None
    assert few.masks.shape == (2, 8, 8)
    np.testing.assert_array_equal(few.keypoints[:, 0, 0], [0, 1])
    moved = few.moved((3, 1)).keypoints
    assert moved is not None
    np.testing.assert_array_equal(moved[:, 0, 0], [0, 3])


@pytest.mark.parametrize(
    "outputs", [{"output": BOXES}, {"scores": SCORES}, {"boxes": SCORES}, {"my_boxes_of_eggs": BOXES}]
)
def test_other_outputs_are_no_detections(outputs: dict[str, Array]) -> None:
    assert detections_of(outputs) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": SCORES[:2]}, r"output 'scores' of shape \(2,\) does not fit 3 boxes"),
        ({"labels": LABELS[None]}, r"output 'labels' of shape \(1, 3\) does not fit 3 boxes"),
    ],
)
def test_outputs_that_do_not_fit_each_other_are_refused(wrong: dict[str, Array], message: str) -> None:
    with pytest.raises(GraphForgeError, match=message):
        detections_of({"boxes": BOXES, "scores": SCORES, "labels": LABELS, **wrong})


def test_batches_that_differ_are_refused() -> None:
    with pytest.raises(GraphForgeError, match="differ in their batch"):
        detections_of({"boxes": np.stack([BOXES, BOXES]), "scores": SCORES[None]})
