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
    from graphforge.runners.runner import Runner
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
    """Measure a bundle (or an ONNX file), beside its eager model where that is given.

    Args:
        bundle: a ``Bundle`` or its folder, or an ONNX file.
        model: the eager model, as ``graphforge.compile`` takes it; None leaves eager out.
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
        notes.append(_left_out(manifest))
    how: dict[str, Any] = {"runs": runs, "warmup": warmup, "threads": threads, "sizes": sizes, "seed": seed}
    own = _own_runner(Path(bundle), manifest)
    try:
        return measure(path, manifest, eager, notes=notes, own=own, **how)
    finally:
        if own is not None:
            own.close()


def _own_runner(folder: Path, manifest: Mapping[str, Any]) -> Runner | None:
    """What runs the bundle here, where that is another runtime than ONNX Runtime."""
    from graphforge.targets import get_target

    if not manifest or manifest["files"][0].endswith(".onnx"):
        return None
    target = get_target(manifest["target"]["name"])
    return None if target.runs_here(folder) else target.runner(folder)


def _left_out(manifest: Mapping[str, Any]) -> str:
    """Why eager is missing.  What a manifest says of its model is shown, never imported: anybody may write one."""
    spec = manifest.get("model", {}).get("spec")
    recorded = f"; the manifest records {spec!r}" if spec else ""
    return f"eager is left out: give the model that it was compiled from to measure it as well{recorded}"


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
