"""MTCNN through compiled stages: the faces that facenet-pytorch finds, where it finds them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from scripts.gallery import faces, mtcnn

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("facenet_pytorch", "torchvision", "skimage")),
    reason="facenet-pytorch, torchvision or scikit-image is not installed",
)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, mtcnn.Stage]:
    """Not verified one by one: the whole is compared here, and scripts/gallery/faces.py verifies them."""
    return faces.compiled_stages(tmp_path_factory.mktemp("stages"), verify=False)


def test_astronaut_within_a_thousandth_of_a_pixel(stages: Mapping[str, mtcnn.Stage]) -> None:
    picture = mtcnn.astronaut()
    found = mtcnn.find_faces(stages, picture)
    landmark, box, score = faces.differences(found, faces.found_by_facenet(picture))
    assert landmark < faces.NEAR
    assert box < faces.NEAR
    assert score < 1e-5
    np.testing.assert_allclose(found["boxes"].numpy(), [[181.05, 62.16, 267.75, 172.05]], atol=0.01)


def test_montage_of_many_faces(stages: Mapping[str, mtcnn.Stage]) -> None:
    picture = faces.montage()
    found = mtcnn.find_faces(stages, picture)
    assert len(found["scores"]) == 25
    landmark, box, _ = faces.differences(found, faces.found_by_facenet(picture))
    assert landmark < faces.NEAR
    assert box < faces.NEAR


def test_picture_without_a_face(stages: Mapping[str, mtcnn.Stage]) -> None:
    grey = np.full((80, 100, 3), 128, np.uint8)
    found = mtcnn.find_faces(stages, grey)
    assert found["keypoints"].shape == (0, 5, 2)
    assert faces.differences(found, faces.found_by_facenet(grey)) == (0.0, 0.0, 0.0)


def test_differences_see_a_missing_face_and_a_moved_one() -> None:
    one = {"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "keypoints": torch.zeros(1, 5, 2)}
    none = {name: tensor[:0] for name, tensor in one.items()}
    moved = {**one, "keypoints": one["keypoints"] + 0.002}
    assert faces.differences(none, one)[0] == float("inf")
    assert faces.differences(moved, one)[0] > faces.NEAR
