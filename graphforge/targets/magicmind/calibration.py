"""Calibration data: read from a folder or .npz, checked against the inputs, written as MagicMind's tools read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.ranges.reading import checked_streams, samples_per_feed
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
    """Read calibration data for every input, in the forms that ``checked_streams`` takes.

    Raises:
        GraphForgeError: data for an input is missing, has a shape or type it cannot have, or streams differ in length.
    """
    found = checked_streams(source, shapes)
    streams = tuple(
        Stream(
            tensor.name,
            tuple(_narrowed(tensor, sample, number) for number, sample in enumerate(found[tensor.name])),
            samples_per_feed(tensor, found[tensor.name]),
        )
        for tensor in shapes.inputs
    )
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


def _narrowed(tensor: TensorSpec, sample: np.ndarray, number: int) -> np.ndarray:
    """In the types that MagicMind's calibrators read."""
    if sample.dtype.kind == "f":
        return np.ascontiguousarray(sample, dtype=np.float32)
    narrowed = sample.astype(np.int32)
    if not np.array_equal(narrowed.astype(sample.dtype), sample):
        raise GraphForgeError(f"calibration sample {number} of input {tensor.name!r} has values that do not fit int32")
    return np.ascontiguousarray(narrowed)


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
