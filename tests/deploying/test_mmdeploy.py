"""MMDeploy's keys, each with its counterpart or named as not understood (the reading itself: tests/openmmlab)."""

from __future__ import annotations

from typing import Any

import pytest

from graphforge.deploying.mmdeploy import from_mmdeploy
from graphforge.errors import GraphForgeError


def detection(**more: Any) -> dict[str, Any]:
    """A detector for ONNX Runtime, as MMDeploy has it once its bases are read."""
    return {
        "onnx_config": {
            "type": "onnx",
            "export_params": True,
            "keep_initializers_as_inputs": False,
            "opset_version": 11,
            "save_file": "end2end.onnx",
            "input_names": ["input"],
            "output_names": ["dets", "labels"],
            "input_shape": [320, 256],
            "optimize": True,
        },
        "codebase_config": {
            "type": "mmdet",
            "task": "ObjectDetection",
            "model_type": "end2end",
            "post_processing": {
                "score_threshold": 0.05,
                "confidence_threshold": 0.005,
                "iou_threshold": 0.5,
                "max_output_boxes_per_class": 200,
                "pre_top_k": 5000,
                "keep_top_k": 100,
                "background_label_id": -1,
            },
        },
        "backend_config": {"type": "onnxruntime"},
        **more,
    }


def test_every_key_of_a_detector() -> None:
    read = from_mmdeploy(detection(), "d.py", "mmdet")
    assert (read.target, read.opset, read.decode) == ("onnx", 11, "sdk")
    assert read.inputs["input"].shape == (1, 3, 256, 320)  # MMDeploy has the width first
    assert read.dynamic() == {}
    assert read.overrides == {
        "model.test_cfg.score_thr": 0.05,
        "model.test_cfg.nms.iou_threshold": 0.5,
        "model.test_cfg.nms_pre": 5000,
        "model.test_cfg.max_per_img": 100,
    }
    told = "\n".join(read.notes)
    for key in ("confidence_threshold", "max_output_boxes_per_class"):
        assert f"codebase_config.post_processing.{key} is not understood" in told
    assert "takes precedence" in told
    assert "save_file" in told
    assert "optimize" not in told


def test_shapes_of_tensorrt_and_half_precision() -> None:
    shapes = {"min_shape": [1, 3, 256, 192], "opt_shape": [2, 3, 256, 192], "max_shape": [4, 3, 256, 192]}
    data = {
        "onnx_config": {"output_names": ["simcc_x", "simcc_y"], "input_shape": [192, 256]},
        "codebase_config": {"type": "mmpose", "task": "PoseDetection"},
        "backend_config": {
            "type": "tensorrt",
            "common_config": {"fp16_mode": True, "max_workspace_size": 1 << 30},
            "model_inputs": [{"input_shapes": {"input": shapes}}],
        },
    }
    read = from_mmdeploy(data, "d.py", "mmpose")
    assert (read.target, read.precision, read.decode) == ("tensorrt", "fp16", "sdk")
    assert read.inputs["input"].shape == (2, 3, 256, 192)
    assert {axis: (dim.low, dim.high) for axis, dim in read.dynamic()["input"].items()} == {0: (1, 4)}
    assert any("max_workspace_size is not understood: 1073741824" in note for note in read.notes)


def test_sizes_of_pictures_go_by_strides_and_detections_by_one_picture() -> None:
    shapes = {"min_shape": [1, 3, 320, 320], "opt_shape": [1, 3, 800, 1344], "max_shape": [4, 3, 1344, 1344]}
    backend = {"type": "tensorrt", "model_inputs": [{"input_shapes": {"input": shapes}}]}
    read = from_mmdeploy(detection(backend_config=backend), "d.py", "mmdet")
    dims = read.dynamic()["input"]
    assert {axis: (dim.low, dim.high, dim.step) for axis, dim in dims.items()} == {
        2: (320, 1344, 32),
        3: (320, 1344, 32),
    }
    assert any("one picture at a time" in note for note in read.notes)


def test_a_dynamic_batch_without_a_bound() -> None:
    data = {
        "onnx_config": {"output_names": ["simcc_x", "simcc_y"], "dynamic_axes": {"input": {0: "batch"}}},
        "backend_config": {"type": "onnxruntime"},
    }
    read = from_mmdeploy(data, "d.py", "mmpose")
    assert {axis: (dim.low, dim.high) for axis, dim in read.dynamic()["input"].items()} == {0: (1, 8)}
    assert any("1 to 8 are promised" in note for note in read.notes)


def test_decoding_in_the_graph_where_it_is_asked_for() -> None:
    data = {
        "codebase_config": {"type": "mmpose", "export_postprocess": True},
        "onnx_config": {"output_names": ["keypoints", "scores"]},
    }
    assert from_mmdeploy(data, "d.py", "mmpose").decode == "full"


def test_unknown_keys_are_named_wherever_they_stand() -> None:
    data = detection(partition_config={"apply_marks": True}, backend_config={"type": "openvino", "threads": 4})
    data["onnx_config"]["verbose"] = True
    told = "\n".join(from_mmdeploy(data, "d.py", "mmdet").notes)
    for key in ("partition_config", "backend_config.threads", "onnx_config.verbose"):
        assert f"deploy config: {key} is not understood" in told


def test_a_backend_that_is_not_a_target_is_refused() -> None:
    with pytest.raises(GraphForgeError, match="backend 'ncnn', which is not a target here"):
        from_mmdeploy({"backend_config": {"type": "ncnn"}}, "d.py", "mmpose")


def test_a_config_of_another_codebase_is_refused() -> None:
    with pytest.raises(GraphForgeError, match="is for mmdet, and the model is of mmpose"):
        from_mmdeploy(detection(), "d.py", "mmpose")
