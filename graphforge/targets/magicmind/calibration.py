"""Calibration data: read from a folder or .npz, checked against the inputs, written as MagicMind's tools read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.spec import ShapeSpec, TensorSpec

__all__ = ["CalibrationSet", "Stream", "read_calibration", "write_calibration"]

# Public samples calibrate with 1 to 16; fewer than this is worth a note.
FEW_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Stream:
    """The samples of one input, in order.

    Attributes:
        name: the input's name.
        samples: arrays of float32 or int32, each a slice of one along the first axis, or a whole feed.
        per_feed: how many of them, joined along the first axis, make one feed.
    """

    name: str
    samples: tuple[np.ndarray, ...]
    per_feed: int


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """One stream an input, in the order of the inputs, and what is to be said about them."""

    streams: tuple[Stream, ...]
    notes: tuple[str, ...] = ()


def read_calibration(source: str | Mapping[str, Any], shapes: ShapeSpec) -> CalibrationSet:
    """Read calibration data for every input.

    Forms: an .npz with one array an input (samples along the first axis); a folder with one sub-folder of .npy files
    an input, or of .npy files alone when there is one input; a mapping from input name to an array or to samples.

    Raises:
        GraphForgeError: data for an input is missing, has a shape or type it cannot have, or streams differ in length.
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
            f"calibration data is missing for input {', '.join(missing)}",
            "MagicMind calibrates with one stream for every input",
        )
    streams = tuple(_stream(tensor, found[tensor.name]) for tensor in shapes.inputs)
    feeds = {stream.name: len(stream.samples) // stream.per_feed for stream in streams}
    if len(set(feeds.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in feeds.items())
        raise GraphForgeError(f"the calibration streams have different numbers of feeds: {counts}")
    return CalibrationSet(streams, tuple(_notes(streams)))


def write_calibration(
    calibration: CalibrationSet, folder: Path, shapes: ShapeSpec
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write ``calib/``: .npy for build_mm.py, raw .bin and file lists for MagicMind's own tools.

    The lists state shapes where dims are dynamic, the form that the SDK's sample program reads.

    Returns:
        What bundle.json says about each stream, and the files written, relative to ``folder``.
    """
    entries, written = [], []
    for index, stream in enumerate(calibration.streams):
        place = folder / "calib" / str(index)
        place.mkdir(parents=True)
        files, lines = [], []
        for number, sample in enumerate(stream.samples):
            np.save(place / f"{number:04d}.npy", sample)
            (place / f"{number:04d}.bin").write_bytes(sample.tobytes())
            files.append(f"calib/{index}/{number:04d}.npy")
            written += [files[-1], f"calib/{index}/{number:04d}.bin"]
            dims = ",".join(str(size) for size in sample.shape)
            lines.append(f"{index}/{number:04d}.bin" + (f" shape[{dims}]" if shapes.dims else ""))
        list_name = f"calib/file_list_{index}.txt"
        (folder / list_name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(list_name)
        dtype = "INT32" if stream.samples[0].dtype == np.int32 else "FLOAT32"
        entries.append({"index": index, "dtype": dtype, "files_per_feed": stream.per_feed, "files": files})
    return entries, written


def _load(source: str | Mapping[str, Any], shapes: ShapeSpec) -> dict[str, list[np.ndarray]]:
    if isinstance(source, Mapping):
        return {name: [np.asarray(sample) for sample in samples] for name, samples in source.items()}
    path = Path(source)
    if path.is_dir():
        return _load_folder(path, shapes)
    if not path.is_file():
        raise GraphForgeError(
            f"calibration data {source} does not exist", "give a folder or an .npz file of normalised inputs"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise GraphForgeError(f"calibration data {source} is not a .npz archive of arrays by input name")
            return {name: list(archive[name]) for name in archive.files}
    except GraphForgeError:
        raise
    except Exception as error:  # numpy lets through whatever its parsers raise
        raise GraphForgeError(f"calibration data {source} cannot be read: {error}") from error


def _load_folder(path: Path, shapes: ShapeSpec) -> dict[str, list[np.ndarray]]:
    folders = {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    if not folders and len(shapes.inputs) == 1:
        folders = {shapes.inputs[0].name: path}
    found = {}
    for name, folder in folders.items():
        files = sorted(folder.glob("*.npy"))
        try:
            found[name] = [np.load(file, allow_pickle=False) for file in files]
        except Exception as error:  # numpy lets through whatever its parsers raise
            raise GraphForgeError(f"calibration data in {folder} cannot be read: {error}") from error
    if not any(found.values()):
        raise GraphForgeError(
            f"calibration folder {path} has no .npy files",
            "lay them out as FOLDER/<input name>/0000.npy, each an array like one feed of that input",
        )
    return found


def _stream(tensor: TensorSpec, samples: Sequence[np.ndarray]) -> Stream:
    if not samples:
        raise GraphForgeError(f"calibration data for input {tensor.name!r} is empty")
    ready = tuple(_sample(tensor, sample, number) for number, sample in enumerate(samples))
    # Slices of one along the batch axis are joined to feeds of the size that build_mm.py sets: the example's.
    per_feed = tensor.shape[0] if tensor.shape and ready[0].shape[0] == 1 else 1
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
    return Stream(tensor.name, ready, per_feed)


def _sample(tensor: TensorSpec, sample: np.ndarray, number: int) -> np.ndarray:
    where = f"calibration sample {number} of input {tensor.name!r}"
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
    return _narrowed(sample, where, floats=tensor.dtype.startswith(("float", "bfloat")))


def _narrowed(sample: np.ndarray, where: str, *, floats: bool) -> np.ndarray:
    if floats and sample.dtype.kind == "f":
        if not np.isfinite(sample).all():
            raise GraphForgeError(f"{where} has NaN or Inf values")
        return np.ascontiguousarray(sample, dtype=np.float32)
    if not floats and sample.dtype.kind in "iub":
        narrowed = sample.astype(np.int32)
        if not np.array_equal(narrowed.astype(sample.dtype), sample):
            raise GraphForgeError(f"{where} has values that do not fit int32")
        return np.ascontiguousarray(narrowed)
    wanted = "floats" if floats else "integers"
    raise GraphForgeError(f"{where} has dtype {sample.dtype}, expected {wanted}")


def _notes(streams: Sequence[Stream]) -> list[str]:
    notes = []
    first = streams[0]
    feeds = len(first.samples) // first.per_feed
    if len(first.samples) < FEW_SAMPLES:
        notes.append(f"only {len(first.samples)} calibration samples: ranges may be too narrow")
    left = len(first.samples) - feeds * first.per_feed
    if left:
        notes.append(f"{left} calibration samples make no whole batch of {first.per_feed} and are not used")
    for stream in streams:
        # Normalised pictures lie within a few units of zero; 0..255 means that the normalisation was forgotten.
        if stream.samples[0].dtype == np.float32 and max(float(np.abs(s).max()) for s in stream.samples) > 10:
            notes.append(f"calibration data of input {stream.name!r} look unnormalised (values beyond 10)")
    return notes
