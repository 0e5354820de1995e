"""A folder that the runtime is given: a bundle, or the files of MMDeploy's SDK (deploy.json, pipeline.json, a net)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphforge.doors import inside
from graphforge.errors import GraphForgeError
from graphforge.runners.recorded import locate_artifact, manifest_fault, spec_of_manifest
from graphforge.runners.session import new_session
from graphforge.runtime.feeds import takes_pictures
from graphforge.runtime.preprocess import completed, record_of, steps_of
from graphforge.runtime.sdk import codec_of_pipeline, read_sdk_file, steps_of_pipeline

__all__ = ["holds_sdk_files", "opened", "read_bundle", "read_opened"]

# What is taken for granted of sizes that the SDK's files leave open: they say which vary, and not how far.
_BATCHES = 8
_SIDES = 1 << 14


def holds_sdk_files(folder: Path) -> bool:
    """Whether a folder has the SDK's files and is not a bundle."""
    manifests = ("manifest.json", "manifest.unverified.json")
    return (folder / "deploy.json").is_file() and not any((folder / name).is_file() for name in manifests)


def read_opened(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, or one made of the SDK's files; empty for an ONNX file of no bundle."""
    return opened(folder)[1]


def read_bundle(folder: Path) -> dict[str, Any]:
    """The same for whoever needs one.

    Raises:
        GraphForgeError: it is a file, too.
    """
    manifest = read_opened(folder)
    if not manifest and (folder.parent / "manifest.json").is_file():
        raise GraphForgeError(f"{str(folder)!r} is a file of a bundle", f"give the bundle: {folder.parent}")
    if not manifest:
        raise GraphForgeError(
            f"{str(folder)!r} is an ONNX file of no bundle", f"`graphforge compile {folder}` makes a bundle of it"
        )
    return manifest


def opened(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The ONNX file in a folder and its manifest, which is made of the SDK's files where there is none.

    Raises:
        GraphForgeError: the folder is neither, or has no ONNX file.
    """
    if not holds_sdk_files(folder):
        return locate_artifact(folder)
    deploy = read_sdk_file(inside(folder, "deploy.json"))
    if len(deploy["models"]) != 1:
        raise GraphForgeError(
            f"{str(folder / 'deploy.json')!r} names {len(deploy['models'])} models, expected one",
            "models in parts run in MMDeploy's SDK only",
        )
    (net,) = deploy["models"]
    if net["backend"] != "onnxruntime" or not net["net"].endswith(".onnx"):
        raise GraphForgeError(
            f"{str(folder)!r} holds {net['net']!r} for {net['backend']}, and of the SDK's files only ONNX is run here",
            "MMDeploy's SDK runs it; a bundle's own manifest.json says how that runs here",
        )
    file = inside(folder, Path(net["net"]).name)
    if file.name != net["net"] or not file.is_file():
        raise GraphForgeError(f"{str(folder)!r} lacks the file {net['net']!r} that its deploy.json names")
    pipeline = inside(folder, "pipeline.json")
    if not pipeline.is_file():
        raise GraphForgeError(f"{str(folder)!r} has a deploy.json and lacks its pipeline.json")
    steps = steps_of_pipeline(pipeline)
    manifest = {
        "target": {"name": "onnx"},
        "files": [net["net"]],
        "inputs": _inputs(file, steps),
        "preprocess": steps,
        "openmmlab": {"codec": codec_of_pipeline(pipeline)},
    }
    bad = manifest_fault(manifest)
    if bad:
        raise GraphForgeError(f"{str(file)!r} is not a network that takes pictures: {bad}")
    steps_read = steps_of(steps, str(pipeline))
    taker = next((one for one in spec_of_manifest(manifest).inputs if takes_pictures(one, steps_read)), None)
    if taker is not None:
        manifest["preprocess"] = record_of(completed(steps_read, taker))
    return file, manifest


def _inputs(file: Path, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The inputs as a manifest has them; sides that vary have the pre-processing's size as their example."""
    width, height = next((one["size"] for one in reversed(steps) if one.get("size")), (224, 224))
    try:
        values = new_session(file, optimize=False).get_inputs()
    except ImportError:
        raise GraphForgeError("onnxruntime is not installed", "pip install onnxruntime") from None
    except Exception as error:  # ONNX Runtime's classes have no public base
        raise GraphForgeError(f"{str(file)!r} cannot be loaded: {' '.join(str(error).split())}") from error
    return [_input(value, int(width), int(height)) for value in values]


def _input(value: Any, width: int, height: int) -> dict[str, Any]:
    rank = len(value.shape)
    examples = [1, *[3] * (rank - 3), height, width][-rank:] if rank else []
    dynamic = {
        str(axis): {
            "name": size if isinstance(size, str) and size else f"{value.name}_{axis}",
            "low": 1,
            "high": max(_BATCHES if axis == 0 else _SIDES, examples[axis]),
            "step": 1,
        }
        for axis, size in enumerate(value.shape)
        if not isinstance(size, int)
    }
    words = {"float": "float32", "double": "float64"}
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return {
        "name": value.name,
        "shape": [size if isinstance(size, int) else examples[axis] for axis, size in enumerate(value.shape)],
        "dtype": words.get(dtype, dtype),
        "dynamic": dynamic,
    }
