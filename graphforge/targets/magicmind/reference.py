"""Reference inputs and outputs that travel in the bundle, so that run_mm.py can compare where nothing of ours is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.runners.onnx_runtime import usable_cpus
from graphforge.runners.session import new_session
from graphforge.spec import ShapeSpec
from graphforge.targets.magicmind.options import MagicMindOptions

__all__ = ["tolerance_of", "write_reference"]

_SEED = 0
# Limits on the relative L2 distance of floating outputs, by precision.  They are ours: no public text gives any.
_TOLERANCE = {"force_float32": 1e-3, "force_float16": 2e-2, "qint16": 5e-2, "qint8": 2e-1}


def tolerance_of(options: MagicMindOptions) -> float:
    """How far a floating output may be from the reference, as a relative L2 distance."""
    kind = options.precision.partition("_")[0] if options.is_quantized else options.precision
    return _TOLERANCE[kind]


def write_reference(
    onnx_file: Path, model: ir.Model, folder: Path, options: MagicMindOptions, shapes: ShapeSpec
) -> tuple[dict[str, Any], list[str]]:
    """Run model.onnx in ONNX Runtime and store what went in and what came out.

    Two cases where dims are dynamic: the example's sizes and the smallest promised ones.

    Returns:
        What bundle.json says about it, and the files written, relative to ``folder``.

    Raises:
        GraphForgeError: the model does not run.
    """
    import onnxruntime

    sizes = [shapes.example_sizes()]
    smallest = {name: dim.sizes(limit=1)[0] for name, dim in shapes.dims.items()}
    if options.reference_inputs is None and smallest != sizes[0]:
        sizes.append(smallest)
    session = new_session(onnx_file, threads=usable_cpus())
    cases, files = [], []
    for number, size in enumerate(sizes):
        feeds = options.reference_inputs or _random_feeds(model, shapes.shapes_at(size))
        arrays = {value.name: np.asarray(feeds[str(value.name)]) for value in model.graph.inputs}
        try:
            outputs = session.run(None, arrays)
        except Exception as error:  # ONNX Runtime raises several kinds of its own
            raise GraphForgeError(
                f"model.onnx does not run in ONNX Runtime at {shapes.shapes_at(size)}: {error}",
                "give inputs that the model accepts as reference_inputs" if options.reference_inputs is None else "",
            ) from error
        case: dict[str, list[str]] = {"inputs": [], "outputs": []}
        (folder / "reference" / str(number)).mkdir(parents=True)
        for what, values in (("input", list(arrays.values())), ("output", outputs)):
            for index, array in enumerate(values):
                name = f"reference/{number}/{what}_{index}.npy"
                np.save(folder / name, array)
                case[f"{what}s"].append(name)
                files.append(name)
        cases.append(case)
    return {
        "made_by": f"ONNX Runtime {onnxruntime.__version__} on {onnx_file.name}",
        "inputs": "given" if options.reference_inputs is not None else f"random, seed {_SEED}",
        "tolerance": tolerance_of(options),
        "cases": cases,
    }, files


def _random_feeds(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(_SEED)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        dtype = value.dtype.numpy()
        shape = shapes[str(value.name)]
        if dtype.kind == "f":
            feeds[str(value.name)] = random.standard_normal(shape).astype(dtype)
        else:
            # Indices and masks: 0 and 1 are valid nearly everywhere.
            feeds[str(value.name)] = random.integers(0, 2, shape).astype(dtype)
    return feeds
