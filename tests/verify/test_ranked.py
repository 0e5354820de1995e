"""Near ties in ranked results: their order is free, everything else is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphforge.runners.arrays import Array
from graphforge.verify.tolerance import Tolerances
from graphforge.verify.verify import compare_outputs


def detections(scores: list[float], labels: list[int], *, prefix: str = "") -> dict[str, Array]:
    count = len(scores)
    boxes = np.arange(count * 4, dtype=np.float32).reshape(count, 4) * 10
    return {
        f"{prefix}boxes": boxes,
        f"{prefix}scores": np.array(scores, dtype=np.float32),
        f"{prefix}labels": np.array(labels, dtype=np.int64),
    }


def rows(outputs: dict[str, Array], order: list[int]) -> dict[str, Array]:
    return {name: array[order] for name, array in outputs.items()}


def verdicts(reference: dict[str, Array], artifact: dict[str, Array]) -> list[bool]:
    return [one.passed for one in compare_outputs(reference, artifact, Tolerances())]


NEAR = [0.9, 0.7, 0.699999, 0.5, 0.2]


@pytest.mark.parametrize("prefix", ["", "output_3_"])
def test_near_ties_may_stand_in_either_order(prefix: str) -> None:
    reference = detections(NEAR, [1, 2, 3, 4, 5], prefix=prefix)
    artifact = rows(reference, [0, 2, 1, 3, 4])
    artifact[f"{prefix}scores"] = reference[f"{prefix}scores"]  # each side ranks by its own rounding
    compared = compare_outputs(reference, artifact, Tolerances())
    assert all(one.passed for one in compared)
    assert all(one.note.startswith("2 rows stand in another order") for one in compared)


def test_rows_that_agree_are_left_where_they_are() -> None:
    reference = detections(NEAR, [1, 2, 3, 4, 5])
    assert not any(one.note for one in compare_outputs(reference, dict(reference), Tolerances()))


@pytest.mark.parametrize(
    ("order", "scores"),
    [
        ([1, 0, 2, 3, 4], NEAR),  # 0.9 and 0.7 are no tie
        ([0, 1, 2, 4, 3], NEAR),
        ([0, 2, 1, 3, 4], [0.9, 0.7, 0.7, 0.5, 0.2]),  # an exact tie on both sides: the rule decides
    ],
)
def test_anything_else_fails(order: list[int], scores: list[float]) -> None:
    reference = detections(scores, [1, 2, 3, 4, 5])
    artifact = rows(reference, order)
    artifact["scores"] = reference["scores"]
    assert not all(verdicts(reference, artifact))


def test_a_detection_moves_as_a_whole() -> None:
    reference = detections(NEAR, [1, 2, 3, 4, 5])
    artifact = dict(reference)
    artifact["labels"] = reference["labels"][[0, 2, 1, 3, 4]]  # labels of two boxes changed places, the boxes did not
    assert verdicts(reference, artifact) == [True, True, False]


def test_one_wrong_value_among_near_ties_fails() -> None:
    reference = detections(NEAR, [1, 2, 3, 4, 5])
    artifact = rows(reference, [0, 2, 1, 3, 4])
    artifact["scores"] = reference["scores"]
    artifact["boxes"] = artifact["boxes"].copy()
    artifact["boxes"][1, 2] += 0.5
    assert not all(verdicts(reference, artifact))


def test_rows_of_two_images_are_not_mixed() -> None:
    reference = {
        **detections(NEAR, [1, 2, 3, 4, 5], prefix="output_0_"),
        **detections(NEAR, [6, 7, 8, 9, 0], prefix="output_1_"),
    }
    artifact: dict[str, Any] = dict(reference)
    for field in ("boxes", "labels"):
        artifact[f"output_1_{field}"] = reference[f"output_1_{field}"][[0, 2, 1, 3, 4]]
    compared = compare_outputs(reference, artifact, Tolerances())
    assert [bool(one.note) for one in compared] == [False] * 3 + [True] * 3
    assert all(one.passed for one in compared)


def test_unsorted_scores_rank_nothing() -> None:
    reference = detections([0.5, 0.699999, 0.7, 0.2, 0.9], [1, 2, 3, 4, 5])
    artifact = rows(reference, [0, 2, 1, 3, 4])
    artifact["scores"] = reference["scores"]
    assert not all(verdicts(reference, artifact))


def batched(scores: Array) -> dict[str, Array]:
    """Candidates of each keypoint of each picture: scores, places, tags."""
    count = scores.size
    return {
        "scores": scores.astype(np.float32),
        "places": np.arange(2 * count, dtype=np.int64).reshape(*scores.shape, 2),
        "tags": np.arange(count, dtype=np.float32).reshape(*scores.shape) * 3,
    }


def test_each_ranking_of_a_batch_is_put_in_order_by_itself() -> None:
    """Near ties of one keypoint of one picture; behind them, padding that is longer than any run of ties."""
    scores = np.concatenate([np.tile(np.array(NEAR), (2, 3, 1)), np.zeros((2, 3, 100))], axis=2)
    reference = batched(scores)
    artifact = {name: array.copy() for name, array in reference.items()}
    for name in ("places", "tags"):
        artifact[name][1, 2, [1, 2]] = reference[name][1, 2, [2, 1]]
    compared = compare_outputs(reference, artifact, Tolerances())
    assert all(one.passed for one in compared)
    assert all(one.note.startswith("2 rows stand in another order") for one in compared)
    artifact["places"][0, 0, [0, 1]] = reference["places"][0, 0, [1, 0]]  # 0.9 and 0.7 of another one are no tie
    artifact["tags"][0, 0, [0, 1]] = reference["tags"][0, 0, [1, 0]]
    assert verdicts(reference, artifact) == [True, False, False]


def test_rows_of_two_rankings_are_not_mixed() -> None:
    reference = batched(np.tile(np.array(NEAR), (2, 1)))
    artifact = dict(reference)
    artifact["places"] = reference["places"][::-1].copy()  # equal scores, of the other picture
    assert verdicts(reference, artifact) == [True, False, True]
