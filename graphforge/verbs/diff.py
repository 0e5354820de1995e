"""`graphforge.diff`: where one form of a model goes another way than its reference, down to the node and the line."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.prepare import ModelLike, Prepared, example_feeds, load, prepare, reference_runner, to_canonical, to_ir
from graphforge.runners.recorded import locate_artifact, read_manifest
from graphforge.shown import short_source
from graphforge.verbs.admitting import admitted
from graphforge.verbs.other_model import OtherModel, model_among, other_model
from graphforge.verbs.own_runtime import OwnRuntime, own_runtime_of

if TYPE_CHECKING:
    from graphforge.diagnosis import Artifact, Cause, Diagnosis, Tape
    from graphforge.journal import Progress

__all__ = ["diff", "reference_values"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def diff(
    model: ModelLike,
    against: ModelLike,
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
    watch: Callable[[str, Any, Any], None] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Compare every value of a model with what was compiled from it, and name the node and line that is wrong.

    Args:
        model: the reference: a PyTorch model as ``graphforge.compile`` takes it, a ``.pt2``, an ONNX file or a bundle.
        against: what is held against it: the bundle (a ``Bundle`` or its folder), an ONNX file, or another PyTorch
            model that takes the same inputs.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        layers: what is printed: ``modules``, ``all`` values, or those of modules whose path fits a pattern.
        tolerances: what counts as equal, as ``graphforge.compile`` takes it.
        memory: bytes of values held at once, a number or text such as ``"1GB"``; what is over it goes to disk.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        watch: called with the name of each value of the file that is compared, the reference's array and the file's,
            which must not be kept: for measures of your own.
        progress: called with the name of each step as it begins.

    Returns:
        The diagnosis: ``agrees``, ``causes``, ``outputs``, and ``rows``, one for each value of the reference.

    Raises:
        UsageError: there is no such file.
        GraphForgeError: one of the two does not run, or has nothing to run.
    """
    from graphforge.diagnosis import diagnose, diagnose_by_image, of_one_image, weights_of
    from graphforge.verify.tolerance import as_tolerances

    allowed, budget = as_tolerances(tolerances), _bytes(memory)
    with declarations(substitutes, custom_ops), ExitStack() as trusted:
        loaded = model_among(against)
        file = _file_against(against) if loaded is None else None  # told before the model is loaded
        prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        feeds = example_feeds(prepared)
        given = {"kwargs": kwargs, "dynamic_shapes": dynamic_shapes, "seed": seed}
        own, artifact, manifest = file or _model_against(loaded, prepared, inputs, given)
        theirs = [one for one in (prepared.loaded.onnx_path, artifact.source.path) if one is not None]
        trusted.enter_context(admitted(theirs))
        weights = weights_of(artifact, weights_by_name(prepared))
        if progress is not None:
            progress("reference")
        reference = reference_values(prepared, manifest, budget // 3)
        images = None if prepared.captured is None else prepared.captured.images
        body = None
        if images is not None:
            body = of_one_image(artifact)
            if isinstance(own.runner, OtherModel) and own.runner.is_of_one_image:
                body = artifact
        try:
            asked: dict[str, Any] = {
                "tolerances": allowed,
                "padding": manifest.get("padding", ()),
                "memory": budget // 3,  # the last third is for the values that are being compared
                "twin": reference.twin,
                "full": lambda: _in_full(prepared, manifest),
                "layers": layers,
                "weights": weights,
                "watch": watch,
                "own": None if own.runner is None else own.runner.run,
                "notes": [*own.notes, *prepared.notes],
            }
            if body is None or images is None:
                tape = reference.tape_of(feeds)
                try:
                    if progress is not None:
                        progress("compare")
                    report = diagnose(tape, artifact, feeds, **asked)
                finally:
                    tape.close()
            else:
                if progress is not None:
                    progress("compare")
                expected = reference_runner(prepared).run(feeds)
                report = diagnose_by_image(images, artifact, body, feeds, expected, reference.tape_of, **asked)
            _check_pattern(layers, {row.entry.call.path for row in report.rows})
            if loaded is not None:
                report = replace(report, causes=tuple(_with_its_line(cause, artifact) for cause in report.causes))
            again = _drawn_anew(prepared) if report.has_other_weights else ""
            return replace(report, notes=(*report.notes, again)) if again else report
        finally:
            if own.runner is not None:
                own.runner.close()


def _file_against(against: Any) -> tuple[OwnRuntime, Artifact, dict[str, Any]]:
    """A bundle or an ONNX file, what runs it, and its manifest."""
    from graphforge.diagnosis import Artifact

    if not isinstance(against, str | os.PathLike):
        raise UsageError(
            f"against: expected a bundle, a path or a model, got {type(against).__name__}",
            "the order is diff(model, bundle, inputs)",
        )
    if not Path(against).exists():
        raise UsageError(
            f"file {os.fspath(against)!r} does not exist",
            f"{argument('against')} names a bundle, the compiled .onnx file, or another model",
        )
    file, manifest = locate_artifact(Path(against), unverified=True)  # why it failed is what is asked
    own = own_runtime_of(Path(against), manifest)
    return own, Artifact(_runner_of(file), own.graph_runner), manifest or manifest_beside(file)


def _model_against(
    loaded: ModelLike | None, reference: Prepared, inputs: Any, given: Mapping[str, Any]
) -> tuple[OwnRuntime, Artifact, dict[str, Any]]:
    """Another PyTorch model: a graph of its program, and PyTorch for its outputs."""
    assert loaded is not None
    if reference.loaded.onnx_path is None:
        to_ir(reference)
    other = other_model(loaded, reference, inputs, **given)
    graph, manifest = other.graph(reference)
    artifact = _compiled(graph, manifest)
    if artifact is None:
        raise GraphForgeError(f"{other.name} does not become a graph that ONNX Runtime runs")
    note = f"the outputs are those of {other.name} in PyTorch; its values are those of its program in ONNX Runtime"
    return OwnRuntime(other, notes=(note,)), artifact, manifest


def _with_its_line(cause: Cause, artifact: Artifact) -> Cause:
    """A place in another PyTorch model, with the line there."""
    sources = [one.origins[0].source for one in artifact.nodes if one.name in cause.nodes and one.origins]
    line = f"there it is {short_source(sources[-1])}" if sources and sources[-1] else ""
    return replace(cause, note="; ".join(filter(None, (cause.note, line))))


def _check_pattern(layers: str, paths: set[str]) -> None:
    """Refuse a pattern that no module's path fits: a table without rows would pass for one without faults."""
    if layers in ("modules", "all") or not paths or fnmatch.filter(sorted(paths), layers):
        return
    near = difflib.get_close_matches(layers, sorted(paths - {""}), n=3, cutoff=0.5)
    raise UsageError(
        f"{argument('layers')}: no module fits {layers!r}",
        f"did you mean {' or '.join(near)}?" if near else "",
        "it is modules, all, or a pattern of module paths such as 'backbone.*'",
    )


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """The reference, value by value.

    Attributes:
        tape_of: its values for inputs.
        twin: what shows how each node ought to be: the model compiled anew, or the file itself.
    """

    tape_of: Callable[[Mapping[str, Any]], Tape]
    twin: Callable[[], Artifact | None]


def reference_values(prepared: Prepared, manifest: Mapping[str, Any], memory: int) -> ReferenceValues:
    """The reference's values, up to so many bytes of them in memory."""
    from graphforge.diagnosis import Artifact, tape_of_file
    from graphforge.diagnosis.program import tape_of_program
    from graphforge.runners.eager import EagerRunner
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    reference = reference_runner(prepared)
    if not isinstance(reference, EagerRunner):
        assert isinstance(reference, OnnxRuntimeRunner)
        assert prepared.loaded.onnx_path is not None
        file = Artifact(reference)
        padding = manifest_beside(prepared.loaded.onnx_path).get("padding", ())
        return ReferenceValues(partial(tape_of_file, file, memory=memory, padding=padding), lambda: file)
    target = manifest.get("target", {}).get("name", "onnx")
    lowered, _ = to_ir(prepared, target=target)
    assert prepared.captured is not None
    made: list[Artifact | None] = []

    def twin() -> Artifact | None:
        if not made:
            made.append(_compiled(lowered, manifest))
        return made[0]

    return ReferenceValues(partial(tape_of_program, prepared.captured, reference, memory=memory), twin)


# Passes that leave a model in fewer digits.
_REDUCING = ("convert-float16", "convert-bfloat16", "quantize")


def _in_full(prepared: Prepared, manifest: Mapping[str, Any]) -> Artifact | None:
    """The model compiled anew in full precision; the file itself, where the reference is one."""
    from graphforge.diagnosis import Artifact

    if prepared.loaded.onnx_path is not None:
        return Artifact(_runner_of(prepared.loaded.onnx_path))
    passes = [one for one in manifest.get("passes", []) if not one["name"].startswith(_REDUCING)]
    return _compiled(to_ir(prepared)[0], {**manifest, "passes": passes})


def _compiled(model: Any, manifest: Mapping[str, Any]) -> Artifact | None:
    """The model compiled anew with the passes that the manifest records; None where they are not all ours."""
    from graphforge.diagnosis import Artifact
    from graphforge.ir.origin import write_origin_metadata
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
    for node in model.graph:
        write_origin_metadata(node)
    return Artifact(OnnxRuntimeRunner(model))


def _runner_of(file: Path) -> Any:
    """How to run it; operators of the user's own by their libraries."""
    from graphforge.runners.custom_ops import runner_for
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
    from graphforge.verify.running import runner_of_file

    runner = runner_for(file)
    configure = runner.configure if isinstance(runner, OnnxRuntimeRunner) else None
    return runner_of_file(file, configure=configure)


def manifest_beside(file: Path) -> dict[str, Any]:
    """The manifest of the bundle that a file lies in; empty where it lies in none."""
    try:
        manifest = read_manifest(file.parent, unverified=True)
    except GraphForgeError:
        return {}
    return manifest if file.name in manifest["files"] else {}


def weights_by_name(prepared: Prepared) -> dict[str, Any]:
    """The reference's weights under the names that a compiled file gives them."""
    from graphforge.diagnosis import Artifact
    from graphforge.runners.arrays import array_from_tensor

    if prepared.loaded.onnx_path is not None:
        return Artifact(_runner_of(prepared.loaded.onnx_path)).arrays()
    program = prepared.loaded.program
    named = prepared.loaded.module.state_dict() if prepared.loaded.module is not None else {}
    named |= {} if program is None else program.state_dict
    return {name: array_from_tensor(tensor) for name, tensor in named.items() if _is_dense(tensor)}


def _is_dense(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized


def _drawn_anew(prepared: Prepared) -> str:
    """Why most weights differ, where building the model once more gives yet others."""
    spec = prepared.loaded.record.get("spec")
    if not isinstance(spec, str) or prepared.loaded.module is None:
        return ""
    try:
        again = load(spec)
    except GraphForgeError:
        return ""
    if again.module is None:
        return ""
    mine, other = prepared.loaded.module.state_dict(), again.module.state_dict()
    same = all(name in other and bool((mine[name] == other[name]).all()) for name in mine if _is_dense(mine[name]))
    if same:
        return ""
    return (
        f"{spec} draws its weights anew each time it is built: seed it, load a checkpoint, or pass the very module "
        "that was compiled"
    )


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
