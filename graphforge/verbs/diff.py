"""`graphforge.diff`: where one form of a model goes another way than its reference, down to the node and the line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.prepare import ModelLike, Prepared, example_feeds, prepare, reference_runner, to_canonical, to_ir
from graphforge.runners.recorded import locate_artifact, read_manifest

if TYPE_CHECKING:
    from graphforge.diagnosis import Artifact, Diagnosis, Tape
    from graphforge.journal import Progress

__all__ = ["diff", "reference_values"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def diff(
    model: ModelLike,
    against: str | os.PathLike[str],
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    layers: str = "modules",
    tolerances: Any = None,
    memory: int | str | None = None,
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Compare every value of a model with what was compiled from it, and name the node and line that is wrong.

    Args:
        model: the reference: a PyTorch model as ``graphforge.compile`` takes it, a ``.pt2``, an ONNX file or a bundle.
        against: the bundle (a ``Bundle`` or its folder), or an ONNX file, that is held against it.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        layers: what is printed: ``modules``, ``all`` values, or those of modules whose path fits a pattern.
        tolerances: what counts as equal, as ``graphforge.compile`` takes it.
        memory: bytes of values held at once, a number or text such as ``"1GB"``; what is over it goes to disk.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        progress: called with the name of each step as it begins.

    Returns:
        The diagnosis: ``agrees``, ``causes``, ``outputs``, and ``rows``, one for each value of the reference.

    Raises:
        UsageError: there is no such file.
        GraphForgeError: one of the two does not run.
    """
    from graphforge.diagnosis import Artifact, diagnose
    from graphforge.verify.tolerance import as_tolerances

    if not isinstance(against, str | os.PathLike):
        raise UsageError(
            f"against: expected a bundle or a path, got {type(against).__name__}",
            "the order is diff(model, bundle, inputs)",
        )
    allowed, budget = as_tolerances(tolerances), _bytes(memory)
    with declarations(substitutes, custom_ops):
        if not Path(against).exists():
            raise UsageError(
                f"file {os.fspath(against)!r} does not exist",
                f"{argument('against')} names a bundle, or the compiled .onnx file",
            )
        file, manifest = locate_artifact(Path(against))  # told before the model is loaded
        manifest = manifest or dict(_manifest_beside(file))
        artifact = Artifact(_runner_of(file))
        prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        feeds = example_feeds(prepared)
        if progress is not None:
            progress("reference")
        tape, twin = reference_values(prepared, manifest, feeds, budget // 2)
        try:
            if progress is not None:
                progress("compare")
            return diagnose(
                tape,
                artifact,
                feeds,
                tolerances=allowed,
                padding=manifest.get("padding", ()),
                memory=budget // 2,
                twin=twin,
                layers=layers,
                notes=prepared.notes,
            )
        finally:
            tape.close()


def reference_values(
    prepared: Prepared, manifest: Mapping[str, Any], feeds: Mapping[str, Any], memory: int
) -> tuple[Tape, Callable[[], Artifact | None] | None]:
    """The reference's values, and how to compile it anew."""
    from graphforge.diagnosis.program import tape_of_program
    from graphforge.runners.eager import EagerRunner

    reference = reference_runner(prepared)
    if not isinstance(reference, EagerRunner):
        raise UsageError(
            f"{prepared.loaded.spec!r} is an ONNX file and has no modules to compare with",
            "give the PyTorch model that it was compiled from",
        )
    target = manifest.get("target", {}).get("name", "onnx")
    lowered, _ = to_ir(prepared, target=target)
    assert prepared.captured is not None
    tape = tape_of_program(prepared.captured, reference, feeds, memory=memory)
    made: list[Artifact | None] = []

    def twin() -> Artifact | None:
        if not made:
            made.append(_compiled(lowered, manifest))
        return made[0]

    return tape, twin


def _compiled(model: Any, manifest: Mapping[str, Any]) -> Artifact | None:
    """The model compiled anew with the passes that the manifest records; None where they are not all ours."""
    from graphforge.diagnosis import Artifact
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
    from graphforge.targets import get_target
    from graphforge.targets.onnx.naming import assign_names
    from graphforge.targets.options import options_for
    from graphforge.transform import Pipeline

    recorded = manifest.get("passes", [])
    try:
        if recorded:
            if any(one.get("source") for one in recorded):
                return None
            Pipeline.parse(",".join(one["spec"] for one in recorded)).run(model)
        else:
            to_canonical(model)
            target = get_target("onnx")
            Pipeline(target.pipeline(options_for(target))).run(model)
    except GraphForgeError:
        return None
    model.graph.opset_imports[""] = manifest.get("artifact", {}).get("opset") or model.graph.opset_imports[""]
    assign_names(model)
    return Artifact(OnnxRuntimeRunner(model))


def _runner_of(file: Path) -> Any:
    """How to run it; operators of the user's own by their libraries."""
    from graphforge.runners.custom_ops import runner_for
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    runner = runner_for(file)
    return runner if isinstance(runner, OnnxRuntimeRunner) else OnnxRuntimeRunner(file)


def _manifest_beside(file: Path) -> Mapping[str, Any]:
    """The manifest of the bundle that a file lies in, for a file of a bundle that is named itself."""
    try:
        manifest = read_manifest(file.parent, unverified=True)
    except GraphForgeError:
        return {}
    return manifest if file.name in manifest["files"] else {}


def _bytes(memory: int | str | None) -> int:
    from graphforge.diagnosis import MEMORY

    if memory is None:
        return MEMORY
    text = str(memory).strip().lower()
    digits = text.rstrip("bgikm").strip()
    unit = text[len(digits) :].strip()
    try:
        size = int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError):
        size = 0
    if size <= 0:
        raise UsageError(f"{argument('memory', memory)}: expected a number of bytes", "for example 1GB, or 512MB")
    return size
