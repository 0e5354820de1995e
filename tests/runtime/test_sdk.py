"""The SDK's files have the fields that MMDeploy's own have, and their pre-processing is read back as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.runtime.preprocess import prepared, steps_of
from graphforge.runtime.sdk import SDK_FILES, check_sdk, read_sdk_file, sdk_files, steps_of_pipeline, write_sdk_files

POSE_STEPS: list[dict[str, Any]] = [
    {"step": "crop-box", "size": [192, 256], "padding": 1.25, "udp": False},
    {"step": "normalise", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
    {"step": "layout", "order": "nchw"},
    {"step": "dtype", "to": "float32"},
]
DETECTOR_STEPS: list[dict[str, Any]] = [
    {"step": "colour", "order": "bgr"},
    {"step": "resize", "size": [320, 256], "fit": "either-way", "filter": "bilinear"},
    {"step": "pad", "size": [320, 256], "value": [114.0, 114.0, 114.0], "where": "corner"},
    {"step": "layout", "order": "nchw"},
    {"step": "dtype", "to": "float32"},
]


def manifest(**more: Any) -> dict[str, Any]:
    """Of a top-down pose model, as far as the SDK's files ask."""
    return {
        "model": {"checkpoint": "w.pth"},
        "openmmlab": {
            "codebase": "mmpose",
            "config": "rtmpose-t.py",
            "decode": "sdk",
            "model": "TopdownPoseEstimator",
            "versions": {"mmpose": "1.3.2"},
            "codec": {"type": "SimCCLabel", "input_size": [192, 256], "simcc_split_ratio": 2.0},
            "test_cfg": {"flip_test": False},
        },
        "target": {"name": "onnx", "opset": 17, "precision": "as_typed"},
        "files": ["model.onnx"],
        "inputs": [{"name": "input", "dynamic": {"0": {"low": 1, "high": 8}}}],
        "outputs": [{"name": "simcc_x"}, {"name": "simcc_y"}],
        "preprocess": POSE_STEPS,
        **more,
    }


def detector() -> dict[str, Any]:
    facts = {**manifest()["openmmlab"], "codebase": "mmdet", "model": "RTMDet", "codec": None}
    return manifest(openmmlab=facts, preprocess=DETECTOR_STEPS, inputs=[{"name": "input", "dynamic": {}}])


def test_what_the_files_say_of_a_pose_model() -> None:
    files = sdk_files(manifest())
    deploy = files["deploy.json"]
    assert deploy["task"] == "PoseDetector"
    assert deploy["models"][0]["net"] == "end2end.onnx"
    assert deploy["models"][0]["dynamic_shape"] is True
    transform, net, decode = files["pipeline.json"]["pipeline"]["tasks"]
    assert [one["type"] for one in transform["transforms"]][:4] == [
        "LoadImageFromFile",
        "TopDownGetBboxCenterScale",
        "TopDownAffine",
        "Normalize",
    ]
    assert net["input_map"] == {"img": "input"}
    assert net["is_batched"] is True
    assert (decode["component"], decode["params"]["simcc_split_ratio"]) == ("SimCCLabelDecode", 2.0)
    assert files["detail.json"]["codebase"]["pth"] == "w.pth"


@pytest.mark.parametrize("of", [manifest, detector], ids=["pose", "detector"])
def test_pre_processing_comes_back_the_same(of: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"artifact")
    written = of()
    assert write_sdk_files(tmp_path, written) == ["end2end.onnx", *SDK_FILES]
    assert (tmp_path / "end2end.onnx").read_bytes() == b"artifact"
    for name in SDK_FILES:
        read_sdk_file(tmp_path / name)
    back = [*steps_of_pipeline(tmp_path / "pipeline.json"), {"step": "layout"}, {"step": "dtype", "to": "float32"}]
    picture = np.random.default_rng(0).integers(0, 256, (187, 211, 3), dtype=np.uint8)
    box = (20.0, 30.0, 140.0, 190.0)
    expected, where = prepared(steps_of(written["preprocess"]), picture, box)
    came, there = prepared(steps_of(back), picture, box)
    np.testing.assert_array_equal(came, expected)
    assert there == where
    # once more over an earlier bundle
    write_sdk_files(tmp_path, written)


def test_what_the_sdk_has_no_word_for_is_refused() -> None:
    for broken, told in (
        (manifest(openmmlab=None), "mmpose:CONFIG or mmdet:CONFIG only"),
        (manifest(openmmlab={**manifest()["openmmlab"], "decode": "full"}), "the SDK decodes by itself"),
        (manifest(target={"name": "magicmind"}), "knows no target 'magicmind'"),
        (manifest(preprocess=[{"step": "centre-crop", "size": [8, 8]}]), "no word for the step 'centre-crop'"),
        (manifest(openmmlab={**manifest()["openmmlab"], "codec": {"type": "Mine"}}), "with codec Mine"),
    ):
        with pytest.raises(GraphForgeError, match=told):
            check_sdk(broken)


def test_a_file_with_a_wrong_field_is_told(tmp_path: Path) -> None:
    files = sdk_files(manifest())
    files["deploy.json"]["models"][0]["batch_size"] = "1"
    (tmp_path / "deploy.json").write_text(json.dumps(files["deploy.json"]))
    with pytest.raises(GraphForgeError, match=r"models\[0\].batch_size"):
        read_sdk_file(tmp_path / "deploy.json")
    files["pipeline.json"]["pipeline"]["tasks"][0]["transforms"][1]["type"] = "Sharpen"
    (tmp_path / "pipeline.json").write_text(json.dumps(files["pipeline.json"]))
    with pytest.raises(GraphForgeError, match="step 'Sharpen' is not known"):
        steps_of_pipeline(tmp_path / "pipeline.json")
