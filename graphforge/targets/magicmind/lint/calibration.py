"""Rules about the calibration data of a bundle (K1 to K6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from graphforge.targets.magicmind.calibration import FEW_SAMPLES
from graphforge.targets.magicmind.lint.finding import Finding, Severity, Subject, checks

__all__: list[str] = []


def _streams(subject: Subject) -> list[dict[str, Any]]:
    calibration = (subject.bundle or {}).get("calibration")
    return list(calibration["inputs"]) if calibration else []


@checks("K1", "O", "shape, type and order of the samples")
def _samples(subject: Subject) -> Iterator[Finding]:
    assert subject.folder is not None or not _streams(subject), "calibration data only exist in a bundle"
    feeds = set()
    for stream in _streams(subject):
        assert subject.folder is not None
        described = subject.setting("dim_range", str(stream["index"]))
        entry = (subject.bundle or {})["inputs"][stream["index"]]
        low = described["min"] if described else entry["dims"]
        high = described["max"] if described else entry["dims"]
        feeds.add(len(stream["files"]) // max(stream["files_per_feed"], 1))
        for name in stream["files"]:
            file = subject.folder / name
            if not file.is_file():
                yield Finding("K1", Severity.ERROR, "O", "calibration file is missing", name)
                continue
            try:
                sample = np.load(file, mmap_mode="r", allow_pickle=False)
            except Exception as error:  # numpy lets through whatever its parsers raise
                yield Finding("K1", Severity.ERROR, "O", f"calibration file cannot be read: {error}", name)
                continue
            wanted = np.int32 if stream["dtype"] == "INT32" else np.float32
            if sample.dtype != wanted or not sample.flags.c_contiguous:
                message = f"sample is {sample.dtype}, expected contiguous {np.dtype(wanted)}"
                yield Finding("K1", Severity.ERROR, "O", message, name)
            # A sample may be a slice of one along the batch axis.
            fits = sample.ndim == len(low) and all(
                a <= size <= b or (axis == 0 and size == 1)
                for axis, (a, size, b) in enumerate(zip(low, sample.shape, high, strict=True))
            )
            if not fits:
                message = f"sample has shape {list(sample.shape)}, expected {low} to {high} in the model's layout"
                yield Finding("K1", Severity.ERROR, "O", message, name)
    if len(feeds) > 1:
        yield Finding("K1", Severity.ERROR, "O", f"the streams have different numbers of feeds: {sorted(feeds)}")


@checks("K2", "O", "whole batches")
def _batches(subject: Subject) -> Iterator[Finding]:
    for stream in _streams(subject):
        count, batch = len(stream["files"]), stream["files_per_feed"]
        if count < batch:
            message = f"{count} samples make no batch of {batch}: nothing reaches the calibrator"
            yield Finding("K2", Severity.ERROR, "O", message, f"input {stream['index']}")
        elif count % batch:
            message = f"{count % batch} of {count} samples make no whole batch of {batch} and are dropped"
            yield Finding("K2", Severity.WARNING, "O", message, f"input {stream['index']}")


@checks("K3", "I", "normalised values")
def _normalised(subject: Subject) -> Iterator[Finding]:
    for stream in _streams(subject):
        assert subject.folder is not None
        if stream["dtype"] != "FLOAT32":
            continue
        for name in stream["files"]:
            file, beyond = subject.folder / name, False
            with suppress(Exception):  # one that cannot be read is K1's
                sample = np.load(file, allow_pickle=False)
                beyond = float(np.abs(sample).max(initial=0)) > 10
            if beyond:
                message = "values beyond 10: calibration data are normalised floats, not pixels"
                yield Finding("K3", Severity.WARNING, "I", message, name)
                break


@checks("K5", "I", "values that ranges can be made of")
def _values(subject: Subject) -> Iterator[Finding]:
    for stream in _streams(subject):
        assert subject.folder is not None
        nothing = bool(stream["files"])
        for name in stream["files"]:
            try:
                sample = np.load(subject.folder / name, allow_pickle=False)
                finite = bool(np.isfinite(sample).all())
            except Exception:  # one that cannot be read is K1's
                nothing = False
                continue
            nothing = nothing and not sample.any()
            if not finite:
                yield Finding("K5", Severity.ERROR, "I", "NaN or Inf in the calibration data", name)
        if nothing and stream["dtype"] == "FLOAT32":
            message = "the calibration data are nothing but zeros, so no range can be made of them"
            yield Finding("K5", Severity.ERROR, "I", message, f"input {stream['index']}")


@checks("K6", "D", "the .bin files hold what the .npy files hold")
def _raw(subject: Subject) -> Iterator[Finding]:
    for stream in _streams(subject):
        assert subject.folder is not None
        for name in stream["files"]:
            file = subject.folder / name
            raw = file.with_suffix(".bin")
            content = b""
            with suppress(Exception):  # one that cannot be read is K1's
                content = np.load(file, allow_pickle=False).tobytes()
            if not content:
                continue
            if not raw.is_file():
                yield Finding("K6", Severity.ERROR, "D", "the file is missing", str(raw.relative_to(subject.folder)))
            elif raw.stat().st_size != len(content) or raw.read_bytes() != content:
                message = f"{raw.stat().st_size} bytes that are not the {len(content)} of {file.name}"
                yield Finding("K6", Severity.ERROR, "D", message, str(raw.relative_to(subject.folder)))


@checks("K4", "I", "enough samples")
def _enough(subject: Subject) -> Iterator[Finding]:
    for stream in _streams(subject)[:1]:
        if len(stream["files"]) < FEW_SAMPLES:
            message = f"{len(stream['files'])} calibration samples; public samples use 1 to 16"
            yield Finding("K4", Severity.NOTE, "I", message)
