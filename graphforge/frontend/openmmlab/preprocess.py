"""A config's test pipeline and data preprocessor as the steps of `graphforge.runtime.preprocess`, in plain data.

OpenMMLab reads a picture blue first and turns it round where the data preprocessor says so; here a picture begins red
first.  A step of the pipeline that has no counterpart is named, and then the bundle has no pre-processing at all: half
of it would give plausible, wrong results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphforge.frontend.openmmlab.configs import pipeline_of

__all__ = ["Unknown", "steps_of_config"]

# They read files or annotations, or pack results: nothing becomes of pixels.
_NO_PIXELS = (
    "LoadImage",
    "LoadImageFromFile",
    "LoadAnnotations",
    "PackPoseInputs",
    "PackDetInputs",
    "PackInputs",
    "PackSegInputs",
)

Step = dict[str, Any]


class Unknown(Exception):
    """A step, or a way of doing one, that cannot be told in the bundle's steps."""


def steps_of_config(config: Any) -> list[Step]:
    """The steps, in order.

    Raises:
        Unknown: with what has no counterpart.
    """
    preprocessor = config.model.get("data_preprocessor") or config.get("data_preprocessor") or {}
    pipeline = pipeline_of(config)
    if not pipeline:
        raise Unknown("the config has no test pipeline")
    turned = bool(preprocessor.get("bgr_to_rgb") or preprocessor.get("rgb_to_bgr"))
    steps: list[Step] = [] if turned else [{"step": "colour", "order": "bgr"}]
    padding = 1.25
    for given in pipeline:
        name = str(given.get("type", "")).rpartition(".")[2]
        if name in ("LoadImage", "LoadImageFromFile"):
            _see_that_plain(name, given, {"color_type": ("color",), "imdecode_backend": ("cv2",)})
        elif name == "GetBBoxCenterScale":
            padding = float(given.get("padding", 1.25))
        elif name == "TopdownAffine":
            steps.append(
                {
                    "step": "crop-box",
                    "size": _size(given["input_size"]),
                    "padding": padding,
                    "udp": bool(given.get("use_udp", False)),
                }
            )
        elif name == "BottomupResize":
            _see_that_plain(name, given, {"resize_mode": ("fit",), "use_udp": (False,), "aug_scales": (None,)})
            steps.append(
                {
                    "step": "letterbox",
                    "size": _size(given["input_size"]),
                    "value": _value(given.get("pad_val", 0), turned),
                }
            )
        elif name == "Resize":
            steps.append(_resize(given))
        elif name == "Pad":
            steps.append(_pad(given, steps, turned))
        elif name not in _NO_PIXELS:
            raise Unknown(f"step {name!r} of the test pipeline is not known")
    # MMDetection's heads cut boxes to img_shape, which leaves out what its preprocessor fills in
    cut = "DetDataPreprocessor" in str(preprocessor.get("type")) and not any(one["step"] == "pad" for one in steps)
    return [*steps, *_of_preprocessor(preprocessor, cut)]


def _resize(given: Mapping[str, Any]) -> Step:
    _see_that_plain(
        "Resize", given, {"interpolation": ("bilinear",), "backend": ("cv2",), "scale_factor": (None, 1, 1.0)}
    )
    scale = given.get("scale")
    if scale is None:
        raise Unknown("step 'Resize' of the test pipeline without 'scale'")
    return {
        "step": "resize",
        "size": _size(scale),
        "fit": "either-way" if given.get("keep_ratio", False) else "stretch",
    }


def _pad(given: Mapping[str, Any], before: Sequence[Step], turned: bool) -> Step:
    _see_that_plain("Pad", given, {"padding_mode": ("constant",)})
    value = given.get("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, Mapping) else value
    step: Step = {"step": "pad", "value": _value(value, turned)}
    if given.get("pad_to_square"):
        size = next((one["size"] for one in before if one["step"] == "resize"), None)
        if size is None or size[0] != size[1]:
            raise Unknown("step 'Pad' to a square behind a resize that is not to one")
        return {**step, "size": size}
    if given.get("size") is not None:
        return {**step, "size": _size(given["size"])}
    if given.get("size_divisor") is not None:
        return {**step, "divisor": int(given["size_divisor"])}
    raise Unknown("step 'Pad' of the test pipeline without a size")


def _of_preprocessor(given: Mapping[str, Any], cut: bool) -> list[Step]:
    steps: list[Step] = []
    if given.get("mean") is not None:
        steps.append({"step": "normalise", "mean": _numbers(given["mean"]), "std": _numbers(given.get("std", 1))})
    divisor = int(given.get("pad_size_divisor", 1) or 1)
    if divisor > 1:
        steps.append({"step": "pad", "divisor": divisor, "value": float(given.get("pad_value", 0)), "cut": cut})
    return steps


def _see_that_plain(name: str, given: Mapping[str, Any], known: Mapping[str, Sequence[Any]]) -> None:
    for key, values in known.items():
        if given.get(key, values[0]) not in values:
            raise Unknown(f"step {name!r} of the test pipeline with {key}={given[key]!r} is not known")


def _size(value: Any) -> list[int]:
    width, height = (value, value) if isinstance(value, int) else value
    return [int(width), int(height)]


def _value(value: Any, turned: bool) -> Any:
    """What is filled in, in the order of channels that the picture then has here: OpenMMLab still has blue first."""
    numbers = _numbers(value)
    return numbers[::-1] if turned and isinstance(numbers, list) else numbers


def _numbers(value: Any) -> Any:
    return [float(one) for one in value] if isinstance(value, list | tuple) else float(value)
