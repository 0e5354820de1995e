"""bundle.json: what is in the bundle and how its parts belong together.  For our scripts, never for MagicMind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.spec import ShapeSpec
from graphforge.targets.magicmind.config import range_of
from graphforge.targets.magicmind.datatypes import magicmind_dtype, run_dtype
from graphforge.targets.magicmind.options import MagicMindOptions
from graphforge.targets.magicmind.pixels import Fed

__all__ = ["PROVEN", "bundle_manifest", "default_pins"]

PROVEN = (
    "model.onnx was run in ONNX Runtime and build_config.json checked against the public rules; "
    "nothing of this was run on an MLU"
)
# In reduced precision NMS and TopK lose the order of scores, and Exp and Sqrt overflow; samples keep NMS and Sqrt in
# float32.
_PINNED = ("NonMaxSuppression", "TopK", "Sqrt", "Exp")
_LAYOUTS = {3: "NCT", 4: "NCHW", 5: "NCDHW"}


def default_pins(model: ir.Model, options: MagicMindOptions) -> list[str]:
    """Names of the nodes to keep in float32; none when everything is."""
    if options.precision == "force_float32":
        return []
    if options.pins is not None:
        return list(options.pins)
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return [node.name for node in nodes if node.op_type in _PINNED and node.name]


def bundle_manifest(
    *,
    model: ir.Model,
    onnx_file: Path,
    config_file: Path,
    options: MagicMindOptions,
    shapes: ShapeSpec,
    calibration: list[dict[str, Any]] | None,
    reference: Mapping[str, Any],
    tail: str | None = None,
    fed: Mapping[int, Fed] | None = None,
) -> dict[str, Any]:
    """What bundle.json says; ``model`` is the model as ``onnx_file`` has it, ``tail`` the file of what was cut off.

    ``fed`` are inputs that are fed otherwise than model.onnx takes them, by their position.

    Raises:
        GraphForgeError: inputs of the model and of the shape spec differ, or have a type MagicMind lacks.
    """
    specs = {tensor.name: tensor for tensor in shapes.inputs}
    names = [value.name for value in model.graph.inputs]
    if names != [tensor.name for tensor in shapes.inputs]:
        raise GraphForgeError(
            f"the model has the inputs {names}, but those described are {list(specs)}",
            "MagicMind binds inputs by position, so they must be the same in the same order",
        )
    inputs = []
    for index, value in enumerate(model.graph.inputs):
        tensor = specs[str(value.name)]
        low, high = range_of(tensor)
        dtype = _dtype(value, "input")
        how = (fed or {}).get(index, Fed())
        inputs.append(
            {
                "index": index,
                "name": value.name,
                "layout": _layout(value),
                "dtype": dtype,
                "calibration_dtype": "FLOAT32" if dtype.startswith("FLOAT") else "INT32",
                "run_dtype": run_dtype(dtype) if how.mean is None else "UINT8",
                "run_layout": "NHWC" if how.is_nhwc else _layout(value),
                "dims": list(tensor.shape),
                "min": low,
                "max": high,
            }
        )
    outputs = [
        {
            "index": index,
            "name": value.name,
            "dtype": _dtype(value, "output"),
            "run_dtype": run_dtype(_dtype(value, "output")),
        }
        for index, value in enumerate(model.graph.outputs)
    ]
    return {
        "format": 1,
        "name": "graphforge_model",
        "proven": PROVEN,
        "model": {
            "file": onnx_file.name,
            "sha256": _sha256(onnx_file),
            "opset": model.opset_imports.get(""),
        },
        "config": {"file": config_file.name, "sha256": _sha256(config_file)},
        "precision": options.precision,
        "mutable": bool(shapes.dims),
        "inputs": inputs,
        "outputs": outputs,
        "cut": None if tail is None else {"values": [value.name for value in model.graph.outputs], "tail": tail},
        "pins": default_pins(model, options),
        "calibration": None
        if calibration is None
        else {"algorithm": f"{options.calibration_algorithm.upper()}_ALGORITHM", "inputs": calibration},
        "reference": dict(reference),
    }


def _dtype(value: ir.Value, what: str) -> str:
    name = magicmind_dtype(value.dtype)
    if name is None:
        kind = "unknown" if value.dtype is None else value.dtype.name
        raise GraphForgeError(f"{what} {value.name!r} has type {kind}, which MagicMind does not have")
    return name


def _layout(value: ir.Value) -> str | None:
    """The layout, where a layer that has one reads the input directly; None where nothing says so."""
    rank = None if value.shape is None else len(value.shape)
    spatial = ("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize")
    if rank in _LAYOUTS and any(node.op_type in spatial for node, _ in value.uses()):
        return _LAYOUTS[rank]
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
