"""MMDeploy's Python configs with their `_base_` chains, read by mmengine and asked of a compilation."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphforge.cli.main import run
from graphforge.deploying import read_deploy_config
from graphforge.errors import GraphForgeError
from graphforge.runtime import PoseDetector
from graphforge.runtime.sdk import SDK_FILES

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")

FILES = {
    "_base_/onnx_config.py": "onnx_config = dict(type='onnx', export_params=True, opset_version=11, input_shape=None,\n"
    "    input_names=['input'], output_names=['output'], save_file='end2end.onnx', optimize=True)\n",
    "_base_/backends/onnxruntime.py": "backend_config = dict(type='onnxruntime')\n",
    "_base_/backends/tensorrt.py": "import tempfile\nbackend_config = dict(type='tensorrt',\n"
    "    common_config=dict(fp16_mode=False, max_workspace_size=0))\n",
    "mmpose/pose-detection_static.py": "_base_ = ['../_base_/onnx_config.py']\n"
    "codebase_config = dict(type='mmpose', task='PoseDetection')\n",
    "mmpose/simcc_onnxruntime.py": "_base_ = ['./pose-detection_static.py', '../_base_/backends/onnxruntime.py']\n"
    "onnx_config = dict(output_names=['simcc_x', 'simcc_y'], dynamic_axes=dict(input={0: 'b'}, simcc_x={0: 'b'}))\n",
    "mmpose/simcc_tensorrt.py": "_base_ = ['./pose-detection_static.py', '../_base_/backends/tensorrt.py']\n"
    "onnx_config = dict(input_shape=[192, 256], output_names=['simcc_x', 'simcc_y'])\n"
    "backend_config = dict(common_config=dict(fp16_mode=True), model_inputs=[dict(input_shapes=dict(input=dict(\n"
    "    min_shape=[1, 3, 256, 192], opt_shape=[2, 3, 256, 192], max_shape=[4, 3, 256, 192])))])\n",
    "mmpose/yolox-pose.py": "_base_ = ['./pose-detection_static.py', '../_base_/backends/onnxruntime.py']\n"
    "onnx_config = dict(output_names=['dets', 'keypoints'])\n"
    "codebase_config = dict(post_processing=dict(score_threshold=0.05, iou_threshold=0.5, keep_top_k=100))\n",
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "mmpose"


def test_a_chain_of_bases(configs: Path) -> None:
    read = read_deploy_config(str(configs / "simcc_tensorrt.py"), "mmpose")
    assert (read.target, read.opset, read.precision, read.decode) == ("tensorrt", 11, "fp16", "sdk")
    assert read.inputs["input"].shape == (2, 3, 256, 192)


def test_thresholds_of_a_one_stage_model(configs: Path) -> None:
    read = read_deploy_config(str(configs / "yolox-pose.py"), "mmpose")
    assert read.overrides == {"model.test_cfg.score_thr": 0.05, "model.test_cfg.nms_thr": 0.5}
    assert any("keep_top_k is not understood" in note for note in read.notes)


def test_one_command_as_deploy_py(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config, photo and the SDK's files; these alone give what the bundle gives."""
    monkeypatch.chdir(tmp_path)
    photo = importlib.import_module("skimage.data").astronaut()
    Image.fromarray(photo).save("photo.png")
    config = ["--deploy-config", str(configs / "simcc_onnxruntime.py")]
    model = "mmpose:rtmpose-t_8xb256-420e_coco-256x192"
    assert run(["compile", model, *config, "--input-file", "photo.png", "--dump-info", "-o", "out"]) == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert [one["name"] for one in manifest["outputs"]] == ["simcc_x", "simcc_y"]
    assert manifest["inputs"][0]["shape"] == [1, 3, 256, 192]
    assert manifest["inputs"][0]["dynamic"]["0"]["high"] == 8
    assert manifest["target"]["opset"] == 11
    assert manifest["verification"]["verdict"] == "passed"

    Path("sdk").mkdir()
    for name in ("end2end.onnx", *SDK_FILES):
        shutil.copy(Path("out") / name, "sdk")
    boxes = [[40.0, 20.0, 300.0, 500.0], [120.0, 100.0, 400.0, 480.0]]
    expected, came = (PoseDetector(name)("photo.png", boxes) for name in ("out", "sdk"))
    np.testing.assert_array_equal(came.keypoints, expected.keypoints)
    np.testing.assert_array_equal(came.keypoint_scores, expected.keypoint_scores)


def test_a_file_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "it.py"
    file.write_text("onnx_config = dict(\n    opset_version=1 / 0)\n")
    with pytest.raises(GraphForgeError, match="ZeroDivisionError"):
        read_deploy_config(str(file), "mmpose")
