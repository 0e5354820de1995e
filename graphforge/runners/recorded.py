"""What a bundle's manifest records of its inputs and its artifact, read back.

A manifest is data that anybody may have written: it is held against its schema before anything is taken from it, its
files lie in the bundle, and nothing in it names code to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphforge.doors import inside
from graphforge.errors import GraphForgeError
from graphforge.schema import (
    ANYTHING,
    COUNT,
    FILE,
    FLAG,
    NUMBER,
    SIZE,
    TEXT,
    Either,
    Named,
    Record,
    Several,
    one_of,
    read_json,
)
from graphforge.spec import DTYPES, DimRange, ShapeSpec, TensorSpec

__all__ = ["MANIFEST_SCHEMA", "locate_artifact", "manifest_fault", "read_manifest", "spec_of_manifest"]

# Of manifest.json; it grows when a key changes its meaning or goes.
MANIFEST_SCHEMA = 1

_NUMBER_OR_WORD = one_of("a number", lambda data: data in ("nan", "inf", "-inf") or not NUMBER.fault(data, ""))
_DIM = one_of("a size or its name", lambda data: data is None or isinstance(data, str) or not SIZE.fault(data, ""))
_DTYPE = one_of("an element type", lambda data: isinstance(data, str) and data in DTYPES)
_OPSET = one_of("an opset", lambda data: data is None or (type(data) is int and 0 < data < 1000))
_RANGE = Record({"name": TEXT, "low": SIZE, "high": SIZE, "step": SIZE})
_INPUT = Record({"name": TEXT, "shape": Several(SIZE), "dtype": _DTYPE}, {"dynamic": Named(_RANGE)})
_COMPARED = Record(
    {
        "name": TEXT,
        "shape": Several(SIZE),
        "dtype": TEXT,
        "passed": FLAG,
        "tolerance": TEXT,
        **{name: Either(_NUMBER_OR_WORD) for name in ("max_abs", "max_rel", "mean_abs")},
    },
    {"reason": TEXT},
)
_TRIAL = Record(
    {
        "sizes": Named(SIZE),
        "data": TEXT,
        "inputs": Named(Several(SIZE)),
        "outputs": Several(_COMPARED),
        "error": Either(TEXT),
    },
    {"notes": Several(TEXT)},
)
_VERIFICATION = Record(
    {"passed": Either(FLAG)},
    {
        **dict.fromkeys(("verdict", "reference", "artifact", "skipped"), TEXT),
        "suspect": Either(TEXT),
        "max_rel": Either(_NUMBER_OR_WORD),
        "seed": COUNT,
        "trials": Several(_TRIAL),
        "failures": Several(TEXT),
        "notes": Several(TEXT),
    },
)
_PASS = Record(
    {
        "name": TEXT,
        "spec": TEXT,
        "seconds": NUMBER,
        "changes": COUNT,
        "nodes_before": COUNT,
        "nodes_after": COUNT,
    },
    {
        "notes": Several(TEXT),
        "near_misses": Several(Record({"rule": TEXT, "reason": TEXT, "count": COUNT, "places": Several(TEXT)})),
        "source": TEXT,
    },
)
_PADDING = Record(
    {"restores": TEXT, "output": TEXT, "count": TEXT, "axis": COUNT, "image": Either(COUNT)}, {"joined": FLAG}
)
_MANIFEST = Record(
    {"target": Record({"name": TEXT}), "files": Several(FILE), "inputs": Several(_INPUT)},
    {
        "schema": COUNT,
        "graphforge": TEXT,
        "model": Record({}, {"spec": Either(TEXT)}),
        "artifact": Record({}, {"checked": TEXT, "opset": _OPSET}),
        "outputs": Several(Record({"name": TEXT, "shape": Either(Several(_DIM)), "dtype": Either(TEXT)})),
        "capture": Record(
            {},
            {
                "method": TEXT,
                "failures": Named(TEXT),
                "substitutions": Several(Record({"function": TEXT, "calls": COUNT})),
            },
        ),
        "lowering": Record(
            {},
            {
                "fallbacks": Several(Record({"operator": TEXT, "module": TEXT, "source": TEXT})),
                "decomposed": Named(ANYTHING),
            },
        ),
        "passes": Several(_PASS),
        "padding": Several(_PADDING),
        "nodes": COUNT,
        "operators": Named(COUNT),
        "steps": Several(Record({"name": TEXT, "seconds": NUMBER}, {"nodes": COUNT})),
        "verification": _VERIFICATION,
        "notes": Several(TEXT),
        "versions": Named(TEXT),
        "preprocess": Several(Record({"step": TEXT})),  # graphforge/runtime/preprocess.py knows the rest
        "folded": Several(Record({"step": TEXT})),  # the list before its end went into the graph
        "dataset": Record({}),
    },
)


def manifest_fault(data: Any) -> str:
    """What keeps the data from being the manifest of a bundle, "" when nothing does."""
    bad = _MANIFEST.fault(data, "")
    if bad:
        return bad
    verification = data.get("verification", {})
    if verification.get("passed") is not None and not verification.keys() >= {"reference", "max_rel"}:
        return "verification: it does not say against what it passed or failed, and how closely"
    for at, entry in enumerate(data["inputs"]):
        for axis, dim in entry.get("dynamic", {}).items():
            if not (axis.isascii() and axis.isdigit() and len(axis) < 10 and int(axis) < len(entry["shape"])):
                return f"inputs[{at}].dynamic: {axis!r} is not an axis of its shape"
            if dim["step"] < 1 or dim["low"] > dim["high"] or dim["high"] // dim["step"] * dim["step"] < dim["low"]:
                return f"inputs[{at}].dynamic.{axis}: there is no size in this range"
    return ""


def read_manifest(folder: Path, *, unverified: bool = False) -> dict[str, Any]:
    """The manifest of a bundle, checked.

    Args:
        folder: the bundle.
        unverified: whether one that failed verification is read as well.

    Raises:
        GraphForgeError: the folder is not a bundle, or one that failed verification; or a file of it is a link that
            leads out, a pipe or a device.
    """
    path = inside(folder, "manifest.json")
    failed = inside(folder, "manifest.unverified.json")
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
    data = read_json(path, "the manifest of a bundle", "compile the model again")
    version = data.get("schema", MANIFEST_SCHEMA) if isinstance(data, dict) else MANIFEST_SCHEMA
    if isinstance(version, int) and version > MANIFEST_SCHEMA:
        raise GraphForgeError(
            f"{str(path)!r} has schema {version}, and this graphforge reads up to {MANIFEST_SCHEMA}",
            "it was written by a newer graphforge: use that one, or compile the model again",
        )
    bad = manifest_fault(data)
    if bad:
        raise GraphForgeError(f"{str(path)!r} is not the manifest of a bundle: {bad}", "compile the model again")
    manifest: dict[str, Any] = data
    for name in manifest["files"]:
        inside(folder, name)
    return manifest


def locate_artifact(bundle: Path, *, unverified: bool = False) -> tuple[Path, dict[str, Any]]:
    """The ONNX file of a bundle and its manifest, which is empty where a bare ONNX file is given.

    Args:
        bundle: the folder, or the file.
        unverified: whether one that failed verification is located as well.

    Raises:
        GraphForgeError: it is neither a bundle nor an ONNX file, or the bundle has no ONNX file.
    """
    if bundle.is_file() and bundle.suffix == ".onnx":
        return bundle, {}
    if bundle.is_file():
        raise GraphForgeError(
            f"{str(bundle)!r} is neither a bundle nor an ONNX file", "a bundle is a folder made by graphforge compile"
        )
    manifest = read_manifest(bundle, unverified=unverified)
    found = [name for name in manifest["files"] if name.endswith(".onnx")]
    if unverified and found and not (bundle / found[0]).is_file():
        kept = inside(bundle, f"{Path(found[0]).stem}.unverified.onnx")
        found = [kept.name] if kept.is_file() else found
    if not found:
        raise GraphForgeError(
            f"bundle {str(bundle)!r} contains no ONNX file to run, but {', '.join(manifest['files']) or 'nothing'}"
        )
    if not (bundle / found[0]).is_file():
        raise GraphForgeError(f"bundle {str(bundle)!r} lacks its file {found[0]!r}", "compile the model again")
    return bundle / found[0], manifest


def onnx_files_of(folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """The ONNX files of a bundle that are there."""
    found = [folder / name for name in manifest.get("files", ()) if name.endswith(".onnx")]
    return [file for file in found if file.is_file()]


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
