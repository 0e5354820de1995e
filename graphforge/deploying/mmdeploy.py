"""MMDeploy's deploy configs read as they are: each key has a counterpart here, or is named as not understood.

They are Python, and mmengine's reader reads them: it runs the file and every file of its ``_base_``, which is what it
does with a model's config, too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphforge.deploying.config import DeployConfig, InputRange
from graphforge.errors import GraphForgeError, argument
from graphforge.user_code import user_error

__all__ = ["from_mmdeploy", "read_mmdeploy"]

# MMDeploy's backend -> our target
_TARGETS = {"onnxruntime": "onnx", "tensorrt": "tensorrt", "openvino": "openvino"}
_BATCHES = 8  # what is promised where the batch is dynamic and nothing says how large it may be

# MMDeploy's word of post_processing -> key of the model's config, by codebase
_THRESHOLDS: dict[str, dict[str, str]] = {
    "mmdet": {
        "score_threshold": "model.test_cfg.score_thr",
        "iou_threshold": "model.test_cfg.nms.iou_threshold",
        "pre_top_k": "model.test_cfg.nms_pre",
        "keep_top_k": "model.test_cfg.max_per_img",
    },
    "mmpose": {
        "score_threshold": "model.test_cfg.score_thr",
        "iou_threshold": "model.test_cfg.nms_thr",
        "pre_top_k": "model.test_cfg.nms_pre",
    },
}


def read_mmdeploy(path: Path, codebase: str = "") -> DeployConfig:
    """Read one of MMDeploy's files.

    Args:
        path: the file.
        codebase: the package of the model.

    Raises:
        GraphForgeError: mmengine is missing, or the file cannot be read or asks for what cannot be had.
    """
    if not path.is_file():
        raise GraphForgeError(f"deploy config {str(path)!r} does not exist")
    if importlib.util.find_spec("mmengine") is None:
        raise GraphForgeError(
            f"deploy config {str(path)!r} is MMDeploy's, which mmengine reads, and mmengine is not installed",
            "scripts/openmmlab.sh makes an environment that has it, .venv-openmmlab; or write the config as TOML",
        )
    from mmengine.config import Config

    try:
        read = Config.fromfile(str(path))
    except Exception as error:  # a config is code of the user's
        raise user_error(f"reading deploy config {str(path)!r} failed", error) from error
    return from_mmdeploy(read.to_dict(), str(path), codebase)


@dataclass(slots=True)
class _Asked:
    """What was found so far."""

    codebase: str
    fields: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None  # width and height, as MMDeploy has it
    axes: dict[str, list[int]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    detects: bool = False
    inputs: dict[str, InputRange] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def strange(self, key: str, value: Any) -> None:
        shown = repr(value)
        self.notes.append(f"{key} is not understood: {shown[:60]}{'...' if len(shown) > 60 else ''}")


def from_mmdeploy(data: Mapping[str, Any], source: str, codebase: str = "") -> DeployConfig:
    """Translate a config that was read.

    Raises:
        GraphForgeError: it asks for a backend that is not a target here, or is for another codebase.
    """
    asked = _Asked(codebase)
    sections: dict[str, Callable[[_Asked, Mapping[str, Any]], None]] = {
        "onnx_config": _onnx,
        "ir_config": _onnx,
        "codebase_config": _codebase,
        "backend_config": _backend,
    }
    # the codebase says what the rest means
    for key in sorted(data, key=lambda one: one != "codebase_config"):
        value = data[key]
        if key in sections and isinstance(value, Mapping):
            sections[key](asked, value)
        elif not key.startswith("_"):
            asked.strange(key, value)
    _settle_inputs(asked)
    notes = tuple(f"deploy config: {note}" for note in asked.notes)
    return DeployConfig(source, inputs=asked.inputs, overrides=asked.overrides, notes=notes, **asked.fields)


def _onnx(asked: _Asked, section: Mapping[str, Any]) -> None:
    for key, value in section.items():
        place = f"onnx_config.{key}"
        if key == "opset_version":
            asked.fields["opset"] = int(value)
        elif key == "input_shape":
            asked.size = None if value is None else (int(value[0]), int(value[1]))
        elif key == "dynamic_axes":
            asked.axes = {str(name): sorted(int(axis) for axis in axes) for name, axes in (value or {}).items()}
        elif key == "output_names":
            names = [str(name) for name in value]
            asked.detects = "dets" in names
            bare = {"simcc_x", "simcc_y", "output", "heatmap"} & set(names)
            asked.fields["decode"] = asked.fields.get("decode") or ("sdk" if bare or "dets" in names else "full")
        elif key == "input_names":
            asked.names = [str(name) for name in value]
            if asked.names != ["input"]:
                asked.notes.append(f"{place} is {value!r}, and the model's input is called 'input' all the same")
        elif (key, value) in (
            ("type", "onnx"),
            ("export_params", True),
            ("keep_initializers_as_inputs", False),
            ("optimize", True),
        ):
            pass  # as it is here anyway
        elif key == "save_file":
            asked.notes.append(f"{place} {value!r} is the name beside the SDK's files; the bundle has model.onnx")
        else:
            asked.strange(place, value)


def _codebase(asked: _Asked, section: Mapping[str, Any]) -> None:
    kind = section.get("type")
    if kind and asked.codebase and kind != asked.codebase:
        raise GraphForgeError(
            f"the deploy config is for {kind}, and the model is of {asked.codebase}",
            "MMDeploy keeps one folder of configs for each",
        )
    asked.codebase = asked.codebase or str(kind or "")
    for key, value in section.items():
        place = f"codebase_config.{key}"
        if key in ("type", "task") or (key, value) == ("model_type", "end2end"):
            continue
        if key == "export_postprocess":
            asked.fields["decode"] = "full" if value else "sdk"
        elif key == "post_processing" and isinstance(value, Mapping):
            _post_processing(asked, value)
        else:
            asked.strange(place, value)


def _post_processing(asked: _Asked, section: Mapping[str, Any]) -> None:
    known = _THRESHOLDS.get(asked.codebase, {})
    for key, value in section.items():
        place = f"codebase_config.post_processing.{key}"
        if key in known:
            asked.overrides[known[key]] = value
        elif (key, value) == ("background_label_id", -1):
            continue
        else:
            asked.strange(place, value)
    if set(section) & set(known):
        asked.notes.append("post_processing takes precedence over the model's test_cfg, which it does not in MMDeploy")


def _backend(asked: _Asked, section: Mapping[str, Any]) -> None:
    kind = str(section.get("type", ""))
    if kind not in _TARGETS:
        raise GraphForgeError(
            f"the deploy config is for backend {kind!r}, which is not a target here",
            f"those that are: {', '.join(_TARGETS)}",
            f"another target for the rest of the config: {argument('target', 'NAME')} beside a TOML file of your own",
        )
    asked.fields["target"] = _TARGETS[kind]
    for key, value in section.items():
        place = f"backend_config.{key}"
        if key == "type":
            continue
        if key == "precision":
            _precision(asked, place, value)
        elif key == "common_config" and isinstance(value, Mapping):
            _common(asked, value)
        elif key == "model_inputs":
            _model_inputs(asked, value)
        else:
            asked.strange(place, value)


def _precision(asked: _Asked, place: str, value: Any) -> None:
    if value in ("fp16", "int8"):
        asked.fields["precision"] = value
    elif value not in (None, "fp32"):
        asked.strange(place, value)


def _common(asked: _Asked, section: Mapping[str, Any]) -> None:
    if section.get("int8_mode"):
        asked.fields["precision"] = "int8"
    elif section.get("fp16_mode"):
        asked.fields["precision"] = "fp16"
    for key, value in section.items():
        if key == "keep_io_types":
            asked.fields["options"] = {**asked.fields.get("options", {}), "keep_io": str(bool(value)).lower()}
        elif key not in ("int8_mode", "fp16_mode"):
            asked.strange(f"backend_config.common_config.{key}", value)


def _model_inputs(asked: _Asked, inputs: Any) -> None:
    for at, one in enumerate(inputs if isinstance(inputs, list | tuple) else [inputs]):
        for key, value in one.items():
            if key == "input_shapes" and at == 0:
                for shapes in value.values():
                    low, best, high = (tuple(shapes[f"{word}_shape"]) for word in ("min", "opt", "max"))
                    asked.inputs["input"] = InputRange(best, low, high, _steps(low, high))
            elif key == "opt_shapes" and at == 0 and isinstance(value, Mapping):  # OpenVINO's way of a fixed size
                for shape in value.values():
                    asked.inputs["input"] = InputRange(tuple(shape))
            else:
                asked.strange(f"backend_config.model_inputs[{at}].{key}", value)


def _steps(low: tuple[int, ...], high: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of pictures that vary do so by 32, which the strides of detectors divide, where their bounds do."""
    return tuple(
        32 if axis >= 2 and least != most and least % 32 == most % 32 == 0 else 1
        for axis, (least, most) in enumerate(zip(low, high, strict=True))
    )


def _settle_inputs(asked: _Asked) -> None:
    """Sizes from ``input_shape`` and ``dynamic_axes``, where the backend gives none."""
    axes = next(iter([asked.axes[name] for name in asked.names if name in asked.axes] or [asked.axes.get("input", [])]))
    if asked.inputs:
        given = asked.inputs["input"]
        if asked.detects and given.low[:1] != given.high[:1]:
            asked.notes.append("the backend's shapes vary the batch, and detections are of one picture at a time here")
            shape, low, high = ((1, *sizes[1:]) for sizes in (given.shape, given.low, given.high))
            asked.inputs["input"] = InputRange(shape, low, high, given.step)
        return
    sides = [axis for axis in axes if axis >= 2]
    if sides:
        asked.notes.append(
            f"dynamic_axes {sides} of the picture have no bounds in an ONNX config, so they stay fixed; promise sizes: "
            f"{argument('dynamic_shapes', 'input:2=320..640/32,3=320..640/32')}"
        )
    batches = _BATCHES if 0 in axes else 0
    if batches and asked.detects:
        asked.notes.append("dynamic_axes has the batch, and detections are of one picture at a time here: it stays 1")
        batches = 0
    elif batches:
        asked.notes.append(f"dynamic_axes has the batch without a bound: 1 to {batches} are promised")
    if asked.size is not None:
        width, height = asked.size
        shape = (1, 3, height, width)
        asked.inputs["input"] = InputRange(shape, shape, (batches, *shape[1:]) if batches else shape)
    asked.fields["batches"] = batches
