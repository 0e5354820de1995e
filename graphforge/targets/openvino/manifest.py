"""openvino.json, the sidecar of the model: how it was verified, and the names of what goes in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphforge.doors import inside
from graphforge.errors import GraphForgeError
from graphforge.schema import FILE, TEXT, Record, Several, one_of, read_json

__all__ = ["HINTS", "SIDECAR", "config_of", "read_sidecar", "write_sidecar"]

SIDECAR = "openvino.json"
HINTS = ("f32", "bf16", "f16")

_SCHEMA = Record(
    {
        "model": Record({"file": FILE}),
        "hint": one_of(f"one of {', '.join(HINTS)}", lambda data: data in HINTS),
        "inputs": Several(TEXT),
        "outputs": Several(TEXT),
    }
)


def config_of(hint: str) -> dict[str, str]:
    """The properties that OpenVINO compiles with, so that it computes as it was verified."""
    if hint == "f32":
        # no activations quantized behind the user's back either
        return {"INFERENCE_PRECISION_HINT": hint, "EXECUTION_MODE_HINT": "ACCURACY"}
    return {"INFERENCE_PRECISION_HINT": hint}


def write_sidecar(folder: Path, content: Mapping[str, Any]) -> str:
    """Write it into the folder; returns the file's name."""
    (folder / SIDECAR).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return SIDECAR


def read_sidecar(folder: Path) -> dict[str, Any]:
    """What ``write_sidecar`` wrote, checked.

    Raises:
        GraphForgeError: the file is damaged.
    """
    path = inside(folder, SIDECAR)
    content: dict[str, Any] = read_json(path, "a description of an OpenVINO model", "compile the model again")
    bad = _SCHEMA.fault(content, "")
    if bad:
        raise GraphForgeError(
            f"{str(path)!r} is not a description of an OpenVINO model: {bad}", "compile the model again"
        )
    file = inside(folder, content["model"]["file"])
    inside(folder, file.with_suffix(".bin").relative_to(folder).as_posix())  # named by no one, read all the same
    return content
