"""Verify: reference and artifact on the same inputs, at the example's and other promised sizes; no silent pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphforge.errors import GraphForgeError, UsageError, VerificationError, argument, worded
from graphforge.limiting import BeyondLimitError
from graphforge.runners.arrays import Array, dtype_name
from graphforge.runners.elsewhere import DiedError
from graphforge.runners.inputs import candidate_feeds, check_feeds
from graphforge.runners.runner import Runner, underlying
from graphforge.shown import Shown
from graphforge.spec import ONE_NAME, ShapeSpec
from graphforge.verify.accepted import Accepted, Rejected, first_accepted
from graphforge.verify.compare import OutputComparison, compare_arrays
from graphforge.verify.extremes import extremes
from graphforge.verify.other_way import other_way
from graphforge.verify.ranked import reordered
from graphforge.verify.shapes import SizeAssignment, plan_sizes, sizes_of
from graphforge.verify.tolerance import Tolerances

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Locate", "NotTried", "Trial", "VerificationReport", "compare_outputs", "verify"]

# Reference, artifact, inputs where they differ and what counts as equal -> where the two part, in one line, and notes.
Locate: TypeAlias = Callable[[Runner, Runner, Mapping[str, Array], Tolerances], tuple[str, list[str]]]


@dataclass(frozen=True, slots=True)
class NotTried:
    """Promised sizes at which nothing was compared, since the reference takes none of the inputs drawn for them.

    Attributes:
        assignment: sizes of the dynamic dims.
        reason: why it took none.
        sets: how many were drawn.
    """

    assignment: SizeAssignment
    reason: str
    sets: int

    def describe(self) -> str:
        """One line."""
        return (
            f"not tried at {self.assignment.describe()}: none of {self.sets} sets of random inputs suits the model "
            f"({self.reason})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**self.assignment.to_dict(), "reason": self.reason, "sets": self.sets}


@dataclass(frozen=True, slots=True)
class Trial:
    """Reference and artifact on one set of inputs.

    Attributes:
        assignment: sizes of the dynamic dims.
        data: ``given`` (the user's inputs), ``random`` (seeded, resembling them), or ``picks least`` and the like (a
            model that picks by data picks little or much of it).
        inputs: input name -> shape.
        outputs: one comparison per output; empty when a side did not run.
        error: why a side did not run, "" otherwise.
        notes: hints, one line each.
        seconds: (reference, artifact) run time.
        nothing: both sides ran and returned nothing: a list with an entry for each image, of no images.
        made: the artifact's outputs, until they are judged.
        other_way: how the model itself does otherwise at these sizes than at the example's, and what to do about it.
    """

    assignment: SizeAssignment
    data: str
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[OutputComparison, ...] = ()
    error: str = ""
    notes: tuple[str, ...] = ()
    seconds: tuple[float, float] = (0.0, 0.0)
    nothing: bool = False
    made: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    other_way: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Both sides ran and every output agrees."""
        return not self.error and self.compared and all(output.passed for output in self.outputs)

    @property
    def compared(self) -> bool:
        """There was something to compare, or nothing on either side."""
        return bool(self.outputs) or self.nothing

    @property
    def verdict(self) -> str:
        """``passed``, ``failed`` or ``undecided``."""
        if self.error or not self.compared:
            return "failed"
        return _worst_verdict(output.verdict for output in self.outputs)

    def describe(self) -> str:
        """``batch=3 (random)``."""
        return f"{self.assignment.describe()} ({self.data})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            **self.assignment.to_dict(),
            "data": self.data,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "outputs": [output.to_dict() for output in self.outputs],
            "error": self.error,
            "notes": [worded(note) for note in self.notes],
            "seconds": {"reference": round(self.seconds[0], 4), "artifact": round(self.seconds[1], 4)},
            "passed": self.passed,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True, repr=False)
class VerificationReport(Shown):
    """Everything that was tried and how it came out.

    Attributes:
        reference: name of the reference.
        artifact: name of what was checked.
        trials: every set of inputs, the given one first.
        tolerances: what was allowed.
        seed: of the random inputs.
        suspect: the first module or node where the two part, "" when all agree or nobody could tell.
        notes: caps, loosenings and other things the user should know, one line each.
        not_tried: sizes for which no inputs were found that the reference takes.
    """

    reference: str
    artifact: str
    trials: tuple[Trial, ...]
    tolerances: Tolerances = field(default_factory=Tolerances)
    seed: int = 0
    suspect: str = ""
    notes: tuple[str, ...] = ()
    not_tried: tuple[NotTried, ...] = ()

    @property
    def passed(self) -> bool:
        """Every trial passed, and in one of them something was compared."""
        return any(trial.outputs for trial in self.trials) and all(trial.passed for trial in self.trials)

    @property
    def verdict(self) -> str:
        """``passed``, ``failed``, or ``undecided``: some outputs differ, and nothing proves them right or wrong."""
        compared = any(trial.outputs for trial in self.trials)
        return _worst_verdict(trial.verdict for trial in self.trials) if compared else "failed"

    @property
    def max_abs(self) -> float:
        """Largest absolute difference of all float outputs and trials."""
        return max((o.max_abs for t in self.trials for o in t.outputs if o.max_abs is not None), default=0.0)

    @property
    def max_rel(self) -> float:
        """Largest difference as a share of its output's largest magnitude."""
        return max((o.max_rel for t in self.trials for o in t.outputs if o.max_rel is not None), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, what the manifest keeps."""
        return {
            "verdict": self.verdict,
            "passed": self.passed,
            "reference": self.reference,
            "artifact": self.artifact,
            "seed": self.seed,
            "max_abs": _jsonable(self.max_abs),
            "max_rel": _jsonable(self.max_rel),
            "tolerances": self.tolerances.to_dict(),
            "trials": [trial.to_dict() for trial in self.trials],
            "not_tried": [one.to_dict() for one in self.not_tried],
            "failures": self.failures(),
            "suspect": self.suspect,
            "notes": [worded(note) for note in self.notes],
        }

    def failures(self) -> list[str]:
        """One line for each thing that went wrong."""
        lines = []
        for trial in self.trials:
            if trial.error:
                lines.append(f"at {trial.describe()}: {trial.error}")
            elif not trial.compared:
                lines.append(f"at {trial.describe()}: there was no output to compare")
            lines.extend(
                f"at {trial.describe()}: output {output.name}: {output.reason}"
                for output in trial.outputs
                if not output.passed
            )
        return lines or ([] if any(trial.outputs for trial in self.trials) else ["nothing was tried"])

    def error(self) -> VerificationError:
        """What is wrong, or undecided, as an exception: the worst line first, hints and the first suspect as notes."""
        failures = self.failures()
        verdict = self.verdict
        hints = dict.fromkeys(note for trial in self.trials for note in (*trial.notes, *trial.other_way))
        moving = [hint for hint in hints if hint.startswith(f"{self.reference}{_ASKED_TWICE}")]
        if moving:  # then no difference says anything
            return VerificationError(
                f"nothing can be compared with {self.reference}: {moving[0]}",
                "draw such numbers outside the model and pass them in as an input, or make them a buffer",
            )
        first = next((trial for trial in self.trials if not trial.passed), None)
        if first is not None and first.data == "given" and first.error.startswith(f"{self.reference}: "):
            return VerificationError(
                first.error,
                *first.notes,
                "so nothing can be compared: give inputs that the model takes, or, where they are drawn at random, "
                f"what values they take ({argument('ranges', 'NAME=LOW..HIGH')})",
            )
        wrong = [trial for trial in self.trials if not trial.passed]
        if wrong and all(trial.data == "random" and trial.error.startswith(self.reference) for trial in wrong):
            return VerificationError(
                f"{self.reference} itself does not run at {wrong[0].assignment.describe()}, and no other size than the "
                "example's could be tried",
                wrong[0].error,
                *wrong[0].notes,
                f"or say what values the inputs take: {argument('ranges', 'NAME=LOW..HIGH')}",
            )
        if wrong and all(trial.other_way for trial in wrong):
            return VerificationError(*wrong[0].other_way, failures[0], self._count(verdict))
        said = f"{self.artifact} does not agree with {self.reference}"
        if verdict == "undecided":
            said = f"whether {self.artifact} agrees with {self.reference} is undecided"
        return VerificationError(
            f"{said}: {(failures or ['no failure recorded'])[0]}",
            *failures[1:4],
            f"{len(failures) - 4} more failures" if len(failures) > 4 else "",
            *hints,
            f"if NaN and Inf are meant: {argument('allow_nonfinite', True)}"
            if any(_STRANGE in line for line in failures)
            else "",
            f"{self._kind_of_suspect}: {self.suspect}" if self.suspect else "",
            self._count(verdict),
        )

    def _count(self, verdict: str) -> str:
        failed = sum(trial.verdict == verdict for trial in self.trials)
        return f"{failed} of {len(self.trials)} trials {verdict}, seed {self.seed}"

    @property
    def _kind_of_suspect(self) -> str:
        """Where the two part, or where the reference itself goes wrong."""
        lines = self.failures()
        return "NaN or Inf begins at" if lines and all(_STRANGE in line for line in lines) else "first suspect"

    def raise_if_failed(self) -> None:
        """Raise ``error()`` unless everything passed."""
        if not self.passed:
            raise self.error()

    def summary(self) -> str:
        """``model.onnx against eager: passed, 3 trials``."""
        return f"{self.artifact} against {self.reference}: {self.verdict}, {len(self.trials)} trials"

    def render(self, console: Console) -> None:
        """Print the table: one row per trial and output."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"{self.artifact} against {self.reference}", title_justify="left")
        for name in ("sizes", "output", "shape", "dtype", "max abs", "max rel", "allowed", "verdict"):
            table.add_column(name, justify="right" if name.startswith("max") else "left", overflow="fold")
        for trial in self.trials:
            if trial.error or not trial.compared:
                table.add_row(escape(trial.describe()), "-", "", "", "", "", "", "[red]failed[/red]")
            for output in trial.outputs:
                table.add_row(
                    escape(trial.describe()),
                    escape(output.name),
                    "x".join(map(str, output.shape)) or "scalar",
                    output.dtype,
                    "-" if output.max_abs is None else f"{output.max_abs:.3g}",
                    "-" if output.max_rel is None else f"{output.max_rel:.2g}",
                    output.tolerance,
                    _COLOURED[output.verdict],
                )
        console.print(table)
        for line in self.failures():
            console.print(f"{_COLOURED[self.verdict]} {escape(line)}", highlight=False)
        for note in dict.fromkeys((*self.notes, *(n for t in self.trials for n in t.notes))):
            console.print(f"note: {escape(worded(note))}", highlight=False)
        if self.suspect:
            console.print(f"{self._kind_of_suspect}: {escape(self.suspect)}", highlight=False)


# How a comparison says that nothing can be proven.
_STRANGE = "the reference itself gives"
# What stands in tables.
_COLOURED = {"passed": "[green]ok[/green]", "failed": "[red]failed[/red]", "undecided": "[yellow]undecided[/yellow]"}


def _worst_verdict(verdicts: Iterable[str]) -> str:
    found = set(verdicts)
    return next((verdict for verdict in ("failed", "undecided") if verdict in found), "passed")


def verify(
    reference: Runner,
    artifact: Runner,
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    *,
    tolerances: Tolerances | None = None,
    seed: int = 0,
    max_elements: int | None = None,
    assignments: Sequence[SizeAssignment] | None = None,
    also: Sequence[Mapping[str, int]] = (),
    picks: bool = False,
    further: Sequence[Mapping[str, Array]] = (),
    locate: Locate | None = None,
    progress: Callable[[str], None] | None = None,
) -> VerificationReport:
    """Run both on the given inputs, on random ones of the same sizes, and on random ones at other promised sizes.

    Random inputs that the reference refuses are drawn anew, each time closer to the example; sizes for which it takes
    none count as not tried, and the report says so.

    Args:
        reference: what is right, usually an ``EagerRunner``.
        artifact: what is checked.
        shapes: inputs and promised sizes.
        example: the given inputs, by name.
        tolerances: what is allowed; None takes the defaults by dtype.
        seed: of the random inputs.
        max_elements: cap on the input elements of one trial, see ``plan_sizes``.
        assignments: sizes to try instead of the planned ones.
        also: further sizes of some dims, the others at the example's, that are tried within the same cap.
        picks: sizes depend on data: inputs from which little and much is picked are tried, too.
        further: more given inputs, at the example's or at other promised sizes.
        locate: asked on failure where the two part, with the inputs; it answers in one line, and with notes.
        progress: called with one line before each trial.

    Raises:
        UsageError: the given inputs do not fit the spec.
    """
    from graphforge.runners.bridge import run_once

    check_feeds(shapes, example)
    for feeds in further:
        check_feeds(shapes.at(sizes_of(shapes, feeds)), feeds)
    tolerances = tolerances or Tolerances()
    plan = plan_sizes(shapes, max_elements=max_elements, also=also)
    tried = plan.assignments if assignments is None else tuple(assignments)
    notes = [*(plan.notes if assignments is None else ()), *(f"loosened: {line}" for line in tolerances.loosened)]
    trials: list[Trial] = []
    not_tried: list[NotTried] = []
    refused: list[Trial] = []
    culprit: Mapping[str, Array] | None = None
    source: Mapping[str, Array] | None = None  # of NaN or Inf that the reference itself gives
    finite = True
    shares: dict[str, float] = {}

    def try_with(found: Accepted | Rejected, assignment: SizeAssignment, data: str) -> None:
        nonlocal culprit, source
        trial = _run_trial(found, artifact, assignment, data, tolerances, run_once)
        if trial.outputs and isinstance(found, Accepted):
            trial = _judged(trial, found, reference, artifact, tolerances, shares)
        if data.startswith("picks") and trial.verdict == "undecided":
            # many candidates close together: which of them are picked proves nothing either way
            notes.append(f"inputs from which the model {data} were left out: its candidates lie too close together")
            return
        if not trial.passed:
            trial = _explained(trial, reference, artifact, shapes, found.feeds, example, trials, run_once)
            provable = any(one.verdict == "failed" and _STRANGE not in one.reason for one in trial.outputs)
            strange = any(_STRANGE in one.reason for one in trial.outputs)
            culprit = found.feeds if culprit is None and provable else culprit
            source = found.feeds if source is None and strange else source
        trials.append(trial)
        _see_that_outputs_exist(tolerances, trial)

    for assignment, data, candidates in _trials(shapes, tried, example, further, seed):
        if progress is not None:
            progress(f"verify at {assignment.describe()} ({data})")
        found = first_accepted(reference, candidates, run_once, finite=finite and data == "random")
        if isinstance(found, Rejected) and data == "random":
            not_tried.append(NotTried(assignment, _in_short(found.error), found.count))
            refused.append(_run_trial(found, artifact, assignment, data, tolerances, run_once))
            continue
        if not trials and isinstance(found, Accepted):
            finite = found.is_finite
        try_with(found, assignment, data)
    if picks and trials and trials[0].outputs:
        for label, found in extremes(reference, shapes, example, run_once, seed=seed, finite=finite):
            try_with(found, SizeAssignment(shapes.example_sizes(), label), f"picks {label}")
    given = [trial.assignment.sizes for trial in trials if trial.data == "given"]
    not_tried = [one for one in not_tried if one.assignment.sizes not in given]
    if not_tried and all(trial.assignment.sizes == shapes.example_sizes() for trial in trials):
        trials.extend(refused)  # nothing was seen of any other size: that is a failure, not a gap
    elif not_tried:
        notes.extend(_told(not_tried))
    notes.extend(getattr(reference, "notes", ()))
    notes.extend(_weak_outputs(trials, tolerances))
    notes.extend(_notes_of_outputs(trials))
    notes.extend(note for trial in trials if trial.passed for note in trial.notes)
    suspect = ""
    culprit = source if culprit is None else culprit
    if culprit is not None and locate is not None:
        suspect, note = locate(reference, artifact, culprit, tolerances)
        notes.extend(note)
    return VerificationReport(
        reference.name,
        artifact.name,
        tuple(trials),
        tolerances,
        seed,
        suspect,
        tuple(dict.fromkeys(notes)),
        tuple(not_tried),
    )


def _see_that_outputs_exist(tolerances: Tolerances, trial: Trial) -> None:
    names = [output.name for output in trial.outputs]
    unknown = next((name for name in tolerances.by_output if name not in names), None)
    if names and unknown is not None:
        raise UsageError(
            f"{argument('tolerances')} names output {unknown!r}, but the outputs are: {', '.join(names)}",
            "a tolerance goes by the output's name, or by scale, rtol, atol for all of them",
        )


def _trials(
    shapes: ShapeSpec,
    assignments: Iterable[SizeAssignment],
    example: Mapping[str, Array],
    further: Sequence[Mapping[str, Array]],
    seed: int,
) -> Iterator[tuple[SizeAssignment, str, Iterable[Mapping[str, Array]]]]:
    """The given inputs, then random ones at every assignment (the example's too: its data may have been baked in).

    The random ones are several sets, of which the first that the reference takes is the one to try.
    """
    sizes = shapes.example_sizes()
    yield SizeAssignment(sizes, "example"), "given", [{t.name: example[t.name] for t in shapes.inputs}]
    for feeds in further:
        yield (
            SizeAssignment(sizes_of(shapes, feeds), "given"),
            "given",
            [{t.name: feeds[t.name] for t in shapes.inputs}],
        )
    for assignment in assignments:
        if shapes.inputs:
            yield assignment, "random", candidate_feeds(shapes, assignment.sizes, example, seed=seed)


def _told(not_tried: Sequence[NotTried]) -> Iterator[str]:
    """What was not tried, and what to do about it."""
    yield from (one.describe() for one in not_tried)
    yield (
        f"for what was not tried, give data of those sizes ({argument('further_inputs')}), say what values the inputs "
        f"take ({argument('ranges', 'NAME=LOW..HIGH')}), or promise fewer sizes"
    )
    if len(not_tried[0].assignment.sizes) > 1:
        yield ONE_NAME


def _in_short(error: GraphForgeError) -> str:
    """The reference's own words, without what stands around them."""
    return error.message.partition("fails on these inputs: ")[2] or error.message


def _run_trial(
    found: Accepted | Rejected,
    artifact: Runner,
    assignment: SizeAssignment,
    data: str,
    tolerances: Tolerances,
    run_once: Callable[[Runner, Mapping[str, Array]], Any],
) -> Trial:
    from graphforge.runners.bridge import compare_runs

    trial = Trial(assignment, data, {name: tuple(array.shape) for name, array in found.feeds.items()})
    if isinstance(found, Rejected):
        error = found.error
        return replace(trial, error=error.message, notes=(*error.notes, *_promise_note(assignment)))
    expected = found.expected
    start = time.perf_counter()
    try:
        got = run_once(artifact, found.feeds)
    except (BeyondLimitError, DiedError):  # nor would the next sizes come to an end
        raise
    except GraphForgeError as error:
        return replace(trial, error=error.message, notes=error.notes)
    seconds = (found.seconds, time.perf_counter() - start)
    outputs = compare_runs(expected, got, lambda one, other: compare_outputs(one, other, tolerances))
    right, made = expected[0][1][0], got[0][1][0]
    return replace(trial, outputs=tuple(outputs), seconds=seconds, nothing=not right and not made, made=dict(made))


def _judged(
    trial: Trial,
    found: Accepted,
    reference: Runner,
    artifact: Runner,
    tolerances: Tolerances,
    shares: dict[str, float],
) -> Trial:
    """A trial whose outputs are judged by evidence where the plain tolerances have not the last word."""
    from graphforge.verify.evidence import settled
    from graphforge.verify.witness import Witness

    right, made = found.expected[0][1][0], trial.made
    if len(right) != len(made):
        return trial
    outputs, notes = settled(
        {there: right[here] for here, there in _pairs(right, made)},
        made,
        trial.outputs,
        tolerances,
        Witness(underlying(reference), found.feeds, eps=tolerances.coarsest_step),
        strict=_computes_alike(reference, artifact),
        shares=shares,
    )
    return replace(trial, outputs=tuple(outputs), notes=(*trial.notes, *notes), made={})


def _computes_alike(reference: Runner, artifact: Runner) -> bool:
    """Whether both compute in the arithmetic of this processor, so that nothing but rounding may stand between them."""
    from graphforge.runners.eager import EagerRunner
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    return isinstance(reference, EagerRunner) and isinstance(underlying(artifact), OnnxRuntimeRunner)


def _notes_of_outputs(trials: Sequence[Trial]) -> Iterator[str]:
    """What makes an output agree, told once: of the trial where it differs most."""
    told: dict[str, tuple[float, str]] = {}
    for trial in trials:
        for one in trial.outputs:
            if one.note and (one.max_abs or 0.0) >= told.get(one.name, (-1.0, ""))[0]:
                told[one.name] = (one.max_abs or 0.0, f"output {one.name} at {trial.describe()}: {one.note}")
    yield from (note for _, note in told.values())


def _weak_outputs(trials: Sequence[Trial], tolerances: Tolerances) -> Iterator[str]:
    """Outputs whose agreement proves little: nothing but zeros, or values at the bottom of their format."""
    for name in dict.fromkeys(output.name for trial in trials for output in trial.outputs):
        found = [o for trial in trials for o in trial.outputs if o.name == name and o.max_reference is not None]
        largest = max((o.max_reference or 0.0 for o in found), default=None)
        if largest is None or not any(o.max_abs is not None and math.prod(o.shape) > 1 for o in found):
            continue
        allowed = tolerances.of(name, found[0].dtype)
        if largest == 0:
            yield f"output {name} is all zeros, so that it agrees says little"
        elif allowed.scale * largest < allowed.underflow:
            yield (
                f"output {name} is nowhere larger than {largest:.3g}, where {found[0].dtype} loses its precision, "
                "so that it agrees says little (random weights?)"
            )


_ASKED_TWICE = " gives another answer when it is asked twice"


def _promise_note(assignment: SizeAssignment) -> tuple[str, ...]:
    if assignment.label == "example":
        return ()
    notes = [f"{assignment.describe()} is promised by the dynamic ranges; narrow them if the model is not to take it"]
    if len(assignment.sizes) > 1:
        notes.append(ONE_NAME)
    return tuple(notes)


def compare_outputs(
    reference: Mapping[str, Array], artifact: Mapping[str, Array], tolerances: Tolerances
) -> list[OutputComparison]:
    """Compare output by output: by name when the names agree, by position when only their number does."""
    if len(reference) != len(artifact):
        return [
            OutputComparison(
                name=", ".join(reference) or "none",
                dtype="",
                shape=(),
                passed=False,
                reason=f"expected {len(reference)} outputs ({', '.join(reference)}), got {len(artifact)} "
                f"({', '.join(artifact)})",
            )
        ]
    pairs = _pairs(reference, artifact)
    compared = [
        compare_arrays(there, reference[here], artifact[there], tolerances.of(there, dtype_name(reference[here])))
        for here, there in pairs
    ]
    if all(one.passed for one in compared):
        return compared
    named = {there: reference[here] for here, there in pairs}
    ordered, moved = reordered(named, artifact, tolerances)
    return [
        one
        if one.name not in ordered
        else replace(
            compare_arrays(
                one.name, named[one.name], ordered[one.name], tolerances.of(one.name, dtype_name(named[one.name]))
            ),
            note=f"{moved[one.name]} rows stand in another order, among scores that are equal within the tolerance",
        )
        for one in compared
    ]


def _pairs(reference: Mapping[str, Array], artifact: Mapping[str, Array]) -> list[tuple[str, str]]:
    """Names of the reference and of the artifact: the same where they agree, else by position."""
    if set(reference) == set(artifact):
        return [(name, name) for name in reference]
    return list(zip(reference, artifact, strict=True))


def _explained(
    trial: Trial,
    reference: Runner,
    artifact: Runner,
    shapes: ShapeSpec,
    feeds: Mapping[str, Array],
    example: Mapping[str, Array],
    before: Sequence[Trial],
    run_once: Callable[[Runner, Mapping[str, Array]], Any],
) -> Trial:
    """Add hints to a failed trial: a baked size, a reference that does not repeat itself."""
    notes = list(trial.notes)
    sizes = shapes.example_sizes()
    strange = [o for o in trial.outputs if not o.passed and _STRANGE in o.reason]
    if strange:
        given = [name for name, array in feeds.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        notes.extend(f"input {name} itself holds NaN or Inf" for name in given)
        return replace(trial, notes=tuple(notes))
    if trial.verdict == "undecided":
        return trial
    changed = [name for name, size in trial.assignment.sizes.items() if size != sizes.get(name)]
    worked_at_example = bool(before) and all(t.passed for t in before if t.assignment.sizes == sizes)
    reference_ran = bool(trial.outputs) or trial.error.startswith(artifact.name)
    if changed and worked_at_example and reference_ran:
        guilty = [n for n in changed if _fails_again((n,), trial, reference, artifact, shapes, example, run_once)]
        if guilty or _fails_again(changed, trial, reference, artifact, shapes, example, run_once):
            changed = guilty or changed
            there = {name: trial.assignment.sizes[name] for name in changed}
            other = _other_way(there, reference, shapes, example, run_once)
            trial = replace(trial, other_way=other)
            if not other:
                named = " and ".join(f"{n} ({sizes[n]} -> {size})" for n, size in there.items())
                notes.append(
                    f"it agrees at the example's sizes and fails when dim {named} changes: "
                    "the example's size was probably baked in"
                )
    numeric = [output for output in trial.outputs if not output.passed and output.max_abs is not None]
    if numeric:
        once, again = run_once(reference, feeds)[0][1][0], run_once(reference, feeds)[0][1][0]
        moving = [n for n in once if once[n].tobytes() != again[n].tobytes()]  # NaN twice is the same answer
        if moving:
            notes.append(
                f"{reference.name}{_ASKED_TWICE} (output {', '.join(moving)}): it draws random numbers or keeps state"
            )
    return replace(trial, notes=tuple(notes))


def _other_way(
    there: Mapping[str, int],
    reference: Runner,
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    run_once: Callable[[Runner, Mapping[str, Array]], Any],
) -> tuple[str, ...]:
    """How the model itself does otherwise at some sizes than at the example's."""
    usual = shapes.example_sizes()

    def sets(sizes: Mapping[str, int]) -> list[Mapping[str, Array]]:
        drawn = (
            first_accepted(reference, candidate_feeds(shapes, sizes, example, seed=seed), run_once, finite=True)
            for seed in (1, 2)
        )
        return [found.feeds for found in drawn if isinstance(found, Accepted)]

    told = ", ".join(f"{name} = {size}" for name, size in there.items())
    at_example, elsewhere = [example, *sets(usual)], sets({**usual, **there})
    return other_way(reference, at_example, elsewhere, told) if elsewhere else ()


def _fails_again(
    changed: Sequence[str],
    trial: Trial,
    reference: Runner,
    artifact: Runner,
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    run_once: Callable[[Runner, Mapping[str, Array]], Any],
) -> bool:
    """Whether other data fails too when these dims alone have other sizes: then it is the sizes."""
    sizes = {**shapes.example_sizes(), **{name: trial.assignment.sizes[name] for name in changed}}
    found = first_accepted(reference, candidate_feeds(shapes, sizes, example, seed=1), run_once, finite=True)
    if isinstance(found, Rejected):
        return False
    alone = SizeAssignment(sizes, "alone")
    again = _run_trial(found, artifact, alone, "random", Tolerances(), run_once)
    if again.outputs:
        again = _judged(again, found, reference, artifact, Tolerances(), {})
    return again.verdict == "failed"


def _jsonable(number: float) -> float | str:
    return number if number == number and abs(number) != float("inf") else str(number)
