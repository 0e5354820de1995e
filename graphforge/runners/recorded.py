"""What a bundle's manifest records of its inputs and its artifact, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

__all__ = ["locate_artifact", "read_manifest", "spec_of_manifest"]


def read_manifest(folder: Path, *, unverified: bool = False) -> dict[str, Any]:
    """The manifest of a bundle.

    Args:
        folder: the bundle.
        unverified: whether one that failed verification is read as well.

    Raises:
        GraphForgeError: the folder is not a bundle, or one that failed verification.
    """
    path = folder / "manifest.json"
    failed = folder / "manifest.unverified.json"
    if not path.is_file() and failed.is_file():
        if not unverified:
            raise GraphForgeError(
                f"bundle {str(folder)!r} failed verification, so it is not run", "compile it again and read why"
            )
        path = failed
    if not path.is_file():
        what = "does not exist" if not folder.exists() else "is not a bundle"
        raise GraphForgeError(
            f"{str(folder)!r} {what}", "a bundle is a folder made by graphforge compile, with a manifest.json in it"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        manifest["target"]["name"], manifest["inputs"][0:0]
    except (ValueError, KeyError, TypeError) as error:
        raise GraphForgeError(
            f"{str(path)!r} is not the manifest of a bundle: {type(error).__name__}: {error}", "compile the model again"
        ) from None
    return manifest


def locate_artifact(bundle: Path) -> tuple[Path, dict[str, Any]]:
    """The ONNX file of a bundle and its manifest, which is empty where a bare ONNX file is given.

    Raises:
        GraphForgeError: it is neither a bundle nor an ONNX file, or the bundle has no ONNX file.
    """
    if bundle.is_file() and bundle.suffix == ".onnx":
        return bundle, {}
    if bundle.is_file():
        raise GraphForgeError(
            f"{str(bundle)!r} is neither a bundle nor an ONNX file", "a bundle is a folder made by graphforge compile"
        )
    manifest = read_manifest(bundle)
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
