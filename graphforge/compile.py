"""The one straight road: model in, verified bundle out.  Each step is a function that can be called alone."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import CaptureError, GraphForgeError, InternalError, UsageError, VerificationError
from graphforge.reproducer import leave_reproducer

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from graphforge.frontend.capture import CallInputs
    from graphforge.frontend.load import LoadedModel
    from graphforge.frontend.spec import ShapeSpec
    from graphforge.targets.target import EmitResult, Runner, Target, TargetOptions
    from graphforge.transform import Pass, PassRecord
    from graphforge.verify import VerificationReport

__all__ = [
    "Bundle",
    "Prepared",
    "canonical_passes",
    "compile",
    "destination",
    "example_feeds",
    "prepare",
    "reference_runner",
    "to_canonical",
    "to_ir",
]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A finished compilation.

    Attributes:
        path: the folder with the artifacts and ``manifest.json``.
        manifest: what was done, by which versions, how close; the same as ``manifest.json``.
    """

    path: Path
    manifest: dict[str, Any]


@dataclass(slots=True)
class Prepared:
    """A model with its inputs named and its shape spec settled: what every verb that takes a MODEL starts from.

    Attributes:
        loaded: the model.
        shapes: its tensor inputs and dynamic dims.
        inputs: the example call; None for an ONNX file.
        feeds: the example tensors by input name (numpy), for an ONNX file.
    """

    loaded: LoadedModel
    shapes: ShapeSpec
    inputs: CallInputs | None = None
    feeds: dict[str, Any] = field(default_factory=dict)


class _Journal:
    """Steps with their times and node counts, and the notes gathered on the way."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.steps: list[dict[str, Any]] = []
        self.notes: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        if self.progress is not None:
            self.progress(name)
        record: dict[str, Any] = {"name": name, "seconds": 0.0}
        start = time.perf_counter()
        try:
            yield record
        finally:
            record["seconds"] = round(time.perf_counter() - start, 4)
            self.steps.append(record)


def compile(  # the name a user expects: graphforge.compile(model, inputs)
    model: torch.nn.Module | torch.export.ExportedProgram | LoadedModel | str | Path,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Mapping[str, Mapping[int, Any]] | None = None,
    target: str | Target = "onnx",
    opset: int | None = None,
    precision: str | None = None,
    target_options: Mapping[str, Any] | None = None,
    outputs: str | None = None,
    nms: str | None = None,
    capture: str = "auto",
    passes: Sequence[Pass] = (),
    pipeline: str | Sequence[Pass] | None = None,
    check_passes: bool = False,
    verify: bool = True,
    keep_unverified: bool = False,
    tolerances: Any = None,
    seed: int = 0,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a verified bundle.

    Args:
        model: an nn.Module, an ExportedProgram, a model spec or file path (see ``graphforge compile --help``).
        inputs: example inputs: a tensor, a tuple of positional inputs, a dict of keyword inputs, or a ShapeSpec
            (random tensors are drawn from ``seed``). None for a model that brings its own.
        kwargs: further keyword inputs of the call.
        dynamic_shapes: input name -> axis -> ``(low, high)``, ``(low, high, step)`` or a ``DimRange``.
        target: name of a target, or a Target.
        opset: opset of the default domain to deliver; None lets the target choose.
        precision: the target's name for the arithmetic.
        target_options: options that only this target knows.
        outputs: for results whose size depends on data: ``ragged`` as eager returns them, or ``padded`` to a fixed size
            with the count beside them (``num_dets``); None lets the target choose.
        nms: ``native`` uses ONNX's NonMaxSuppression, ``portable`` plain tensor algebra; None lets the target choose.
        capture: ``auto``, ``export``, ``export-strict``, ``fx`` or ``trace``.
        passes: run after the canonical pipeline.
        pipeline: instead of the canonical pipeline: a list of passes or text, ``"a,b{x=1}"``.
        check_passes: run the graph before and after every pass and stop at the first one that changes a result.
        verify: compare the artifact with the reference; False says so in the manifest.
        keep_unverified: on failed verification keep the artifact as ``model.unverified.onnx``.
        tolerances: see ``graphforge.verify``; loosening is recorded in the manifest.
        seed: of random inputs.
        output: folder of the bundle; an earlier bundle there is replaced, any other folder is refused.
        progress: called with the name of each step as it begins.

    Raises:
        GraphForgeError: what the user can mend; nothing is left half-written.
        VerificationError: the artifact departs from the reference.
    """
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
    from graphforge.targets import get_target
    from graphforge.targets.target import TargetOptions

    journal = _Journal(progress)
    chosen = get_target(target) if isinstance(target, str) else target
    missing = chosen.available()
    if missing is not None:
        raise GraphForgeError(f"target {chosen.name} does not work here: {missing}")
    options = TargetOptions(
        opset=opset, precision=precision, extra=dict(target_options or {}), outputs=outputs, nms=nms
    )
    target_passes = chosen.pipeline(options)  # refuses impossible options before any work is done
    canonical = canonical_passes(pipeline, passes)
    folder = destination(output, _name_of(model))
    prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)

    lowered, facts = to_ir(prepared, capture=capture, target=chosen.name, journal=journal)
    try:
        records = _run_passes("canonicalise", lowered, canonical, check_passes, prepared, journal)
        records += _run_passes(f"legalise for {chosen.name}", lowered, target_passes, check_passes, prepared, journal)
    except InternalError as bug:
        everything = [*canonical, *target_passes]
        leave_reproducer(
            bug, lambda: to_ir(prepared, capture=capture, target=chosen.name)[0], everything, prepared.shapes
        )
        raise

    with _staging(folder) as staging:
        with journal.step("emit") as step:
            emitted = chosen.emit(lowered, staging, options, prepared.shapes)
            step["nodes"] = _count(lowered)
        journal.notes += emitted.notes
        report = None
        if verify:
            with journal.step("verify"):
                padding = lowered.meta.get(PADDED_OUTPUTS, ())
                report = _verify(prepared, chosen, staging, tolerances, seed, progress, padding)
        outcome = _outcome(report, verify, chosen, journal)
        manifest = _manifest(prepared, chosen, options, emitted, lowered, facts, records, outcome, journal)
        if report is not None and not report.passed:
            kept = _keep(staging, folder, emitted, manifest) if keep_unverified else ""
            error = report.error()
            raise VerificationError(error.message, *error.notes, kept or "add --keep-unverified to keep the artifact")
        _write_json(staging / "manifest.json", manifest)
    return Bundle(folder, manifest)


# -- the steps ---------------------------------------------------------------------------------------------------------


def prepare(
    model: Any,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Mapping[str, Mapping[int, Any]] | None = None,
    seed: int = 0,
) -> Prepared:
    """Load the model if need be, name its inputs, settle the shape spec.

    Raises:
        GraphForgeError: the model or inputs are at fault.
    """
    from graphforge.frontend.load import LoadedModel, load_model

    if isinstance(model, str | Path):
        loaded = load_model(str(model))
    elif isinstance(model, LoadedModel):
        loaded = model
    else:
        loaded = _loaded_from_object(model)
    if loaded.onnx_path is not None:
        return _prepare_onnx(loaded, inputs, dynamic_shapes, seed)
    return _prepare_torch(loaded, inputs, dict(kwargs or {}), dynamic_shapes, seed)


def _loaded_from_object(model: Any) -> LoadedModel:
    import torch

    from graphforge.frontend.load import LoadedModel

    if isinstance(model, torch.export.ExportedProgram):
        return LoadedModel("<ExportedProgram>", program=model, record={"spec": None})
    if isinstance(model, torch.nn.Module):
        return LoadedModel(f"<{type(model).__name__}>", module=model, record={"spec": None})
    raise UsageError(
        f"expected an nn.Module, an ExportedProgram or a model spec, got {type(model).__name__}",
        "wrap a function in an nn.Module whose forward calls it",
    )


def _prepare_torch(
    loaded: LoadedModel,
    inputs: Any,
    kwargs: dict[str, Any],
    dynamic_shapes: Mapping[str, Mapping[int, Any]] | None,
    seed: int,
) -> Prepared:
    import torch

    from graphforge.frontend.capture import input_tree
    from graphforge.frontend.spec import ShapeSpec

    program = loaded.program
    if program is not None and inputs is None and program.example_inputs is not None:
        inputs, given = program.example_inputs
        kwargs = {**given, **kwargs}
    if inputs is None and not kwargs and loaded.example is not None:
        inputs, kwargs = loaded.example
    if inputs is None and not kwargs:
        raise UsageError(
            "no inputs were given and the model brings none",
            "say what it takes: --input 'x:1x3x224x224', or return (model, inputs) from the callable",
        )
    if isinstance(inputs, ShapeSpec):
        drawn = _draw(inputs, seed)
        args, kwargs = _placed(loaded, drawn, kwargs)
    elif isinstance(inputs, torch.Tensor):
        args = (inputs,)
    elif isinstance(inputs, Mapping):
        args, kwargs = (), {**inputs, **kwargs}
    else:
        args = tuple(inputs or ())
    callee: Any = loaded.module if loaded.module is not None else program.module() if program is not None else None
    tree = input_tree(callee, args, kwargs)
    wanted = _ranges(dynamic_shapes)
    if isinstance(inputs, ShapeSpec):
        for name, spec in zip(tree.names, inputs.inputs, strict=False):
            wanted[name] = {**spec.dims, **wanted.get(name, {})}
    shapes = tree.spec().with_dynamic(wanted)
    return Prepared(loaded, shapes, inputs=tree)


def _placed(
    loaded: LoadedModel, drawn: dict[str, Any], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Named tensors as positional and keyword arguments; names that are no parameter go by position."""
    import inspect

    forward = getattr(loaded.module, "forward", None)
    try:
        parameters = list(inspect.signature(forward).parameters.values()) if forward is not None else []
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if drawn and all(name in names for name in drawn):
        return (), {**drawn, **kwargs}
    known = [name for name in drawn if name in names]
    if known:
        wrong = next(name for name in drawn if name not in names)
        raise UsageError(f"the model has no input {wrong!r}", f"its forward takes: {', '.join(names)}")
    return tuple(drawn.values()), kwargs


def _draw(spec: ShapeSpec, seed: int) -> dict[str, torch.Tensor]:
    from graphforge.verify.inputs import random_feeds
    from graphforge.verify.runners import tensor_from_array

    feeds = random_feeds(spec, spec.example_sizes(), seed=seed)
    return {name: tensor_from_array(array) for name, array in feeds.items()}


def _ranges(dynamic_shapes: Mapping[str, Mapping[int, Any]] | None) -> dict[str, dict[int, Any]]:
    from graphforge.frontend.spec import DimRange

    ranges: dict[str, dict[int, Any]] = {}
    for name, axes in (dynamic_shapes or {}).items():
        for axis, given in axes.items():
            if not isinstance(given, DimRange):
                if not isinstance(given, tuple) or not 2 <= len(given) <= 3:
                    raise UsageError(f"dynamic_shapes[{name!r}][{axis}]: expected (low, high), got {given!r}")
                given = DimRange(f"{name}_{axis}".replace(".", "_"), *given)
            ranges.setdefault(name, {})[axis] = given
    return ranges


def _prepare_onnx(
    loaded: LoadedModel, inputs: Any, dynamic_shapes: Mapping[str, Mapping[int, Any]] | None, seed: int
) -> Prepared:
    from graphforge.frontend.onnx_import import input_spec
    from graphforge.frontend.spec import ShapeSpec
    from graphforge.verify.inputs import random_feeds

    assert loaded.onnx_path is not None
    given = inputs if isinstance(inputs, ShapeSpec) else None
    shapes = input_spec(loaded.onnx_path, given).with_dynamic(_ranges(dynamic_shapes))
    if isinstance(inputs, Mapping):
        feeds = {name: _as_numpy(value) for name, value in inputs.items()}
    elif inputs is None or given is not None:
        feeds = random_feeds(shapes, shapes.example_sizes(), seed=seed)
    else:
        values = inputs if isinstance(inputs, tuple | list) else (inputs,)
        feeds = {spec.name: _as_numpy(value) for spec, value in zip(shapes.inputs, values, strict=True)}
    return Prepared(loaded, shapes, feeds=feeds)


def _as_numpy(value: Any) -> Any:
    from graphforge.verify.runners import array_from_tensor

    return array_from_tensor(value) if hasattr(value, "detach") else value


def to_ir(
    prepared: Prepared, *, capture: str = "auto", target: str | None = None, journal: _Journal | None = None
) -> tuple[ir.Model, dict[str, Any]]:
    """Capture and lower (or import) a prepared model; ``target`` chooses among the declared substitutions.

    Returns:
        The model at level CAPTURED, and what the manifest says of how it was obtained.

    Raises:
        CaptureError, LoweringError: with what failed and where.
    """
    journal = journal or _Journal(None)
    if prepared.loaded.onnx_path is not None:
        from graphforge.frontend.onnx_import import IMPORT_NOTES, import_onnx

        with journal.step("import") as step:
            model = import_onnx(prepared.loaded.onnx_path)
            journal.notes += model.meta.get(IMPORT_NOTES, ())
            step["nodes"] = _count(model)
        return model, {"method": "onnx", "failures": {}, "substitutions": [], "fallbacks": [], "decomposed": {}}
    from graphforge.frontend.capture import capture as run_capture
    from graphforge.frontend.capture import captured_from_loaded_program
    from graphforge.frontend.lower import lower

    assert prepared.inputs is not None
    with journal.step("capture") as step:
        if prepared.loaded.program is not None:
            captured = captured_from_loaded_program(prepared.loaded.program, prepared.inputs, prepared.shapes)
        else:
            module = prepared.loaded.module
            assert module is not None
            if module.training:
                journal.notes.append("the model was in training mode; it is compiled in eval mode")
                module.eval()
            try:
                captured = run_capture(module, prepared.inputs, prepared.shapes, method=capture, target=target)
            except CaptureError:
                _see_that_it_runs(module, prepared.inputs)  # if it does not, that is the better answer
                raise
        step["nodes"] = len(captured.graph_module.graph.nodes)
    with journal.step("lower") as step:
        lowered = lower(captured)
        step["nodes"] = _count(lowered.model)
    journal.notes += lowered.notes
    return lowered.model, {
        "method": captured.method,
        "failures": captured.failures,
        "substitutions": captured.substitutions,
        "fallbacks": [
            {"operator": name, "module": module, "source": source} for name, module, source in lowered.fallbacks
        ],
        "decomposed": lowered.decomposed,
    }


def _see_that_it_runs(module: torch.nn.Module, inputs: CallInputs) -> None:
    import torch

    try:
        with torch.no_grad():
            module(*inputs.args, **inputs.kwargs)
    except Exception as error:  # the user's code may raise anything
        given = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs.spec().inputs)
        raise GraphForgeError(
            f"the model does not run on these inputs: {type(error).__name__}: {error}", f"given: {given}"
        ) from None


def to_canonical(model: ir.Model, *, pipeline: str | Sequence[Pass] | None = None) -> list[PassRecord]:
    """Run the canonical pipeline (or another) on a captured model, in place."""
    from graphforge.transform import Pipeline

    return Pipeline(canonical_passes(pipeline, ())).run(model)


def canonical_passes(pipeline: str | Sequence[Pass] | None, extra: Sequence[Pass] = ()) -> list[Pass]:
    """The passes to run: the canonical pipeline, or another as a list or as text, then ``extra``."""
    if pipeline is None:
        from graphforge.passes import default_pipeline

        return [*default_pipeline(), *extra]
    if isinstance(pipeline, str):
        from graphforge.transform import Pipeline

        return [*Pipeline.parse(pipeline).passes, *extra]
    return [*pipeline, *extra]


def _run_passes(
    name: str, model: ir.Model, passes: Sequence[Pass], check: bool, prepared: Prepared, journal: _Journal
) -> list[PassRecord]:
    from graphforge.transform import NumericCheck, Pipeline

    instruments = [NumericCheck(example_feeds(prepared))] if check else []
    with journal.step(name) as step:
        records = Pipeline(passes).run(model, instruments=instruments)
        step["nodes"] = _count(model)
    journal.notes += [f"{record.name}: {note}" for record in records for note in record.notes]
    return records


def example_feeds(prepared: Prepared) -> dict[str, Any]:
    """The example call's tensors by input name, as numpy arrays."""
    if prepared.inputs is None:
        return prepared.feeds
    return {name: _as_numpy(tensor) for name, tensor in prepared.inputs.tensors.items()}


def _count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())


# -- verification ------------------------------------------------------------------------------------------------------


def reference_runner(prepared: Prepared) -> Runner:
    """What the artifact is compared with: eager PyTorch, or the ONNX file itself in ONNX Runtime."""
    from graphforge.verify.runners import EagerRunner, OnnxRuntimeRunner

    if prepared.loaded.onnx_path is not None:
        runner: Runner = OnnxRuntimeRunner(prepared.loaded.onnx_path, name="original ONNX")
        return runner
    assert prepared.inputs is not None
    module: Any = prepared.loaded.module
    if module is None:
        assert prepared.loaded.program is not None
        module = prepared.loaded.program.module()
    eager: Runner = EagerRunner(module, prepared.inputs)
    return eager


def _verify(
    prepared: Prepared,
    target: Target,
    folder: Path,
    tolerances: Any,
    seed: int,
    progress: Progress | None,
    padding: Sequence[Mapping[str, Any]] = (),
) -> VerificationReport | None:
    """Compare the artifact with the reference; None when nothing here can run it."""
    from graphforge.verify import verify
    from graphforge.verify.padding import UnpaddedRunner

    runner = target.runner(folder)
    if runner is None:
        return None
    if padding:
        runner = UnpaddedRunner(runner, padding)
    try:
        return verify(
            reference_runner(prepared),
            runner,
            prepared.shapes,
            example_feeds(prepared),
            tolerances=tolerances,
            seed=seed,
            progress=progress,
        )
    finally:
        runner.close()


def _outcome(report: VerificationReport | None, wanted: bool, target: Target, journal: _Journal) -> dict[str, Any]:
    if report is not None:
        return report.to_dict()
    reason = f"nothing on this machine runs a {target.name} artifact" if wanted else "the check was switched off"
    journal.notes.append(f"not verified: {reason}")
    return {"passed": None, "skipped": reason}


def _keep(staging: Path, folder: Path, emitted: EmitResult, manifest: dict[str, Any]) -> str:
    """Copy an artifact that failed out of the staging folder, under a name that says so."""
    folder.mkdir(parents=True, exist_ok=True)
    main = Path(emitted.files[0])
    shutil.copy2(staging / main, folder / f"{main.stem}.unverified{main.suffix}")
    if f"{main}.data" in emitted.files:  # the model names its external data, so that file keeps its name
        shutil.copy2(staging / f"{main}.data", folder / f"{main}.data")
    _write_json(folder / "manifest.unverified.json", manifest)
    return f"the artifact is kept, unverified, in {folder}"


# -- the bundle --------------------------------------------------------------------------------------------------------


def _name_of(model: Any) -> str:
    return str(getattr(model, "spec", model if isinstance(model, str | Path) else type(model).__name__))


def destination(output: str | Path | None, name: str) -> Path:
    """The bundle's folder: ``output``, or one named after the model under ``out/``.

    Raises:
        GraphForgeError: it cannot be made there, or something else than a bundle is in the way.
    """
    if output is None:
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in name).strip("_")
        output = Path("out") / (name or "model")
    folder = Path(output)
    if not folder.name:  # "." has no name that a folder beside it could be called after
        folder = folder.resolve()
    if folder.exists():
        if not folder.is_dir():
            raise GraphForgeError(f"output {str(output)!r} is a file, expected a folder", "choose a folder with -o")
        if any(folder.iterdir()) and not any(
            (folder / name).exists() for name in ("manifest.json", "manifest.unverified.json")
        ):
            raise GraphForgeError(
                f"output folder {str(output)!r} exists and is not a bundle",
                "choose an empty or new folder with -o",
            )
    standing = next(parent for parent in (folder.parent, *folder.absolute().parents) if parent.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        reason = "it may not be written to" if standing.is_dir() else "it is a file"
        raise GraphForgeError(
            f"cannot make output folder {str(folder)!r} in {str(standing)!r}: {reason}",
            "choose a writable folder with -o",
        )
    return folder


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder beside the destination that takes its place when all is well and vanishes otherwise."""
    made = [parent for parent in folder.absolute().parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise GraphForgeError(
            f"cannot write to {str(folder.parent)!r}: {error.strerror}", "choose a writable folder with -o"
        ) from None
    try:
        yield staging
        os.chmod(staging, 0o777 & ~_umask())
        retired: Path | None = None
        if folder.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, retired)
        os.replace(staging, folder)
        if retired is not None:
            shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        raise GraphForgeError(
            f"cannot write {str(folder)!r}: {error.strerror}", "free space or choose another folder with -o"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not folder.exists():
            for parent in made:  # the innermost first; one that another process uses by now stays
                with suppress(OSError):
                    parent.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def _manifest(
    prepared: Prepared,
    target: Target,
    options: TargetOptions,
    emitted: EmitResult,
    model: ir.Model,
    facts: Mapping[str, Any],
    records: Sequence[PassRecord],
    report: Mapping[str, Any],
    journal: _Journal,
) -> dict[str, Any]:
    from collections import Counter

    from graphforge import __version__
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS

    operators = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.all_nodes()
    )
    content = {
        "graphforge": __version__,
        "model": prepared.loaded.record,
        "target": {
            "name": target.name,
            "opset": options.opset,
            "precision": options.precision,
            "options": dict(options.extra),
        },
        "files": list(emitted.files),
        "artifact": dict(emitted.facts),
        "inputs": [
            {
                "name": spec.name,
                "shape": list(spec.shape),
                "dtype": spec.dtype,
                "dynamic": {
                    str(axis): {"name": dim.name, "low": dim.low, "high": dim.high, "step": dim.step}
                    for axis, dim in spec.dims.items()
                },
            }
            for spec in prepared.shapes.inputs
        ],
        "outputs": [
            {
                "name": value.name,
                "shape": None
                if value.shape is None
                else [dim if isinstance(dim, int) else dim.value for dim in value.shape],
                "dtype": None if value.dtype is None else value.dtype.numpy().name,
            }
            for value in model.graph.outputs
        ],
        "capture": {key: facts[key] for key in ("method", "failures", "substitutions")},
        "lowering": {"fallbacks": facts["fallbacks"], "decomposed": facts["decomposed"]},
        "passes": [record.to_dict() for record in records],
        "padding": list(model.meta.get(PADDED_OUTPUTS, ())),
        "nodes": _count(model),
        "operators": dict(sorted(operators.items())),
        "steps": journal.steps,
        "verification": dict(report),
        "notes": journal.notes,
        "versions": _versions(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))  # exactly what manifest.json will hold
    return plain


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "numpy", "polygraphy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
