"""plan.json, the sidecar of a plan: TensorRT's file records nothing about how it was made, so this does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphforge.doors import inside
from graphforge.errors import GraphForgeError
from graphforge.schema import FILE, SIZE, TEXT, Named, Record, Several, one_of, read_json
from graphforge.targets.tensorrt.build import BuiltPlan
from graphforge.targets.tensorrt.flavour import FLAVOURS
from graphforge.targets.tensorrt.options import BuildSettings

__all__ = ["plan_manifest", "read_plan_manifest", "sha256_of", "write_plan_manifest"]

PLAN_MANIFEST = "plan.json"

_FLAVOUR = one_of(f"one of {', '.join(FLAVOURS)}", lambda data: isinstance(data, str) and data in FLAVOURS)
_PROFILE = Named(Record({"min": Several(SIZE), "opt": Several(SIZE), "max": Several(SIZE)}))
_SCHEMA = Record(
    {"flavour": _FLAVOUR, "plan": Record({"file": FILE}), "inputs": Several(Record({"name": TEXT, "dtype": TEXT}))},
    {"profiles": Several(_PROFILE)},
)


def plan_manifest(
    *, onnx_file: Path, model: ir.Model, plan_file: Path, built: BuiltPlan, options: BuildSettings
) -> dict[str, Any]:
    """What plan.json says; ``model`` is the model as ``onnx_file`` has it."""
    symbols = {value.name: _dims(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    return {
        "format": 1,
        "flavour": options.flavour.name,
        "version": built.version,
        "compute_capabilities": list(options.compute_capabilities) or ["CURRENT"],
        "precision": options.precision,
        "strongly_typed": True,
        "tf32": options.tf32,
        "optimization_level": options.optimization_level,
        "workspace_mib": options.workspace,
        "version_compatible": options.version_compatible,
        "weight_stripped": options.weight_stripped,
        "onnx": {
            "file": onnx_file.name,
            "sha256": sha256_of(onnx_file),
            "opset": model.opset_imports.get(""),
        },
        "matrix_work": {dtype: round(share, 4) for dtype, share in built.work.shares().items()},
        "plan": {"file": plan_file.name, "sha256": sha256_of(plan_file), "bytes": built.bytes},
        "profiles": [
            {
                name: {"min": list(shapes.minimum), "opt": list(shapes.optimum), "max": list(shapes.maximum)}
                for name, shapes in profile.items()
            }
            for profile in built.profiles
        ],
        "inputs": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": symbols.get(tensor.name, list(tensor.shape)),
            }
            for tensor in built.inputs
        ],
        "outputs": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": symbols.get(tensor.name, list(tensor.shape)),
            }
            for tensor in built.outputs
        ],
    }


def write_plan_manifest(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Write it into the folder; returns the file's name."""
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / PLAN_MANIFEST).write_text(text, encoding="utf-8")
    return PLAN_MANIFEST


def read_plan_manifest(folder: Path) -> dict[str, Any]:
    """What ``write_plan_manifest`` wrote, checked.

    Raises:
        GraphForgeError: the file is damaged.
    """
    path = inside(folder, PLAN_MANIFEST)
    manifest: dict[str, Any] = read_json(path, "a description of a plan", "compile the model again")
    bad = _SCHEMA.fault(manifest, "")
    if bad:
        raise GraphForgeError(f"{str(path)!r} is not a description of a plan: {bad}", "compile the model again")
    inside(folder, manifest["plan"]["file"])
    return manifest


def sha256_of(file: Path) -> str:
    """The file's SHA-256 in hexadecimal, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _dims(value: ir.Value) -> list[int | str | None] | None:
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape.dims]
