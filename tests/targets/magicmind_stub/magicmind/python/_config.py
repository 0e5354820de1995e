"""Stand-in: BuilderConfig with the documented keys only.  Nothing was run on an MLU."""

# ruff: noqa: B905 - the stand-in runs on Python 3.7 too, whose zip has no strict
from __future__ import annotations

import json
import os
from typing import Any

from ._types import Status, answer

ARCHS = ("mtp_372", "mtp_592", "tp_322")
PRECISIONS = (
    "force_float32 force_float16 qint8_mixed_float16 qint8_mixed_float32 qint16_mixed_float16 qint16_mixed_float32"
).split()
_LAYOUTS = ({"NCHW", "NHWC"}, {"NCT", "NTC"}, {"NCDHW", "NDHWC"})


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_one_of(*words: str) -> Any:
    return lambda value: isinstance(value, str) and value in words


def _is_archs(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    for entry in value:
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, counts),) = entry.items()
            if not isinstance(counts, list) or not all(type(n) is int and n > 0 for n in counts):
                return False
        else:
            name = entry
        if name not in ARCHS:
            return False
    return True


def _is_ranges(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isdigit()
        and isinstance(given, dict)
        and set(given) == {"min", "max"}
        and all(isinstance(sizes, list) and all(type(size) is int for size in sizes) for sizes in given.values())
        and len(given["min"]) == len(given["max"])
        and all(1 <= low <= high for low, high in zip(given["min"], given["max"]))
        for key, given in value.items()
    )


def _is_layouts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isdigit() and isinstance(pair, dict) and set(pair) == {"src", "dst"} and set(pair.values()) in _LAYOUTS
        for key, pair in value.items()
    )


def _is_normalisation(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isdigit()
        and isinstance(given, dict)
        and set(given) == {"mean", "var"}
        and len(given["mean"]) == len(given["var"]) > 0
        and all(number > 0 for number in given["var"])
        for key, given in value.items()
    )


def _is_folder(value: Any) -> bool:
    return isinstance(value, str) and os.path.isdir(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


SCHEMA: dict[str, Any] = {
    "archs": _is_archs,
    "graph_shape_mutable": _is_bool,
    "dim_range": _is_ranges,
    "precision_config": {
        "precision_mode": _is_one_of(*PRECISIONS),
        "weight_quant_granularity": _is_one_of("per_tensor", "per_axis"),
        "activation_quant_algo": _is_one_of("symmetric", "asymmetric"),
    },
    "opt_config": {
        "type64to32_conversion": _is_bool,
        "conv_scale_fold": _is_bool,
        "clustering_launch_enable": _is_bool,
        "tfu_enable": _is_bool,
        "auto_fusion_enable": _is_bool,
    },
    "computation_preference": _is_one_of("auto", "fast", "high_precision"),
    "compute_determinism": _is_bool,
    "convert_input_layout": _is_layouts,
    "convert_output_layout": _is_layouts,
    "insert_bn_before_firstnode": _is_normalisation,
    "cross_compile_toolchain_path": _is_folder,
    "custom_ranges": _is_object,
    "custom_nodes": _is_object,
    "crop_config": _is_object,
    "debug_config": {"fusion_enable": _is_bool, "print_ir": _is_object},
}


class BuilderConfig:
    """The configuration: JSON parts merged one over the other."""

    __slots__ = ("calibrated_with", "settings")

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.calibrated_with: dict[str, Any] | None = None

    @property
    def mlu_archs(self) -> list[str]:
        """The architectures, as Python samples set them."""
        return [entry if isinstance(entry, str) else next(iter(entry)) for entry in self.settings.get("archs", [])]

    @mlu_archs.setter
    def mlu_archs(self, archs: list[str]) -> None:
        if not _is_archs(archs):
            raise ValueError(f"unknown archs {archs!r}")
        self.settings["archs"] = list(archs)

    def parse_from_string(self, text: str) -> Status:
        """Merge a JSON object over what is set."""
        if not isinstance(text, str):
            raise TypeError(f"parse_from_string takes text, got {type(text).__name__}")
        return answer("parse_from_string", self._merge(text))

    def parse_from_file(self, path: str) -> Status:
        """Merge a JSON file over what is set."""
        if not isinstance(path, str):
            raise TypeError(f"parse_from_file takes a path as text, got {type(path).__name__}")
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            return answer("parse_from_file", str(error))
        return answer("parse_from_file", self._merge(text))

    def get(self, *keys: str, default: Any = None) -> Any:
        """For the stand-in's own use: one setting."""
        value: Any = self.settings
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value

    def _merge(self, text: str) -> str | None:
        try:
            given = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except ValueError as error:
            return f"no strict JSON: {error}"
        if not isinstance(given, dict):
            return "the configuration is no JSON object"
        problem = _problem(given, SCHEMA, "")
        if problem is None:
            _deep_merge(self.settings, given)
        return problem


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _problem(given: dict[str, Any], schema: dict[str, Any], path: str) -> str | None:
    for key, value in given.items():
        if key not in schema:
            return f"unknown key {path}{key}"
        wanted = schema[key]
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                return f"{path}{key} is no object"
            problem = _problem(value, wanted, f"{path}{key}.")
            if problem is not None:
                return problem
        elif not wanted(value):
            return f"{path}{key} cannot be {json.dumps(value)}"
    return None


def _deep_merge(into: dict[str, Any], given: dict[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _deep_merge(into[key], value)
        else:
            into[key] = value
