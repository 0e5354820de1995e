"""What a bundle's manifest records of its inputs and its artifact, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

__all__ = ["locate_artifact", "spec_of_manifest"]


def locate_artifact(bundle: Path) -> tuple[Path, dict[str, Any]]:
    """The ONNX file and the manifest (empty for a bare file)."""
    if bundle.is_file() and bundle.suffix == ".onnx":
        return bundle, {}
    manifest_path = bundle / "manifest.json"
    if not manifest_path.is_file():
        raise GraphForgeError(
            f"{str(bundle)!r} is neither a bundle nor an ONNX file", "a bundle is a folder made by graphforge compile"
        )
    try:
        manifest = json.loads(manifest_path.read_text())
    except json.JSONDecodeError as error:
        raise GraphForgeError(f"{manifest_path} is not JSON: {error}") from None
    found = [name for name in manifest.get("files", ()) if name.endswith(".onnx")]
    if not found:
        raise GraphForgeError(
            f"bundle {str(bundle)!r} contains no ONNX file to run, "
            f"but {', '.join(manifest.get('files', ())) or 'nothing'}"
        )
    return bundle / found[0], manifest


def spec_of_manifest(manifest: Mapping[str, Any]) -> ShapeSpec:
    """The inputs that a manifest records."""
    return ShapeSpec(
        tuple(
            TensorSpec(
                entry["name"],
                tuple(entry["shape"]),
                entry["dtype"],
                {
                    int(axis): DimRange(dim["name"], dim["low"], dim["high"], dim["step"])
                    for axis, dim in entry.get("dynamic", {}).items()
                },
            )
            for entry in manifest.get("inputs", ())
        )
    )
