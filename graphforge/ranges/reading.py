"""Sample inputs of the user's: read from a folder, an .npz file or arrays, and held against the inputs of a model."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.spec import ShapeSpec, TensorSpec

__all__ = ["checked_streams", "feeds_of", "samples_per_feed"]


def checked_streams(source: str | Path | Mapping[str, Any], shapes: ShapeSpec) -> dict[str, tuple[Array, ...]]:
    """The samples of every input, in order: each one is a feed of that input, or a slice of one along the first axis.

    Forms: an .npz with one array an input (samples along the first axis); a folder with one sub-folder of .npy files
    an input, or of .npy files alone when there is one input; a mapping from input name to an array or to samples.

    Raises:
        GraphForgeError: data for an input is missing, has a shape or values that it cannot have, or lengths differ.
    """
    found = _load(source, shapes)
    names = [tensor.name for tensor in shapes.inputs]
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise GraphForgeError(
            f"calibration data is given for {', '.join(unknown)}, but the inputs are: {', '.join(names)}"
        )
    missing = [name for name in names if name not in found]
    if missing:
        raise GraphForgeError(
            f"calibration data is missing for input {', '.join(missing)}", "one stream is needed for every input"
        )
    streams = {tensor.name: _stream(tensor, found[tensor.name]) for tensor in shapes.inputs}
    feeds = {t.name: len(streams[t.name]) // samples_per_feed(t, streams[t.name]) for t in shapes.inputs}
    if len(set(feeds.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in feeds.items())
        raise GraphForgeError(f"the calibration streams have different numbers of feeds: {counts}")
    return streams


def samples_per_feed(tensor: TensorSpec, samples: Sequence[Array]) -> int:
    """How many samples, joined along the first axis, make one feed: slices of one are joined to the example's size."""
    return tensor.shape[0] if tensor.shape and samples[0].shape[0] == 1 else 1


def feeds_of(source: str | Path | Mapping[str, Any], shapes: ShapeSpec) -> list[dict[str, Array]]:
    """Whole feeds, in the dtypes of the inputs; slices that make no whole batch are left out.

    Raises:
        GraphForgeError: see ``checked_streams``, or a value does not fit the dtype of its input.
    """
    streams = checked_streams(source, shapes)
    joined: dict[str, list[Array]] = {}
    for tensor in shapes.inputs:
        samples = [_typed(tensor, sample, number) for number, sample in enumerate(streams[tensor.name])]
        count = samples_per_feed(tensor, samples)
        joined[tensor.name] = [
            samples[start] if count == 1 else np.concatenate(samples[start : start + count])
            for start in range(0, len(samples) - count + 1, count)
        ]
    length = min((len(feeds) for feeds in joined.values()), default=0)
    return [{name: feeds[number] for name, feeds in joined.items()} for number in range(length)]


def _load(source: str | Path | Mapping[str, Any], shapes: ShapeSpec) -> dict[str, list[Array]]:
    if isinstance(source, Mapping):
        return {name: [np.asarray(sample) for sample in samples] for name, samples in source.items()}
    path = Path(source)
    if path.is_dir():
        return _load_folder(path, shapes)
    if not path.is_file():
        raise GraphForgeError(
            f"calibration data {str(source)!r} does not exist", "give a folder or an .npz file of normalised inputs"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise GraphForgeError(f"calibration data {str(source)!r} is not a .npz archive of arrays by input name")
            return {name: list(archive[name]) for name in archive.files}
    except GraphForgeError:
        raise
    except Exception as error:  # numpy lets through whatever its parsers raise
        # numpy takes what is none for a pickle, and says how to read that unsafely
        if not isinstance(error, zipfile.BadZipFile) and not zipfile.is_zipfile(path):
            raise GraphForgeError(
                f"calibration data {str(source)!r} is not a .npz archive of arrays by input name",
                "write it as numpy.savez('calib.npz', image=array)",
            ) from None
        raise GraphForgeError(f"calibration data {str(source)!r} cannot be read: {error}") from error


def _load_folder(path: Path, shapes: ShapeSpec) -> dict[str, list[Array]]:
    folders = {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    if not folders and len(shapes.inputs) == 1:
        folders = {shapes.inputs[0].name: path}
    found = {}
    for name, folder in folders.items():
        files = sorted(file for file in folder.glob("*.npy") if file.is_file())
        try:
            found[name] = [np.load(file, allow_pickle=False) for file in files]
        except Exception as error:  # numpy lets through whatever its parsers raise
            raise GraphForgeError(f"calibration data in {folder} cannot be read: {error}") from error
    if not any(found.values()):
        raise GraphForgeError(
            f"calibration folder {str(path)!r} contains no .npy files",
            "lay them out as FOLDER/<input name>/0000.npy, each an array like one feed of that input",
        )
    return found


def _stream(tensor: TensorSpec, samples: Sequence[Array]) -> tuple[Array, ...]:
    if not samples:
        raise GraphForgeError(f"calibration data for input {tensor.name!r} is empty")
    ready = tuple(_sample(tensor, sample, number) for number, sample in enumerate(samples))
    # Slices of one along the batch axis are joined to feeds of the example's size.
    per_feed = samples_per_feed(tensor, ready)
    if len(ready) < per_feed:
        raise GraphForgeError(
            f"calibration data for input {tensor.name!r} has {len(ready)} samples, less than one batch of {per_feed}"
        )
    if per_feed > 1 and len({sample.shape for sample in ready}) > 1:
        raise GraphForgeError(
            f"calibration samples of input {tensor.name!r} have different shapes and cannot be joined to batches "
            f"of {per_feed}",
            "give an example input of batch size 1, or samples of one shape",
        )
    if all(sample.size and not np.any(sample) for sample in ready) and ready[0].dtype.kind == "f":
        raise GraphForgeError(
            f"calibration data of input {tensor.name!r} is nothing but zeros, so no range can be made of it",
            "give inputs as the model meets them",
        )
    return ready


def _sample(tensor: TensorSpec, sample: Array, number: int) -> Array:
    where = _where(tensor, number)
    if sample.ndim == len(tensor.shape) - 1:
        sample = sample[np.newaxis]  # a picture without its batch axis
    if sample.ndim != len(tensor.shape):
        raise GraphForgeError(f"{where} has shape {list(sample.shape)}, expected one like {list(tensor.shape)}")
    for axis, size in enumerate(sample.shape):
        wanted = tensor.dims.get(axis)
        fits = size in wanted if wanted is not None else size == tensor.shape[axis]
        if not fits and not (axis == 0 and size == 1):
            allowed = f"{wanted.low}..{wanted.high}" if wanted is not None else str(tensor.shape[axis])
            raise GraphForgeError(
                f"{where} has size {size} on axis {axis}, expected {allowed}",
                "calibration data lie as the ONNX file wants them (usually NCHW), already normalised",
            )
    floats = is_floats(tensor)
    if sample.dtype.kind not in ("f" if floats else "iub"):
        wanted_kind = "floats" if floats else "integers"
        raise GraphForgeError(f"{where} has dtype {sample.dtype}, expected {wanted_kind}")
    if floats and not np.isfinite(sample).all():
        raise GraphForgeError(f"{where} has NaN or Inf values")
    return sample


def is_floats(tensor: TensorSpec) -> bool:
    """Whether an input holds real floating-point numbers."""
    return tensor.dtype.startswith(("float", "bfloat"))


def _where(tensor: TensorSpec, number: int) -> str:
    return f"calibration sample {number} of input {tensor.name!r}"


def _typed(tensor: TensorSpec, sample: Array, number: int) -> Array:
    if tensor.dtype == "bfloat16":
        import ml_dtypes

        return np.ascontiguousarray(sample.astype(ml_dtypes.bfloat16))
    typed = np.ascontiguousarray(sample.astype(tensor.dtype))
    if sample.dtype.kind != "f" and not np.array_equal(typed.astype(sample.dtype), sample):
        raise GraphForgeError(f"{_where(tensor, number)} has values that do not fit {tensor.dtype}")
    return typed
