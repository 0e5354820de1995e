"""MMDeploy's Python configs with their `_base_` chains, read by mmengine and asked of a compilation."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphforge
from graphforge.deploying import read_deploy_config
from graphforge.errors import GraphForgeError

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


def test_what_a_config_asks_for_is_compiled(configs: Path, tmp_path: Path) -> None:
    read = read_deploy_config(str(configs / "simcc_onnxruntime.py"), "mmpose")
    loaded = graphforge.load_model("mmpose:rtmpose-t_8xb256-420e_coco-256x192", **read.loading())
    bundle = graphforge.compile(loaded, output=tmp_path / "out", **read.arguments())
    assert [one["name"] for one in bundle.manifest["outputs"]] == ["simcc_x", "simcc_y"]
    assert bundle.manifest["inputs"][0]["dynamic"]["0"]["high"] == 8
    assert bundle.manifest["target"]["opset"] == 11
    assert bundle.manifest["verification"]["verdict"] == "passed"


def test_a_file_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "it.py"
    file.write_text("onnx_config = dict(\n    opset_version=1 / 0)\n")
    with pytest.raises(GraphForgeError, match="ZeroDivisionError"):
        read_deploy_config(str(file), "mmpose")
