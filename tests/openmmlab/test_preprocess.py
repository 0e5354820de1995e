"""Pictures become what the framework itself makes of them, by the steps that a bundle keeps."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import graphforge
from graphforge.frontend.openmmlab.configs import find_config, pipeline_of, read_config
from graphforge.frontend.openmmlab.load import import_codebase
from graphforge.frontend.openmmlab.preprocess import Unknown, steps_of_config
from graphforge.runtime.preprocess import prepared, steps_of

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")

Array = NDArray[Any]
BOX = (31.5, 12.0, 170.25, 219.0)


def picture(height: int = 231, width: int = 307) -> Array:
    """Smooth colours with edges in them, red first."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 127 + 120 * np.sin(x / 17), 127 + 120 * np.cos(y / 11 + x / 29)
    blue = np.where((x // 20 + y // 30) % 2, 220, 30)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def framework(codebase: str, name: str) -> tuple[Array, Any]:
    """What the stock pipeline and data preprocessor make of the picture, and the config."""
    import_codebase(codebase)
    config = read_config(find_config(codebase, name))
    compose = importlib.import_module("mmengine.dataset").Compose
    registry = importlib.import_module("mmengine.registry")
    registry.init_default_scope(codebase)
    steps = [step for step in pipeline_of(config) if "Load" not in step["type"]]
    data: dict[str, Any] = {"img": np.ascontiguousarray(picture()[..., ::-1]), "img_id": 0, "img_path": ""}
    data |= {"ori_shape": data["img"].shape[:2], "img_shape": data["img"].shape[:2]}
    data |= {"bbox": np.array([BOX], np.float32), "bbox_score": np.ones(1, np.float32)}
    done = compose(steps)(data)
    preprocessor = registry.MODELS.build(config.model.data_preprocessor)
    batch = preprocessor({"inputs": [done["inputs"]], "data_samples": [done["data_samples"]]}, training=False)
    inputs: torch.Tensor = batch["inputs"]
    return inputs[0].numpy(), config


@pytest.mark.parametrize(
    ("codebase", "name"),
    [
        ("mmpose", "rtmpose-t_8xb256-420e_coco-256x192"),
        ("mmpose", "td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192"),
        ("mmpose", "yoloxpose_tiny_4xb64-300e_coco-416"),
        ("mmdet", "rtmdet_nano_320-8xb32_coco-person"),
        ("mmdet", "yolox_tiny_8xb8-300e_coco"),
        ("mmdet", "retinanet_r18_fpn_1x_coco"),
    ],
)
def test_as_the_framework_does_it(codebase: str, name: str) -> None:
    expected, config = framework(codebase, name)
    steps = steps_of([*steps_of_config(config), {"step": "layout"}, {"step": "dtype", "to": "float32"}])
    came, _ = prepared(steps, picture(), BOX)
    assert came.shape == expected.shape
    # OpenCV interpolates bytes in fixed point: one step of 255, over the deviation, here and there
    off = np.abs(came - expected)
    step = 1.01 if np.abs(expected).max() > 50 else 1.01 / 57
    assert off.max() <= step, off.max()
    assert float((off > step / 100).mean()) < 0.02


@pytest.mark.parametrize(
    ("codebase", "name", "cut"),
    [
        ("mmdet", "retinanet_r18_fpn_1x_coco", True),  # img_shape is the picture's, and the preprocessor pads
        ("mmdet", "rtmdet_nano_320-8xb32_coco-person", False),  # img_shape is that of the padded picture
        ("mmpose", "yoloxpose_tiny_4xb64-300e_coco-416", False),  # cut to the input, whatever was filled in
    ],
)
def test_boxes_are_cut_to_the_picture_where_the_framework_does_it(codebase: str, name: str, cut: bool) -> None:
    import_codebase(codebase)
    steps = steps_of(steps_of_config(read_config(find_config(codebase, name))))
    _, placement = prepared(steps, picture(200, 77))
    assert placement.cut is cut


def test_an_unknown_step_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    config = tmp_path / "mine.py"
    config.write_text(
        "_base_ = 'mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-t_8xb256-420e_coco-256x192.py'\n"
        "val_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImage'), dict(type='Sharpen')]))\n"
        "test_dataloader = val_dataloader\n"
    )
    loaded = graphforge.load_model(f"mmpose:{config}", kwargs={"codec.input_size": [192, 256]})
    assert "preprocess" not in loaded.facts
    assert any("'Sharpen' of the test pipeline is not known" in note for note in loaded.notes)
    with pytest.raises(Unknown, match="Sharpen"):
        steps_of_config(read_config(config))
