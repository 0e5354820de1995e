"""The SDK's files have the fields that MMDeploy's own have, and their pre-processing is read back as it was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphforge
from graphforge.cli.main import run as run_command
from graphforge.errors import GraphForgeError
from graphforge.runtime import Detector, Pipeline, PoseDetector
from graphforge.runtime.preprocess import prepared, steps_of
from graphforge.runtime.sdk import SDK_FILES, check_sdk, read_sdk_file, sdk_files, steps_of_pipeline, write_sdk_files
from scripts.gallery.figures import Figure, picture
from scripts.gallery.one_stage import save_pictures

GALLERY = Path(__file__).resolve().parents[2] / "scripts" / "gallery"
TWO: list[Figure] = [(70, 80, 1.0), (230, 110, 0.9)]

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
    # neither asked for by itself: the checkpoint in the spec, the opset that was delivered
    target = {**manifest()["target"], "opset": None}
    spec = {"spec": "mmpose:rtmpose-t,v.pth"}
    detail = sdk_files(manifest(model=spec, target=target, artifact={"opset": 23}))["detail.json"]
    assert (detail["codebase"]["pth"], detail["onnx_config"]["opset_version"]) == ("v.pth", 23)


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
        (manifest(preprocess=[{"step": "resize", "size": [8, 4], "fit": "inside"}]), "resize with fit 'inside'"),
        (manifest(preprocess=[{"step": "resize", "size": [8, 8], "fit": "cover"}]), "resize with fit 'cover'"),
        (manifest(preprocess=[{"step": "pad", "size": [8, 8], "where": "centre"}]), "pad with where 'centre'"),
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


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (None, "no task that prepares pictures"),
        ({"type": "Normalize", "mean": [0, 0, 0], "std": [1, 1, 1]}, "Normalize: 'to_rgb' is missing"),
        ({"type": "Normalize", "mean": 3, "std": [1, 1, 1], "to_rgb": True}, "Normalize.mean: expected a list"),
        ({"type": "Resize", "keep_ratio": True}, "Resize: 'size' is missing"),
        ({"type": "Resize", "size": 256}, "Resize.size: expected a list"),
        ({"type": "Pad", "size": None}, "'size' or 'size_divisor' is missing"),
        ({"type": "TopDownAffine"}, "'image_size' is missing"),
        ({"type": "TopDownGetBboxCenterScale", "padding": "wide"}, "padding: expected a number"),
    ],
)
def test_a_step_without_what_is_read_of_it_is_told(step: Any, told: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    read = sdk_files(manifest())["pipeline.json"]
    first = read["pipeline"]["tasks"][0]
    first["transforms"] = [step]
    if step is None:
        del first["transforms"]
    file.write_text(json.dumps(read))
    with pytest.raises(GraphForgeError, match=told):
        steps_of_pipeline(file)


def test_one_value_and_no_size_of_a_padding_are_read(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    read = sdk_files(manifest())["pipeline.json"]
    pad = {"type": "Pad", "pad_val": 114, "size": None, "size_divisor": 32}
    read["pipeline"]["tasks"][0]["transforms"][1:3] = [pad]
    file.write_text(json.dumps(read))
    assert {"step": "pad", "divisor": 32, "value": 114} in steps_of_pipeline(file)


# -- a folder that has only the SDK's files ----------------------------------------------------------------------------


def as_sdk_folder(bundle: Path, folder: Path, codebase: str) -> Path:
    """The SDK's files of a bundle alone, as MMDeploy leaves them: no manifest."""
    read = json.loads((bundle / "manifest.json").read_text())
    facts = {**manifest()["openmmlab"], "codebase": codebase}
    shutil.copytree(bundle, folder)
    write_sdk_files(folder, {**read, "openmmlab": facts})
    (folder / "manifest.json").unlink()
    (folder / "model.onnx").unlink()
    return folder


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of a detector and of a pose estimator, and the same as the SDK's files alone."""
    folder = tmp_path_factory.mktemp("sdk")
    whole: list[dict[str, Any]] = [
        {"step": "resize", "size": [160, 96], "fit": "either-way"},
        {"step": "pad", "size": [160, 96]},
        {"step": "normalise", "std": 255},
    ]
    for name, codebase, dynamic, steps in (
        ("detector", "mmdet", None, whole),
        ("pose", "mmpose", "image:0=1..3", GALLERY / "figures_pose.toml"),
    ):
        spec = f"{GALLERY / 'figures.py'}:{name}"
        graphforge.compile(spec, preprocess=steps, dynamic_shapes=dynamic, output=folder / name)
        as_sdk_folder(folder / name, folder / f"sdk-{name}", codebase)
    Image.fromarray(picture(TWO)).save(folder / "two.png")
    return folder


def test_the_files_alone_give_what_the_bundle_gives(sdk: Path) -> None:
    assert sorted(path.name for path in (sdk / "sdk-pose").iterdir()) == sorted(["end2end.onnx", *SDK_FILES])
    pixels = picture(TWO)
    expected = Pipeline(Detector(sdk / "detector"), PoseDetector(sdk / "pose"))(pixels)
    pose = PoseDetector(sdk / "sdk-pose")
    came = Pipeline(Detector(sdk / "sdk-detector"), pose)(pixels)
    assert (len(came), pose.most) == (2, 8)
    np.testing.assert_array_equal(came.boxes, expected.boxes)
    np.testing.assert_array_equal(came.keypoints, expected.keypoints)


def test_verbs_take_the_files_alone(sdk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(sdk / "sdk-detector"), str(sdk / "sdk-pose"), str(sdk / "two.png"), "--json"]
    assert run_command(["pipeline", *both]) == 0
    assert len(json.loads(capsys.readouterr().out)["frames"][0]["poses"]) == 2
    assert run_command(["run", str(sdk / "sdk-detector"), "--input", str(sdk / "two.png"), "--json"]) == 0
    assert "boxes" in capsys.readouterr().out
    save_pictures(sdk, 2)
    data = ["--data", str(sdk / "figures.json"), "--images", str(sdk / "pictures"), "--metric", "bbox", "--json"]
    assert run_command(["evaluate", str(sdk / "sdk-detector"), "--also", str(sdk / "detector"), *data]) == 0
    alone, bundle = json.loads(capsys.readouterr().out)["sides"]
    assert alone["figures"] == bundle["figures"]
    assert alone["figures"]["AP50"] > 0.5


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("deploy.json", {"backend": "tensorrt"}, "only ONNX is run here"),
        ("deploy.json", {"net": "../end2end.onnx"}, "lacks the file '../end2end.onnx'"),
        ("deploy.json", {"net": "other.onnx"}, "lacks the file 'other.onnx'"),
        ("pipeline.json", None, "lacks its pipeline.json"),
        ("end2end.onnx", b"no model", "cannot be loaded"),
    ],
)
def test_files_that_do_not_go_together_are_told(sdk: Path, tmp_path: Path, file: str, change: Any, told: str) -> None:
    folder = Path(shutil.copytree(sdk / "sdk-pose", tmp_path / "it"))
    if change is None:
        (folder / file).unlink()
    elif isinstance(change, bytes):
        (folder / file).write_bytes(change)
    else:
        data = json.loads((folder / file).read_text())
        data["models"][0] |= change
        (folder / file).write_text(json.dumps(data))
    with pytest.raises(GraphForgeError, match=told):
        PoseDetector(folder)
