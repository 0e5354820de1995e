"""The one straight road: model in, verified bundle out.  Each step is a function that can be called alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.bundle import (
    Bundle,
    destination,
    facts_of_pictures,
    keep_unverified,
    make_manifest,
    read_steps,
    staging,
    write_json,
)
from graphforge.collector import paused_collector
from graphforge.declaring import declarations
from graphforge.errors import (
    GraphForgeError,
    InternalError,
    UndecidedError,
    UsageError,
    UserCodeError,
    VerificationError,
    argument,
)
from graphforge.frontend.torchvision_fix import watch_torchvision
from graphforge.journal import Journal, Progress
from graphforge.options import CompileOptions, Plan, plan
from graphforge.prepare import Prepared, check_canonical, count_nodes, example_feeds, prepare, reference_runner, to_ir
from graphforge.ranges.metric import metric_of
from graphforge.ranges.samples import METRIC, PROGRESS, SAMPLES, Samples, samples_for
from graphforge.reproducer import leave_reproducer
from graphforge.targets.contract import asking
from graphforge.targets.precision import REDUCED

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from graphforge.declaring import GivenOperator, GivenSubstitution
    from graphforge.frontend.load import LoadedModel
    from graphforge.runners.runner import Runner
    from graphforge.targets.target import EmitResult, Target
    from graphforge.transform import Instrument, Pass, PassRecord
    from graphforge.verify import VerificationReport
    from graphforge.verify.tolerance import Tolerances

__all__ = ["Bundle", "CompileOptions", "compile", "compile_with"]


def compile(  # the name a user expects: graphforge.compile(model, inputs)
    model: torch.nn.Module | torch.export.ExportedProgram | LoadedModel | str | os.PathLike[str],
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    ranges: Any = None,
    further_inputs: Sequence[Any] = (),
    target: str | Target = "onnx",
    opset: int | None = None,
    precision: str | None = None,
    target_options: Mapping[str, Any] | None = None,
    calibration: str | Path | Mapping[str, Any] | None = None,
    max_drop: float | None = None,
    metric: str | Path | Callable[..., float] | None = None,
    outputs: str | None = None,
    nms: str | None = None,
    preprocess: str | os.PathLike[str] | Sequence[Any] | None = None,
    fold_preprocess: bool = False,
    capture: str = "auto",
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    passes: Sequence[Pass] = (),
    pipeline: str | Sequence[Pass] | None = None,
    check_passes: bool = False,
    verify_each: bool = False,
    instruments: Sequence[Instrument] = (),
    verify: bool = True,
    keep_unverified: bool = False,
    accept_undecided: bool = False,
    allow_nonfinite: bool = False,
    tolerances: Any = None,
    seed: int = 0,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model into a verified bundle.

    Args:
        model: an nn.Module, an ExportedProgram, a loaded model, or its text or file: ``package.module:callable``,
            ``file.py:callable``, ``torchvision:NAME``, ``timm:NAME``, .pt2, .pt, .onnx.
        inputs: example inputs: a tensor or array, a tuple of positional inputs, a dict of inputs by name, or a
            ShapeSpec or its text, ``"x:1x3x224x224"``, one for each input (random tensors are drawn from ``seed``).
            None for a model that brings its own.
        kwargs: further keyword inputs of the call.
        dynamic_shapes: input name -> axis -> ``(low, high)``, ``(low, high, step)``, a ``DimRange`` or a
            ``torch.export.Dim``; torch.export's other forms, and text such as ``"x:0=1..8"``, are read too.
        ranges: input name -> ``(low, high)``, the values that random inputs of verification take; an end is a number
            or a promised dim by its name, ``{"lens": (1, "T")}``.  Text such as ``"lens=1..T"`` is read too.
        further_inputs: more inputs to verify with, each as ``inputs`` are given, of the example's or other promised
            sizes.
        target: name of a target, or a Target.
        opset: opset of the default domain to deliver; None lets the target choose.
        precision: the arithmetic, in the target's words; `graphforge targets NAME` lists them.
        target_options: options of the target by name; `graphforge targets NAME` lists them too.
        calibration: inputs of the model's own kind, normalised, on which ranges are measured for reduced precision: a
            folder (FOLDER/<input name>/0000.npy), an .npz file, or arrays by input name.  Without any the example and
            random inputs like it are used, and the notes say so.
        max_drop: what a reduced precision may cost; the most sensitive nodes stay in float32 until it holds.  In units
            of the metric; without one, per cent of the signal in the outputs.
        metric: how good a model is, larger is better: a function, or ``FILE.py:function``.  It is given a function
            from inputs by name (arrays) to outputs by name, and returns a number.
        outputs: for results whose size depends on data: ``ragged`` as eager returns them, or ``padded`` to a fixed size
            with the count beside them (``num_dets``); None lets the target choose.
        nms: ``native`` uses ONNX's NonMaxSuppression, ``portable`` plain tensor algebra; None lets the target choose.
        preprocess: what becomes of a picture before the model sees it, kept in the bundle for ``run`` and
            ``graphforge.runtime``: a TOML file, or a list of steps (``graphforge.runtime.Resize(...)``, or their data).
        fold_preprocess: the steps of pixels (order of colours, scale, mean, deviation) go into the graph, and the
            input takes bytes.
        capture: ``auto``, ``export``, ``export-strict``, ``fx`` or ``trace``.
        substitutes: functions that take the place of others while this model is captured, and of no other: a
            ``Substitution``, a function that ``substitute`` decorated, or a file that declares some. One that the model
            never calls is an error.
        custom_ops: operators of your own for this call: what ``custom_op`` returns, or a file that declares some.
        passes: run after the canonical pipeline.
        pipeline: instead of the canonical pipeline: a list of passes or text, ``"a,b{x=1}"``.
        check_passes: run the graph before and after every pass and stop at the first one that changes a result.
        verify_each: check that the graph is valid after every pass; after passes that are not ours it always is.
        instruments: look on between the passes, for example ``PrintAfter(("fold-batch-norm",))``; see
            ``graphforge.transform``. What passes did, how long it took and what nearly fired is always in the bundle:
            ``Bundle.explain()``, ``Bundle.pass_times()``.
        verify: compare the artifact with the reference; False says so in the manifest.
        keep_unverified: on failed verification keep the artifact as ``model.unverified.onnx``.
        accept_undecided: take an artifact that nothing proves right or wrong; the manifest says that it is undecided.
        allow_nonfinite: NaN and Inf agree with the very same NaN and Inf at the same place.
        tolerances: what an output may be off, in place of what rounding explains.  A number: the share of its largest
            magnitude.  A dict: ``scale``, ``rtol``, ``atol`` or ``allow_nonfinite``, or such numbers and dicts by the
            name of an output.  Also a ``Tolerances``.  What is loosened is recorded in the manifest.
        seed: of random inputs.
        output: folder of the bundle; an earlier bundle there is replaced, any other folder is refused.
        progress: called with the name of each step as it begins.

    Raises:
        GraphForgeError: what the user can fix; nothing is left half-written.
        VerificationError: the artifact departs from the reference.
        UndecidedError: nothing proves the artifact right or wrong; the bundle is written all the same.
    """
    options = CompileOptions(
        target=target,
        opset=opset,
        precision=precision,
        target_options=dict(target_options or {}),
        calibration=calibration,
        max_drop=max_drop,
        metric=metric,
        outputs=outputs,
        nms=nms,
        preprocess=preprocess,
        fold_preprocess=fold_preprocess,
        capture=capture,
        substitutes=substitutes,
        custom_ops=custom_ops,
        passes=passes,
        pipeline=pipeline,
        check_passes=check_passes,
        verify_each=verify_each,
        instruments=instruments,
        verify=verify,
        keep_unverified=keep_unverified,
        accept_undecided=accept_undecided,
        allow_nonfinite=allow_nonfinite,
        tolerances=tolerances,
        seed=seed,
        output=output,
    )
    return compile_with(
        options,
        model,
        inputs,
        kwargs=kwargs,
        dynamic_shapes=dynamic_shapes,
        ranges=ranges,
        further_inputs=further_inputs,
        progress=progress,
    )


def compile_with(
    options: CompileOptions,
    model: Any,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    ranges: Any = None,
    further_inputs: Sequence[Any] = (),
    progress: Progress | None = None,
) -> Bundle:
    """``compile`` with its options in one object; raises the same."""
    from graphforge.onnx_io.blame import blaming

    watch_torchvision()  # before the first file of the user's is read
    with declarations(options.substitutes, options.custom_ops), blaming(model):
        planned = plan(options)  # refuses impossible options before any work is done
        folder = destination(options.output, _name_of(model))
        pictures = read_steps(options.preprocess)
        prepared = prepare(
            model,
            inputs,
            kwargs=kwargs,
            dynamic_shapes=dynamic_shapes,
            ranges=ranges,
            further=further_inputs,
            seed=options.seed,
        )
        of_pictures = facts_of_pictures(prepared, *pictures)
        if options.fold_preprocess:
            prepared, of_pictures = _folded(prepared, of_pictures)
        try:
            return _compile(options, planned, prepared, folder, Journal(progress), of_pictures)
        except VerificationError as refused:
            again, because = _read_otherwise(prepared, refused)
            if again is None:
                raise
            journal = Journal(progress)
            journal.notes.append(because)
            try:  # what was kept unverified, where that is asked for, stays the file that the error is about
                return _compile(replace(options, keep_unverified=False), planned, again, folder, journal, of_pictures)
            except UndecidedError:  # it is in its place, and says so
                raise
            except GraphForgeError:
                raise refused from None


def _read_otherwise(prepared: Prepared, refused: VerificationError) -> tuple[Prepared | None, str]:
    """The model to be read in another way that may be right where this one was not, and why; None where there is none.

    What torch takes for granted of sizes, and what a file states of shapes, saves nodes, and mostly holds.
    """
    if refused.at_small_sizes and prepared.captured is not None and prepared.captured.method == "export":
        return replace(prepared, small_sizes=True), (
            "captured again with sizes of 0 and 1 in mind: torch takes every size for 2 or more, and what it "
            "captured so was wrong at small sizes"
        )
    if refused.by_statement:
        return replace(prepared, as_stated=False), (
            "the file states shapes that its nodes do not tell, and with them the result was wrong: it was read again "
            "without them"
        )
    return None, ""


def _at_small_sizes(report: VerificationReport, prepared: Prepared) -> bool:
    """Whether every failure is at sizes of which others may become 1 or 0, which torch does not reckon with."""

    def small(sizes: Mapping[str, int]) -> bool:
        return any(
            dim.is_small(sizes[name])
            for name, dim in prepared.shapes.dims.items()
            if name in sizes and dim.high > dim.low
        )

    return all(small(trial.assignment.sizes) for trial in report.trials if not trial.passed)


def _compile(
    options: CompileOptions,
    planned: Plan,
    prepared: Prepared,
    folder: Path,
    journal: Journal,
    of_pictures: Mapping[str, Any],
) -> Bundle:
    from graphforge.onnx_io.importing import STATED
    from graphforge.runners.survey import doubting

    journal.notes += prepared.notes
    with ExitStack() as building:
        building.enter_context(doubting("all" if prepared.loaded.onnx_path is not None else ""))
        building.enter_context(paused_collector())
        lowered, facts = to_ir(prepared, capture=options.capture, target=planned.target.name, journal=journal)
        lowered.meta[SAMPLES] = _samples(prepared, options)
        if journal.progress is not None:
            lowered.meta[PROGRESS] = journal.progress
        if options.metric is not None:
            lowered.meta[METRIC] = metric_of(options.metric)
        records = _run_passes(lowered, planned, prepared, options, journal)
        with staging(folder) as staged:
            with journal.step("emit") as step, asking(planned.target, "the artifact"):
                emitted = planned.target.emit(lowered, staged, planned.options, prepared.shapes)
                step["nodes"] = count_nodes(lowered)
            journal.notes += emitted.notes
            sensitivity = _write_sensitivity(staged, lowered, journal)
            _check_files(staged, emitted, journal, prepared.loaded.onnx_path)
            building.close()  # verification runs the user's model, whose garbage may be large
            report = _verify(lowered, prepared, planned.target, staged, options, journal) if options.verify else None
            outcome = _outcome(report, planned.target, staged, options, journal)
            manifest = make_manifest(
                prepared,
                planned.target,
                planned.options,
                emitted,
                lowered,
                facts,
                records,
                outcome,
                journal,
                {**of_pictures, **sensitivity},
                _decided_by(options),
            )
            if report is not None and report.verdict == "failed":
                kept = keep_unverified(staged, folder, emitted, manifest) if options.keep_unverified else ""
                error = report.error().with_notes(
                    *journal.notes,
                    f"{argument('check_passes', True)} names the first pass that changes a result"
                    if (options.passes or options.pipeline is not None) and not options.check_passes
                    else "",
                    _in_full(options),
                    kept or f"to keep the artifact all the same: {argument('keep_unverified', True)}",
                )
                error.at_small_sizes = _at_small_sizes(report, prepared)
                error.by_statement = bool(lowered.meta.get(STATED))
                raise error
            write_json(staged / "manifest.json", manifest)
    if report is not None and report.verdict == "undecided" and not options.accept_undecided:
        raise UndecidedError(
            *report.error().given,
            _in_full(options),
            f"the artifact is kept in {folder}, and its manifest says that it is undecided",
            f"to take it all the same: {argument('accept_undecided', True)}",
        )
    return Bundle(folder, manifest)


def _in_full(options: CompileOptions) -> str:
    """The way out where fewer digits may be the cause."""
    if options.precision not in REDUCED:
        return ""
    return (
        f"what {options.precision} is too few digits for can stay in float32, a module or a node: "
        f"{argument('target_options', {'pins': 'NAME'})}"
    )


def _samples(prepared: Prepared, options: CompileOptions) -> Samples | Callable[[], Samples]:
    """What ranges are measured on: data that is given is read at once, any other is made when a pass asks for it."""

    def made() -> Samples:
        return samples_for(
            prepared.shapes,
            example_feeds(prepared),
            prepared.further,
            calibration=options.calibration,
            seed=options.seed,
        )

    return made if options.calibration is None else made()


def _decided_by(options: CompileOptions) -> dict[str, str | None]:
    """The files that a lower precision was decided by, for whoever compiles again; None for what was in memory."""
    given = {"calibration": options.calibration, "metric": options.metric}
    if options.precision not in (*REDUCED, "auto"):
        return {}
    return {
        name: os.fspath(one) if isinstance(one, str | os.PathLike) else None
        for name, one in given.items()
        if one is not None
    }


def _folded(prepared: Prepared, of_pictures: Mapping[str, Any]) -> tuple[Prepared, dict[str, Any]]:
    """The model with the steps of its pixels inside, and what its manifest says of pictures then."""
    from graphforge.folding import fold
    from graphforge.runtime.preprocess import record_of, steps_of

    if not of_pictures.get("preprocess"):
        raise UsageError(
            f"{argument('fold_preprocess', True)}: there is no pre-processing to put into the graph",
            f"give a list of steps: {argument('preprocess', 'FILE')}",
        )
    prepared, steps = fold(prepared, steps_of(of_pictures["preprocess"]))
    return prepared, {**of_pictures, "preprocess": record_of(steps), "folded": of_pictures["preprocess"]}


def _name_of(model: Any) -> str:
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    return str(getattr(model, "spec", type(model).__name__))


def _run_passes(
    model: ir.Model, planned: Plan, prepared: Prepared, options: CompileOptions, journal: Journal
) -> list[PassRecord]:
    """The canonical passes, then the target's, and the seams behind them; a pass that fails leaves a reproducer."""
    from graphforge.ir import Level
    from graphforge.onnx_io.blame import blaming
    from graphforge.transform import Pipeline, check_level, idle_notes
    from graphforge.verify import NumericCheck
    from graphforge.verify.tolerance import as_tolerances

    def canonical() -> None:
        check_canonical(model, complete=options.pipeline is None)

    def legal() -> None:
        target = planned.target
        check_level(model, Level.LEGAL, f"the passes of target {target.name}", owner=target)

    tolerances = as_tolerances(options.tolerances)
    records: list[PassRecord] = []
    try:
        for (name, passes), check in zip(planned.stages.items(), (canonical, legal), strict=True):
            checks = [NumericCheck(example_feeds(prepared), tolerances=tolerances)] if options.check_passes else []
            looking = [*checks, *options.instruments]
            with journal.step(name) as step:
                with blaming(prepared.loaded):
                    done = Pipeline(passes).run(model, instruments=looking, verify_each=options.verify_each)
                    check()
                step["nodes"] = count_nodes(model)
            journal.notes += [f"{record.name}: {note}" for record in done for note in record.notes]
            records += done
    except (InternalError, UserCodeError) as bug:

        def captured_again() -> ir.Model:
            return to_ir(prepared, capture=options.capture, target=planned.target.name)[0]

        leave_reproducer(bug, captured_again, [*planned.canonical, *planned.legalising], prepared.shapes, options)
        raise
    journal.notes += idle_notes(records)
    return records


def _write_sensitivity(folder: Path, model: ir.Model, journal: Journal) -> dict[str, Any]:
    """What each layer costs alone in int8, where that was measured, written as data and as a picture."""
    from graphforge.passes.qdq import QUANTISED, SENSITIVITY_FILES

    quantised = model.meta.get(QUANTISED)
    if quantised is None or quantised.sensitivity is None:
        return {}
    data, picture = SENSITIVITY_FILES
    record: dict[str, Any] = quantised.sensitivity.to_dict()
    write_json(folder / data, record)
    (folder / picture).write_text(quantised.sensitivity.to_svg(), encoding="utf-8")
    journal.notes.append(f"what each layer costs alone in int8 is in {data}, and drawn in {picture}")
    return {"sensitivity": record}


def _check_files(folder: Path, emitted: EmitResult, journal: Journal, theirs: Path | None) -> None:
    """ONNX's own full check of every ONNX file that is handed out, verified or not, and of the one it was made of."""
    from graphforge.onnx_io.blame import refuse_invalid
    from graphforge.onnx_io.checking import check_file

    names = [name for name in emitted.files if name.endswith(".onnx")]
    if names:
        with journal.step("onnx.checker") as step:
            for name in names:
                try:
                    check_file(folder / name, shapeless=theirs is not None)
                except GraphForgeError as error:
                    if theirs is not None:
                        refuse_invalid(theirs, error)
                    raise
            step["full_check"] = names


def _verify(
    model: ir.Model, prepared: Prepared, target: Target, folder: Path, options: CompileOptions, journal: Journal
) -> VerificationReport | None:
    """Compare the artifact with the reference; None when nothing here can run it.

    A run in which ONNX Runtime dies is made again with less of its optimization, as a command is.
    """
    from graphforge.last_step import lowered, lowering
    from graphforge.runners.elsewhere import DiedError
    from graphforge.runners.session import LEVELS

    try:
        return _compared(model, prepared, target, folder, options, journal)
    except DiedError as died:
        steps, because = lowered()
        if died.vendor != "onnxruntime" or steps + 1 >= len(LEVELS):
            raise
        with lowering(steps + 1, because or died.message):
            return _verify(model, prepared, target, folder, options, journal)


def _compared(
    model: ir.Model, prepared: Prepared, target: Target, folder: Path, options: CompileOptions, journal: Journal
) -> VerificationReport | None:
    from graphforge.diagnosis import located
    from graphforge.frontend.captured import SIZES_TO_TRY
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
    from graphforge.passes.half import HALF_IO, HALVED
    from graphforge.passes.qdq import QUANTISED, Quantised
    from graphforge.runners.declared import DeclaredRunner
    from graphforge.runners.padding import UnpaddedRunner
    from graphforge.runners.retyped import RetypedRunner, halved_inputs
    from graphforge.runners.survey import doubting, has_float16, survivable
    from graphforge.verify import verify
    from graphforge.verify.extremes import picks_by_data
    from graphforge.verify.quantised import verify_quantised
    from graphforge.verify.tolerance import for_model

    theirs = prepared.loaded.onnx_path
    # what is made of somebody's file is loaded and run in another process, and need not be tried there first
    risky = sorted(folder.glob("*.onnx")) if theirs is None and has_float16(model) else []
    with (
        journal.step("verify"),
        asking(target, "a run of the artifact"),
        survivable(risky) as because,
        doubting("all" if theirs is not None else ""),
    ):
        if because:
            journal.notes.append(f"{because}; it was verified with less of its optimization")
        runner = target.runner(folder)
        if runner is None:
            return None
        runner = DeclaredRunner(runner, model.graph)
        padding = model.meta.get(PADDED_OUTPUTS, ())
        quantised: Quantised | None = model.meta.get(QUANTISED)
        judged = model if quantised is None else quantised.before

        halves = halved_inputs(model, {spec.name: spec.dtype for spec in prepared.shapes.inputs})

        def verified(runner: Runner) -> VerificationReport:
            runner = RetypedRunner(runner, halves) if HALF_IO in model.meta else runner
            with closing(reference_runner(prepared)) as reference:
                return verify(
                    reference,
                    UnpaddedRunner(runner, padding) if padding else runner,
                    prepared.shapes,
                    example_feeds(prepared),
                    tolerances=for_model(_allowed(options), judged),
                    seed=options.seed,
                    also=model.meta.get(SIZES_TO_TRY, ()),
                    picks=bool(padding) or picks_by_data(judged),
                    further=prepared.further,
                    locate=partial(located, prepared.captured),
                    progress=journal.progress,
                )

        try:
            if quantised is not None:
                return verify_quantised(verified, runner, quantised)
            report = verified(runner)
        finally:
            runner.close()
        if not report.passed or HALVED not in model.meta:
            return report
        return _as_written(report, verified, model)


def _as_written(
    report: VerificationReport, verified: Callable[[Runner], VerificationReport], model: ir.Model
) -> VerificationReport:
    """The report on a file in half precision, or that on the file with each result rounded where that does not pass.

    A CPU computes in float32 from one node to the next, so that nothing overflows; what the file is made for does not.
    """
    from graphforge.passes.half import HALVED
    from graphforge.runners.custom_ops import runner_before_lowering
    from graphforge.runners.halves import rounded_throughout

    half = model.meta[HALVED]
    copy = model.clone()
    rounded_throughout(copy)
    runner = runner_before_lowering(copy, optimize=False)
    runner.name = f"onnxruntime with each result rounded to {half}"
    try:
        rounded = verified(runner)
    finally:
        runner.close()
    if rounded.passed:
        return report
    note = f"a CPU computes in float32 and agrees; with each result rounded to {half}, as the file says, it does not"
    return replace(rounded, notes=(*rounded.notes, note))


def _allowed(options: CompileOptions) -> Tolerances | None:
    from graphforge.verify.tolerance import Tolerances, as_tolerances

    given = as_tolerances(options.tolerances)
    if not options.allow_nonfinite:
        return given
    return (given or Tolerances()).loosen(because="allow_nonfinite was given", allow_nonfinite=True)


def _outcome(
    report: VerificationReport | None, target: Target, folder: Path, options: CompileOptions, journal: Journal
) -> dict[str, Any]:
    if report is not None:
        return report.to_dict()
    reason = "the check was switched off"
    if options.verify:
        told = target.runs_here(folder)
        reason = f"nothing on this machine runs what target {target.name} makes{f': {told}' if told else ''}"
    journal.notes.append(f"not verified: {reason}")
    return {"verdict": "skipped", "passed": None, "skipped": reason}
