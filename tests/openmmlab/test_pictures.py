"""Bundles on photos, by the runtime that needs neither torch nor OpenMMLab, beside the framework's own inference."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import graphforge
from graphforge.frontend.openmmlab.load import build_model
from graphforge.runtime.pose import PoseDetector

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")

Array = NDArray[Any]
POSE = "rtmpose-t_8xb256-420e_coco-256x192"
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "cat")


def photo(name: str) -> Array:
    data = importlib.import_module("skimage.data")
    picture: Array = data.chelsea()[::-1, ::-1] if name == "cat" else getattr(data, name)()
    return np.ascontiguousarray(picture)


def stock(codebase: str, name: str) -> Any:
    """The framework's model as its own functions of inference take it."""
    built = build_model(codebase, name, None)
    model: Any = built.model
    model.cfg, model.dataset_meta = built.config, built.meta
    return model


def test_poses(tmp_path: Path) -> None:
    graphforge.compile(f"mmpose:{POSE}", dynamic_shapes="input:0=1..4", verify=False, output=tmp_path / "pose")
    pose, model = PoseDetector(tmp_path / "pose"), stock("mmpose", POSE)
    inference: Any = importlib.import_module("mmpose.apis").inference_topdown
    for name in PHOTOS:
        picture = photo(name)
        height, width = picture.shape[:2]
        boxes = np.array([[0.1, 0.05, 0.6, 0.95], [0.3, 0.2, 0.9, 0.8]]) * [width, height, width, height]
        boxes = boxes.astype(np.float32)
        results = inference(model, np.ascontiguousarray(picture[..., ::-1]), boxes)
        expected = np.concatenate([one.pred_instances.keypoints for one in results])
        came = np.asarray(pose(picture, boxes).keypoints)[..., :2]
        np.testing.assert_allclose(came, expected, rtol=0, atol=1e-3, err_msg=name)
