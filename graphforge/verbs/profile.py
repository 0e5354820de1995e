"""`graphforge.profile`: latency of a bundle beside its eager model, measured interleaved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError
from graphforge.prepare import ModelLike, load, prepare, reference_runner
from graphforge.runners.recorded import locate_artifact, spec_of_manifest

if TYPE_CHECKING:
    from graphforge.runners.eager import EagerRunner
    from graphforge.verify.profile import ProfileReport

__all__ = ["profile"]


def profile(
    bundle: str | os.PathLike[str],
    model: ModelLike | None = None,
    inputs: Any = None,
    *,
    runs: int = 100,
    warmup: int = 10,
    threads: int | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> ProfileReport:
    """Measure a bundle (or an ONNX file), beside its eager model where there is one.

    Args:
        bundle: a ``Bundle`` or its folder, or an ONNX file.
        model: the eager model, as ``graphforge.compile`` takes it; None rebuilds it from the bundle's manifest.
        inputs: the example call of ``model``; None is what the bundle's manifest records.
        runs: timed runs of each side.
        warmup: untimed runs before.
        threads: threads of each side; None takes every usable CPU.
        sizes: sizes of dynamic dims, by name; others stand as in the example.
        seed: of the random inputs.

    Raises:
        GraphForgeError: there is no such bundle, or the artifact does not run.
    """
    from graphforge.verify.profile import profile as measure

    path, manifest = locate_artifact(Path(bundle))
    notes: list[str] = []
    eager = None
    if model is not None:
        eager = _eager(model, inputs, manifest, seed)
    else:
        try:
            eager = _rebuilt(manifest, seed)
        except GraphForgeError as error:
            notes.append(f"eager is left out: {error.message}")
    how: dict[str, Any] = {"runs": runs, "warmup": warmup, "threads": threads, "sizes": sizes, "seed": seed}
    return measure(path, manifest, eager, notes=notes, **how)


def _rebuilt(manifest: Mapping[str, Any], seed: int) -> EagerRunner:
    from graphforge.frontend.load import load_model

    record = manifest.get("model") or {}
    spec = record.get("spec")
    if not manifest:
        raise GraphForgeError("a bare ONNX file does not say which model it was made from")
    if not spec:
        raise GraphForgeError("the bundle was compiled from a module in memory, which its manifest cannot rebuild")
    loaded = load_model(spec, checkpoint=record.get("checkpoint"), kwargs=record.get("kwargs"))
    return _eager(loaded, None, manifest, seed)


def _eager(model: ModelLike, inputs: Any, manifest: Mapping[str, Any], seed: int) -> EagerRunner:
    from graphforge.runners.eager import EagerRunner

    loaded = load(model)
    if loaded.onnx_path is not None:
        raise GraphForgeError(
            f"{loaded.spec!r} is an ONNX file and not an eager model",
            "give the PyTorch model that it was compiled from",
        )
    if inputs is None and loaded.example is None and loaded.program is None and manifest:
        inputs = spec_of_manifest(manifest)
    runner = reference_runner(prepare(loaded, inputs, seed=seed))
    assert isinstance(runner, EagerRunner)
    return runner
