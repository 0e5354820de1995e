"""The verbs of the command line as functions: each prepares what it is given and hands it to the folder that knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError
from graphforge.prepare import Prepared, prepare, reference_runner, to_canonical, to_ir
from graphforge.runners.recorded import locate_artifact, spec_of_manifest

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.opsets.answer import OpsetAnswer
    from graphforge.runners.eager import EagerRunner
    from graphforge.transform import Pass
    from graphforge.verify.bisect import BisectReport
    from graphforge.verify.profile import ProfileReport
    from graphforge.verify.tolerance import Tolerances

__all__ = ["answer_for_prepared", "bisect", "profile"]


def bisect(
    prepared: Prepared,
    passes: Sequence[Pass] | None = None,
    *,
    tolerances: Tolerances | None = None,
    progress: Callable[[str], None] | None = None,
) -> BisectReport:
    """Find the first pass of the canonical pipeline (or another) after which a prepared model departs from eager.

    Raises:
        GraphForgeError: the model cannot be captured, lowered or run.
    """
    from graphforge.passes import default_pipeline
    from graphforge.runners.eager import EagerRunner
    from graphforge.verify.bisect import bisect_passes

    model, _ = to_ir(prepared)
    reference = reference_runner(prepared)
    feeds = reference.example() if isinstance(reference, EagerRunner) else prepared.feeds
    return bisect_passes(
        model,
        list(default_pipeline()) if passes is None else passes,
        feeds,
        expected=reference.run(feeds),
        tolerances=tolerances,
        progress=progress,
    )


def answer_for_prepared(
    prepared: Prepared,
    *,
    target: str | None = None,
    capture: str = "auto",
    outputs: str | None = None,
    nms: str | None = None,
) -> tuple[OpsetAnswer, ir.Model]:
    """What each opset can do for a PyTorch model, and the model as it would be delivered at the home opset.

    Args:
        prepared: the model.
        target: only this runtime.
        capture, outputs, nms: as ``compile`` takes them.

    Raises:
        GraphForgeError: the model cannot be captured or lowered.
        UsageError: the target is unknown.
    """
    from graphforge.opsets.answer import answer_for_model
    from graphforge.targets.support import runtimes

    runtimes(target)  # an unknown name is told before any work is done
    model, _ = to_ir(prepared, capture=capture)
    to_canonical(model)
    return answer_for_model(model, target=target, outputs=outputs, nms=nms), model


def profile(
    bundle: Path | str,
    model: EagerRunner | None = None,
    *,
    runs: int = 100,
    warmup: int = 10,
    threads: int | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> ProfileReport:
    """Measure a bundle (or an ONNX file), beside its eager model where there is one.

    Args:
        bundle: a bundle's folder, or an ONNX file.
        model: the eager model; None rebuilds it from the bundle's manifest.
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
    eager = model
    if eager is None:
        try:
            eager = _rebuild(manifest, seed)
        except GraphForgeError as error:
            notes.append(f"eager is left out: {error.message}")
    how: dict[str, Any] = {"runs": runs, "warmup": warmup, "threads": threads, "sizes": sizes, "seed": seed}
    return measure(path, manifest, eager, notes=notes, **how)


def _rebuild(manifest: Mapping[str, Any], seed: int) -> EagerRunner:
    from graphforge.frontend.load import load_model
    from graphforge.runners.eager import EagerRunner

    record = manifest.get("model") or {}
    spec = record.get("spec")
    if not manifest:
        raise GraphForgeError("a bare ONNX file does not say which model it was made from")
    if not spec:
        raise GraphForgeError("the bundle was compiled from a module in memory, which its manifest cannot rebuild")
    loaded = load_model(spec, checkpoint=record.get("checkpoint"), kwargs=record.get("kwargs"))
    if loaded.onnx_path is not None:
        raise GraphForgeError("the bundle was compiled from an ONNX file")
    given = None if loaded.example is not None or loaded.program is not None else spec_of_manifest(manifest)
    runner = reference_runner(prepare(loaded, given, seed=seed))
    assert isinstance(runner, EagerRunner)
    return runner
