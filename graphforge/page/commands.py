"""The commands that do it again, from what a manifest records: compile, and where it goes wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["commands_of"]

_OF_EVERY_TARGET = ("opset", "precision", "outputs", "nms")
# What a lower precision is decided by; only `compile` takes it.
_OPTIONS_OF_THEIR_OWN = ("calibration", "max_drop", "metric")


def commands_of(manifest: Mapping[str, Any], folder: Path | None) -> list[tuple[str, str]]:
    """What each does, and the command line; none for a model that was in memory only."""
    model = manifest.get("model", {})
    if not model.get("spec"):
        return []
    what = [str(model["spec"]), *_inputs(manifest)]
    if model.get("kwargs"):
        what += ["--kwargs", json.dumps(model["kwargs"])]
    checkpoint = model.get("checkpoint")
    if checkpoint:
        what += ["--checkpoint", str(checkpoint.get("path", "") if isinstance(checkpoint, dict) else checkpoint)]
    target = manifest.get("target", {})
    asked = ["--target", str(target["name"])] if target.get("name", "onnx") != "onnx" else []
    settings = {**target.get("options", {}), **{name: target.get(name) for name in _OF_EVERY_TARGET}}
    for name in target.get("asked", _OF_EVERY_TARGET):  # what is not asked for is the target's own choice
        if settings.get(name) is None:
            continue
        if name in _OPTIONS_OF_THEIR_OWN:
            continue
        if name in _OF_EVERY_TARGET:
            asked += [f"--{name.replace('_', '-')}", str(settings[name])]
        else:
            value = settings[name]
            asked += ["--option", f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"]
    data = _decided_by(target, settings)
    for name in dict.fromkeys(str(one.get("source", "")) for one in manifest.get("passes", ())):
        if name.endswith(".py"):
            asked += ["--pass", name]
    own = asked[asked.index("--pass") :] if "--pass" in asked else []
    kept = ["--keep-unverified"] if manifest.get("verification", {}).get("passed") is False else []
    where = str(folder) if folder is not None else "BUNDLE"
    file = next((name for name in manifest.get("files", ()) if name.endswith(".onnx")), "model.onnx")
    return [
        ("compile it again", shlex.join(["graphforge", "compile", *what, *asked, *data, *kept])),
        ("which layer, line and node is wrong", shlex.join(["graphforge", "diff", *what, "--against", where])),
        ("which pass and rewrite is wrong", shlex.join(["graphforge", "bisect", *what, *asked])),
        ("the smallest part that ONNX Runtime gets wrong", shlex.join(["graphforge", "reduce", f"{where}/{file}"])),
        ("this page with errors, times and rewrites", shlex.join(["graphforge", "report", where, *what, *own])),
    ]


def _decided_by(target: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Data and bound of a lower precision; what was in memory only has its name in capitals, for a file to come."""
    given = {name: settings[name] for name in target.get("asked", ()) if settings.get(name) is not None}
    given |= target.get("decided_by", {})
    return [
        part
        for name in _OPTIONS_OF_THEIR_OWN
        if name in given
        for part in (f"--{name.replace('_', '-')}", name.upper() if given[name] is None else str(given[name]))
    ]


def _inputs(manifest: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    dynamic: list[str] = []
    for value in manifest.get("inputs", ()):
        parts += ["--input", f"{value['name']}:{'x'.join(map(str, value['shape']))}:{value['dtype']}"]
        for axis, dim in value.get("dynamic", {}).items():
            step = f"/{dim['step']}" if dim.get("step", 1) > 1 else ""
            dynamic += ["--dynamic", f"{value['name']}:{axis}={dim['name']}:{dim['low']}..{dim['high']}{step}"]
    return [*parts, *dynamic]
