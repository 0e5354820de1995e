"""MMDeploy's SDK files: ``deploy.json``, ``pipeline.json`` and ``detail.json``, written from a manifest and read back.

The SDK knows its own steps of pre-processing and, for each task, one component that turns the network's outputs into
results.  A step or model that it has no word for is refused by name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError, argument
from graphforge.schema import ANYTHING, COUNT, FLAG, NUMBER, SIZE, TEXT, Either, Named, Record, Several, read_json

__all__ = [
    "SDK_FILES",
    "check_sdk",
    "codec_of_pipeline",
    "read_sdk_file",
    "sdk_files",
    "steps_of_pipeline",
    "write_sdk_files",
]

SDK_FILES = ("deploy.json", "pipeline.json", "detail.json")
_VERSION = "1.3.1"  # the release of MMDeploy whose fields these are

_BACKENDS = {"onnx": "onnxruntime", "tensorrt": "tensorrt", "openvino": "openvino"}
_NETS = {".onnx": "end2end.onnx", ".plan": "end2end.engine"}
# codebase -> the SDK's class and MMDeploy's word for the task
_TASKS = {"mmpose": ("PoseDetector", "PoseDetection"), "mmdet": ("Detector", "ObjectDetection")}
# what decodes the outputs of a codec
_DECODERS = {
    "SimCCLabel": "SimCCLabelDecode",
    "MSRAHeatmap": "TopdownHeatmapSimpleHeadDecode",
    "UDPHeatmap": "TopdownHeatmapSimpleHeadDecode",
    "MegviiHeatmap": "TopdownHeatmapSimpleHeadDecode",
    "RegressionLabel": "DeepposeRegressionHeadDecode",
}
_META = ("ori_shape", "img_shape", "pad_shape", "scale_factor", "img_norm_cfg", "flip", "valid_ratio")

_DEPLOY = Record(
    {
        "version": TEXT,
        "task": TEXT,
        "models": Several(
            Record(
                {
                    "name": TEXT,
                    "net": TEXT,
                    "weights": TEXT,
                    "backend": TEXT,
                    "precision": TEXT,
                    "batch_size": COUNT,
                    "dynamic_shape": FLAG,
                }
            )
        ),
        "customs": Several(TEXT),
    }
)
_TASK = Record(
    {"type": TEXT, "module": TEXT, "name": TEXT, "input": Several(TEXT), "output": Several(TEXT)},
    {
        "transforms": Several(Record({"type": TEXT})),
        "is_batched": FLAG,
        "input_map": Named(TEXT),
        "output_map": Named(TEXT),
        "component": TEXT,
        "params": Named(ANYTHING),
    },
)
_PIPELINE = Record({"pipeline": Record({"input": Several(TEXT), "output": Several(TEXT), "tasks": Several(_TASK)})})
_DETAIL = Record(
    {
        "version": TEXT,
        "codebase": Named(ANYTHING),
        "codebase_config": Named(ANYTHING),
        "onnx_config": Named(ANYTHING),
        "backend_config": Named(ANYTHING),
        "calib_config": Named(ANYTHING),
    }
)
# What is read of the SDK's steps.
_STEPS = {
    "TopDownGetBboxCenterScale": Record({}, {"padding": NUMBER}),
    "TopDownAffine": Record({"image_size": Several(SIZE)}, {"use_udp": FLAG}),
    "Resize": Record({"size": Several(SIZE)}, {"keep_ratio": FLAG}),
    "Pad": Record({}, {"size": Either(Several(SIZE)), "size_divisor": Either(SIZE)}),
    "Normalize": Record({"mean": Several(NUMBER), "std": Several(NUMBER), "to_rgb": FLAG}),
}
_DESCRIBED = dict(zip(SDK_FILES, (_DEPLOY, _PIPELINE, _DETAIL), strict=True))


def sdk_files(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The three files as plain data.

    Raises:
        GraphForgeError: the bundle is not of a model, target or decoding that the SDK knows.
    """
    check_sdk(manifest)
    facts = manifest["openmmlab"]
    task, word = _TASKS[facts["codebase"]]
    name = str(facts["model"]).lower()
    dynamic = any(one["dynamic"] for one in manifest["inputs"])
    precision = "FP16" if "16" in str(manifest["target"].get("precision") or "") else "FP32"
    net = {
        "name": name,
        "net": _net(manifest),
        "weights": "",
        "backend": _BACKENDS[manifest["target"]["name"]],
        "precision": precision,
        "batch_size": 1,
        "dynamic_shape": dynamic,
    }
    axes = {one["name"]: {axis: f"dim_{axis}" for axis in one["dynamic"]} for one in manifest["inputs"]}
    return {
        "deploy.json": {"version": _VERSION, "task": task, "models": [net], "customs": []},
        "pipeline.json": {
            "pipeline": {
                "input": ["img"],
                "output": ["post_output"],
                "tasks": [
                    {
                        "type": "Task",
                        "module": "Transform",
                        "name": "Preprocess",
                        "input": ["img"],
                        "output": ["prep_output"],
                        "transforms": _transforms(manifest["preprocess"]),
                    },
                    {
                        "type": "Task",
                        "module": "Net",
                        "name": name,
                        "is_batched": "0" in manifest["inputs"][0]["dynamic"],
                        "input": ["prep_output"],
                        "output": ["infer_output"],
                        "input_map": {"img": manifest["inputs"][0]["name"]},
                        "output_map": {},
                    },
                    {
                        "type": "Task",
                        "module": facts["codebase"],
                        "name": "postprocess",
                        "component": _component(facts),
                        "params": _params(facts),
                        "input": ["prep_output", "infer_output"],
                        "output": ["post_output"],
                    },
                ],
            }
        },
        "detail.json": {
            "version": _VERSION,
            "codebase": {
                "task": word,
                "codebase": facts["codebase"],
                "version": facts["versions"].get(facts["codebase"], ""),
                "pth": _checkpoint(manifest["model"]),
                "config": facts["config"],
            },
            "codebase_config": {"type": facts["codebase"], "task": word, "model_type": "end2end"},
            "onnx_config": {
                "type": "onnx",
                "export_params": True,
                "keep_initializers_as_inputs": False,
                "opset_version": manifest["target"].get("opset") or manifest.get("artifact", {}).get("opset"),
                "save_file": _net(manifest),
                "input_names": [one["name"] for one in manifest["inputs"]],
                "output_names": [one["name"] for one in manifest["outputs"]],
                "dynamic_axes": {name: one for name, one in axes.items() if one} or None,
            },
            "backend_config": {"type": _BACKENDS[manifest["target"]["name"]]},
            "calib_config": {},
        },
    }


def check_sdk(manifest: Mapping[str, Any]) -> None:
    """See that the SDK has a word for what a bundle contains.

    Raises:
        GraphForgeError: it has not; says for what.
    """
    facts = manifest.get("openmmlab")
    if not facts or facts["codebase"] not in _TASKS:
        raise GraphForgeError(
            "files for MMDeploy's SDK are made of models given as mmpose:CONFIG or mmdet:CONFIG only",
            f"leave {argument('dump_info', True)} out",
        )
    if facts["decode"] != "sdk":
        raise GraphForgeError(
            f"the model was compiled with {argument('decode', facts['decode'])}, and the SDK decodes by itself",
            f"compile it with {argument('decode', 'sdk')}",
        )
    if manifest["target"]["name"] not in _BACKENDS:
        raise GraphForgeError(
            f"MMDeploy's SDK knows no target {manifest['target']['name']!r}", f"it knows: {', '.join(_BACKENDS)}"
        )
    if "preprocess" not in manifest:
        raise GraphForgeError("the bundle has no pre-processing, which pipeline.json is to contain")
    _component(facts)
    _transforms(manifest["preprocess"])


def write_sdk_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Write the three files into a bundle, with the artifact under the name that they know; returns their names.

    Raises:
        GraphForgeError: as ``sdk_files``, or they cannot be written.
    """
    files = sdk_files(manifest)
    net = _net(manifest)
    try:
        (folder / net).unlink(missing_ok=True)
        try:
            os.link(folder / manifest["files"][0], folder / net)  # one file under two names
        except OSError:  # a file system without links
            shutil.copy2(folder / manifest["files"][0], folder / net)
        for name, content in files.items():
            aside = folder / f".{name}.new"
            aside.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
            os.replace(aside, folder / name)
    except OSError as error:
        raise GraphForgeError(f"cannot write the SDK's files into {str(folder)!r}: {error.strerror}") from None
    return [net, *files]


def read_sdk_file(path: Path) -> dict[str, Any]:
    """One of the three files, held against its fields.

    Raises:
        GraphForgeError: it cannot be read, or a field is missing or wrong.
    """
    data = read_json(path, f"the {path.name} of MMDeploy's SDK", f"{argument('dump_info', True)} writes one")
    bad = _DESCRIBED[path.name].fault(data, "")
    if bad:
        raise GraphForgeError(f"{str(path)!r}: {bad}")
    return dict(data)


def steps_of_pipeline(path: Path) -> list[dict[str, Any]]:
    """The pre-processing of a ``pipeline.json`` as the steps of a bundle, in plain data.

    Raises:
        GraphForgeError: it cannot be read, or has a step that is not known here, or lacks what is read of it.
    """
    tasks = read_sdk_file(path)["pipeline"]["tasks"]
    transforms = next((one.get("transforms") for one in tasks if one["module"] == "Transform"), None)
    if transforms is None:
        raise GraphForgeError(f"{str(path)!r} has no task that prepares pictures")
    steps: list[dict[str, Any]] = []
    padding, turned = 1.25, False
    for one in transforms:
        kind = one["type"]
        bad = _STEPS[kind].fault(one, kind) if kind in _STEPS else ""
        if bad:
            raise GraphForgeError(f"{str(path)!r}: {bad}")
        if kind == "TopDownGetBboxCenterScale":
            padding = float(one.get("padding", 1.25))
        elif kind == "TopDownAffine":
            udp = bool(one.get("use_udp", False))
            steps.append({"step": "crop-box", "size": one["image_size"], "padding": padding, "udp": udp})
        elif kind == "Resize":
            size = one["size"][::-1]
            steps.append({"step": "resize", "size": size, "fit": "either-way" if one.get("keep_ratio") else "stretch"})
        elif kind == "Pad":
            value = one.get("pad_val", 0)
            value = value.get("img", 0) if isinstance(value, dict) else value
            if not one.get("size") and not one.get("size_divisor"):
                raise GraphForgeError(f"{str(path)!r}: Pad: 'size' or 'size_divisor' is missing")
            wanted = {"size": one["size"][::-1]} if one.get("size") else {"divisor": one["size_divisor"]}
            steps.append({"step": "pad", **wanted, "value": value})
        elif kind == "Normalize":
            turned = bool(one["to_rgb"])
            if any(one["mean"]) or any(value != 1 for value in one["std"]):
                steps.append({"step": "normalise", "mean": one["mean"], "std": one["std"]})
        elif kind not in ("LoadImageFromFile", "ImageToTensor", "DefaultFormatBundle", "Collect"):
            raise GraphForgeError(f"{str(path)!r}: step {kind!r} is not known here")
    return steps if turned else [{"step": "colour", "order": "bgr"}, *steps]


def _checkpoint(model: Mapping[str, Any]) -> str:
    """Given by itself, or behind the config in the model's spec."""
    return str(model.get("checkpoint") or str(model.get("spec") or "").partition(",")[2])


def codec_of_pipeline(path: Path) -> dict[str, Any]:
    """What a ``pipeline.json`` says of decoding: the parameters of its last task; empty for a detector.

    Raises:
        GraphForgeError: it cannot be read.
    """
    tasks = read_sdk_file(path)["pipeline"]["tasks"]
    parameters: dict[str, Any] = next((one.get("params", {}) for one in tasks if one["name"] == "postprocess"), {})
    return parameters


def _net(manifest: Mapping[str, Any]) -> str:
    first = Path(manifest["files"][0])
    return _NETS.get(first.suffix, f"end2end{first.suffix}")


def _component(facts: Mapping[str, Any]) -> str:
    if facts["codebase"] == "mmdet":
        return "ResizeBBox"
    codec = str((facts.get("codec") or {}).get("type", ""))
    if codec not in _DECODERS:
        raise GraphForgeError(
            f"MMDeploy's SDK has no component for {facts['model']} with codec {codec or 'none'}",
            f"it has some for: {', '.join(_DECODERS)}",
        )
    return _DECODERS[codec]


def _params(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {**(facts.get("test_cfg") or {}), **(facts.get("codec") or {})}


def _transforms(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps in the SDK's words, which reads pictures blue first and turns them round as it normalises."""
    turned = not any(one["step"] == "colour" and one["order"] == "bgr" for one in steps)
    known: dict[str, Callable[[Mapping[str, Any]], list[dict[str, Any]]]] = {
        "crop-box": lambda one: [
            {"type": "TopDownGetBboxCenterScale", "padding": one["padding"], "image_size": one["size"]},
            {"type": "TopDownAffine", "image_size": one["size"], "use_udp": one["udp"]},
        ],
        "resize": lambda one: [
            {"type": "Resize", "size": one["size"][::-1], "keep_ratio": one["fit"] in ("either-way", "inside")}
        ],
        "pad": lambda one: [
            {
                "type": "Pad",
                "pad_val": {"img": one["value"]},
                **({"size": one["size"][::-1]} if one.get("size") else {"size_divisor": one.get("divisor")}),
            }
        ],
        "normalise": lambda one: [
            {"type": "Normalize", "mean": _three(one["mean"]), "std": _three(one["std"]), "to_rgb": turned}
        ],
    }
    transforms: list[dict[str, Any]] = [{"type": "LoadImageFromFile"}]
    for one in steps:
        _see_that_sayable(one)
        if one["step"] in known:
            transforms += known[one["step"]](one)
        elif one["step"] not in ("colour", "layout", "dtype"):
            raise GraphForgeError(f"MMDeploy's SDK has no word for the step {one['step']!r}")
    if not any(one["type"] == "Normalize" for one in transforms):
        transforms.append({"type": "Normalize", "mean": [0.0] * 3, "std": [1.0] * 3, "to_rgb": turned})
    return [
        *transforms,
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"], "meta_keys": list(_META)},
    ]


def _three(numbers: Any) -> list[float]:
    """A number for each channel."""
    return [float(one) for one in numbers] if isinstance(numbers, list | tuple) else [float(numbers)] * 3


def _see_that_sayable(step: Mapping[str, Any]) -> None:
    """See that a step is done in the one way that the SDK's step of that kind has."""
    # the longer side goes by the longer one there: the same as `inside` where both are as long
    inside = step.get("fit") == "inside" and len(set(step.get("size") or ())) > 1
    ways = {
        "resize": {"fit": inside or step.get("fit") == "cover", "filter": step.get("filter", "bilinear") != "bilinear"},
        "pad": {"where": step.get("where", "corner") != "corner"},
        "colour": {"order": step.get("order") == "grey"},
    }
    strange = next((key for key, other in ways.get(str(step["step"]), {}).items() if other), None)
    if strange is not None:
        raise GraphForgeError(
            f"MMDeploy's SDK has no word for the step {step['step']} with {strange} {step[strange]!r}"
        )
