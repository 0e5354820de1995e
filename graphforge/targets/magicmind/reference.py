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
from graphforge.targets.magicmind.calibration import CalibrationSet
from graphforge.targets.magicmind.detections import detections_in
from graphforge.targets.magicmind.options import MagicMindOptions
from graphforge.targets.magicmind.pixels import Fed

__all__ = ["tolerance_of", "write_reference"]

_SEED = 0
# Cases made of calibration data: each travels in the bundle with its outputs.
_FROM_CALIBRATION = 2
# Limits on the relative L2 distance of floating outputs, by precision.  They are ours: no public text gives any.
_TOLERANCE = {"force_float32": 1e-3, "force_float16": 2e-2, "qint16": 5e-2, "qint8": 2e-1}


def tolerance_of(options: MagicMindOptions) -> float:
    """How far a floating output may be from the reference, as a relative L2 distance."""
    kind = options.precision.partition("_")[0] if options.is_quantized else options.precision
    return _TOLERANCE[kind]


def write_reference(
    onnx_file: Path,
    model: ir.Model,
    folder: Path,
    options: MagicMindOptions,
    shapes: ShapeSpec,
    calibration: CalibrationSet | None = None,
    *,
    fed: Mapping[int, Fed] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Run model.onnx in ONNX Runtime and store what went in and what came out.

    What goes in is what was given as reference, else the first feeds of the calibration data, else random numbers.  Of
    random numbers two cases where dims are dynamic: the example's sizes and the smallest promised ones.  Stored is what
    the MLU is fed: for inputs in ``fed`` their pixels, which model.onnx is then run on.

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
    given: list[Mapping[str, Any]] = [options.reference_inputs] if options.reference_inputs is not None else []
    if not given and calibration is not None:
        given = _calibration_feeds(model, calibration)
    random = [_random_feeds(model, shapes.shapes_at(size)) for size in sizes] if not given else []
    for number, feeds in enumerate([*given, *random]):
        arrays = {str(value.name): np.asarray(feeds[str(value.name)]) for value in model.graph.inputs}
        stored = dict(arrays)
        for index, how in (fed or {}).items():
            name = str(model.graph.inputs[index].name)
            stored[name] = how.made_of(arrays[name])
            arrays[name] = how.read_back(stored[name]).astype(arrays[name].dtype)
        try:
            outputs = session.run(None, arrays)
        except Exception as error:  # ONNX Runtime raises several kinds of its own
            raise GraphForgeError(
                f"model.onnx does not run in ONNX Runtime at {_sizes_of(arrays)}: {error}",
                "give inputs that the model accepts as reference_inputs" if options.reference_inputs is None else "",
            ) from error
        case: dict[str, list[str]] = {"inputs": [], "outputs": []}
        (folder / "reference" / str(number)).mkdir(parents=True)
        for what, values in (("input", list(stored.values())), ("output", outputs)):
            for index, array in enumerate(values):
                name = f"reference/{number}/{what}_{index}.npy"
                np.save(folder / name, array)
                case[f"{what}s"].append(name)
                files.append(name)
        cases.append(case)
    return {
        "made_by": f"ONNX Runtime {onnxruntime.__version__} on {onnx_file.name}",
        "inputs": _kind_of(options, calibration),
        "tolerance": tolerance_of(options),
        "detections": detections_in([str(value.name) for value in model.graph.outputs], options.precision),
        "cases": cases,
    }, files


def _kind_of(options: MagicMindOptions, calibration: CalibrationSet | None) -> str:
    if options.reference_inputs is not None:
        return "given"
    return f"random, seed {_SEED}" if calibration is None else "from the calibration data"


def _sizes_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _calibration_feeds(model: ir.Model, calibration: CalibrationSet) -> list[Mapping[str, np.ndarray]]:
    """The first feeds of the calibration data, in the types that the model takes."""
    dtypes = {str(value.name): value.dtype.numpy() for value in model.graph.inputs if value.dtype is not None}
    count = min([_FROM_CALIBRATION, *(len(stream.samples) // stream.per_feed for stream in calibration.streams)])
    return [
        {
            stream.name: np.concatenate(
                stream.samples[number * stream.per_feed : (number + 1) * stream.per_feed], axis=0
            ).astype(dtypes[stream.name])
            if stream.per_feed > 1
            else stream.samples[number].astype(dtypes[stream.name])
            for stream in calibration.streams
        }
        for number in range(count)
    ]


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
