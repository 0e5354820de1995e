"""The verdict on the outputs of one run, by evidence: passed, failed or undecided, each with its reason.

The simple test comes first: a few units in the last place pass.  What it leaves open is compared with what rounding
does to the reference itself (``allowance.py``), then with what the reference gives when a decision that hangs on
rounding turns out otherwise (``witness.py``).  README.md in this folder has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphforge.runners.arrays import Array, dtype_name
from graphforge.runners.eager import EagerRunner
from graphforge.verify.allowance import FACTOR, Allowance, allowance_of, as_floats, at_most_steps, steps_allowed
from graphforge.verify.compare import OutputComparison
from graphforge.verify.tolerance import Tolerances

if TYPE_CHECKING:
    from graphforge.verify.witness import MovedRun, Witness

__all__ = ["settled"]

# Runs that measure, and runs altogether when decisions are looked for.
_MEASURING = 4
_LOOKING = 12

# Rounding that can move an output by this share of its largest magnitude leaves nothing to prove.
_HOPELESS = 0.25

# As many elements may be decided otherwise, of those that no run decided so, as this times the most that a run did.
_LIKE = 3

# An output of which this share is off is not off by a decision that turned.
_MOST = 0.5

# What reduced precision computes in: its rounding is moved in the reference, so that what it explains is measured.
_HALVES = ("float16", "bfloat16")

# Without any evidence a difference up to so many times the tolerance is undecided, a larger one failed.
_UNMEASURED = 10.0


def settled(
    reference: Mapping[str, Array],
    artifact: Mapping[str, Array],
    compared: Sequence[OutputComparison],
    tolerances: Tolerances,
    witness: Witness,
    *,
    strict: bool,
    shares: dict[str, float],
) -> tuple[list[OutputComparison], list[str]]:
    """The comparisons with their verdicts, and what there is to say of the whole.

    Args:
        reference: outputs of the reference, by the artifact's names.
        artifact: outputs of the artifact.
        compared: how each of them compares under the plain tolerances.
        tolerances: what is allowed.
        witness: the reference on these inputs.
        strict: judge by evidence what the plain tolerances let pass, where it is more than a few steps off.
        shares: what rounding does to each output as a share of its largest magnitude; read and extended.
    """
    if strict:
        compared = [_in_steps(one, tolerances) for one in compared]
    open_ones = [
        one
        for one in compared
        if one.name in reference and _is_open(one, reference[one.name], artifact[one.name], tolerances, strict, shares)
    ]
    if not open_ones:
        return list(compared), []
    if not all(one.passed for one in open_ones):
        by_order = _in_another_order(reference, artifact, compared, tolerances, witness, strict=strict, shares=shares)
        if by_order is not None:
            return by_order
        if not witness.repeats_itself():
            return list(compared), []  # what such a reference gives in other runs says nothing of rounding
    case = _Case(reference, artifact, tolerances, witness, strict=strict)
    verdicts = {one.name: case.of(one) for one in open_ones}
    notes: list[str] = []
    if not all(one.passed for one in verdicts.values()):
        verdicts, notes = case.as_decided_otherwise(verdicts)
        if not all(one.passed for one in verdicts.values()):
            plain = witness.plain()
            notes.extend(plain.known if plain is not None else ())
    for name, allowance in case.allowances.items():
        largest = np.max(np.abs(as_floats(reference[name])), initial=0.0, where=np.isfinite(as_floats(reference[name])))
        if largest > 0:
            shares[name] = max(shares.get(name, 0.0), allowance.largest / float(largest))
    return [verdicts.get(one.name, one) for one in compared], notes


def _in_another_order(
    reference: Mapping[str, Array],
    artifact: Mapping[str, Array],
    compared: Sequence[OutputComparison],
    tolerances: Tolerances,
    witness: Witness,
    *,
    strict: bool,
    shares: dict[str, float],
) -> tuple[list[OutputComparison], list[str]] | None:
    """The verdict where nothing but the order of equal values is wrong; None where more is, or something else.

    It takes one run that moves nothing, where measuring what rounding does takes five: they come afterwards, and of
    the reference with its ties settled.
    """
    from graphforge.verify.verify import compare_outputs

    run = witness.another_order()
    if run is None or len(run.outputs) != len(reference):
        return None
    by_name = all(name in run.outputs for name in reference)
    right = {
        name: run.outputs[name] if by_name else other
        for name, other in zip(reference, run.outputs.values(), strict=True)
    }
    again = compare_outputs(right, artifact, tolerances)
    if not all(one.passed for one in again):
        return None
    verdicts, notes = settled(
        right, artifact, again, tolerances, witness.with_lowest_first(), strict=strict, shares=shares
    )
    if not all(one.passed for one in verdicts):
        return None
    turned = {one.name for one in compared if not one.passed}
    return [_as_another_choice(one) if one.name in turned else one for one in verdicts], [*notes, _of_order(run)]


def _of_order(run: MovedRun) -> str:
    return (
        f"equal values stand in another order than eager's at {', '.join(run.tied[:3])}: "
        "their order is arbitrary, and either is right"
    )


def _as_another_choice(one: OutputComparison) -> OutputComparison:
    return replace(one, passed=True, undecided=False, reason="", mismatched=0, tolerance="another choice of eager's")


def _is_open(
    one: OutputComparison, ref: Array, art: Array, tolerances: Tolerances, strict: bool, shares: Mapping[str, float]
) -> bool:
    """Whether the plain tolerances have not the last word on an output."""
    if dtype_name(ref) != dtype_name(art) or ref.dtype.kind in "OSU":  # of texts, equal is equal
        return False
    floats = ref.dtype.kind not in "biu"
    if floats and not tolerances.of(one.name, one.dtype).allow_nonfinite and not np.isfinite(as_floats(ref)).all():
        return False  # nothing can be proven against it
    if not one.passed:
        return not tolerances.is_stricter(one.name, one.dtype)
    if not strict or one.note or ref.dtype.kind not in "fcV" or tolerances.is_given(one.name, one.dtype):
        return False
    if tolerances.computed.get(one.name, "float16") not in _HALVES:
        return False  # the artifact computes in fewer digits than eager, and says so
    if one.max_rel is not None and one.max_rel <= shares.get(one.name, 0.0):
        return False
    underflow = tolerances.of(one.name, one.dtype).underflow
    return not at_most_steps(
        ref, art, underflow, depth=tolerances.depths.get(one.name, 0), computed=tolerances.computed.get(one.name)
    )


def _in_steps(one: OutputComparison, tolerances: Tolerances) -> OutputComparison:
    """The simple test's own words for what it allows."""
    floats = one.dtype.startswith(("float", "bfloat", "complex"))
    if not one.passed or one.note or not floats or tolerances.is_given(one.name, one.dtype):
        return one
    computed = tolerances.computed.get(one.name, "")
    if (computed and computed not in _HALVES) or one.tolerance == "empty":
        return one
    steps = steps_allowed(computed or one.dtype, tolerances.depths.get(one.name, 0))
    allowed = tolerances.of(one.name, one.dtype).allow_nonfinite
    of = f" of {computed}" if computed else ""
    return replace(
        one, tolerance=f"{steps:.3g} units in the last place{of}{', same NaN/Inf allowed' if allowed else ''}"
    )


class _Case:
    """One set of inputs, and what is known of the reference there."""

    def __init__(
        self,
        reference: Mapping[str, Array],
        artifact: Mapping[str, Array],
        tolerances: Tolerances,
        witness: Witness,
        *,
        strict: bool,
    ) -> None:
        self.strict = strict
        self.reference = reference
        self.artifact = artifact
        self.tolerances = tolerances
        self.witness = witness
        # an output that nothing computes in fewer digits may be off by no more because another one is
        self.finer = witness.in_its_own_digits()
        self.allowances: dict[str, Allowance] = {}
        self._renamed: dict[str, str] = {}

    def of(self, one: OutputComparison) -> OutputComparison:
        """The verdict on one output by what rounding does to it."""
        ref, art = self.reference[one.name], self.artifact[one.name]
        if ref.shape != art.shape or ref.dtype.kind in "biuOSU":
            return one
        if one.max_abs is not None and not np.isfinite(one.max_abs):
            return one
        if one.passed:  # near enough that one run, half the price of the rest, may do
            self.allowances[one.name] = self._measured(one.name, 1, in_float64=False)
            if self.allowances[one.name].spread is not None and not self._outside(one.name, art).any():
                return self._rounded(one, self.allowances[one.name])
            del self.allowances[one.name]
        allowance = self._allowance(one.name)
        if allowance.own is None and allowance.spread is None:
            return one if one.passed else self._unmeasured(one, ref, art)
        outside = self._outside(one.name, art)
        if outside.any():
            return self._failed(one, outside, allowance)
        largest = float(np.max(np.abs(as_floats(ref)), initial=0.0, where=np.isfinite(as_floats(ref))))
        usual = FACTOR * float(np.median(np.broadcast_to(allowance.level, as_floats(ref).shape)))
        if not one.passed and usual > _HOPELESS * largest:
            return replace(
                one,
                passed=False,
                undecided=True,
                reason=f"differs by {one.max_abs:.3g}, and so it may: {allowance.describe()}, "
                f"where the largest magnitude is {largest:.3g}; nothing can be proven against such a reference",
            )
        return self._rounded(one, allowance)

    def _rounded(self, one: OutputComparison, allowance: Allowance) -> OutputComparison:
        note = "" if one.passed else f"differs by {one.max_abs:.3g}, which is rounding: {allowance.describe()}"
        return replace(
            one,
            passed=True,
            reason="",
            mismatched=0,
            note=one.note or note,
            tolerance=f"{FACTOR:g} times rounding, {allowance.largest:.2g}",
        )

    def as_decided_otherwise(
        self, verdicts: Mapping[str, OutputComparison]
    ) -> tuple[dict[str, OutputComparison], list[str]]:
        """The verdicts once the reference has been run with its decisions turned, and which decision it is."""
        wrong = {name for name, one in verdicts.items() if not one.passed}
        plain = self.witness.plain()
        if plain is None or self._stands_firm(plain, wrong):
            return dict(verdicts), []
        for run in self._candidates():
            if _differs(plain, run) and self._agrees(run):
                note = self._told(plain, run)
                return {n: _as_another_choice(one) if n in wrong else one for n, one in verdicts.items()}, [note]
        if not any(_differs(plain, run) for run in self._candidates()):
            return dict(verdicts), []  # nothing is decided otherwise, however eager's values move
        left = {name: self._left(name) for name in wrong}
        if all(where is not None and not where.any() for where in left.values()):
            note = self._first_turn(plain)
            return {n: _as_another_choice(one) if n in wrong else one for n, one in verdicts.items()}, [note]
        return {n: self._as_unsteady(one, plain) if n in wrong else one for n, one in verdicts.items()}, []

    # -- measuring -----------------------------------------------------------------------------------------------------

    def _allowance(self, name: str) -> Allowance:
        if name not in self.allowances:
            self.allowances[name] = self._measured(name, _MEASURING, in_float64=True)
        return self.allowances[name]

    def _measured(self, name: str, runs: int, *, in_float64: bool) -> Allowance:
        witness = self.witness if name in self.tolerances.computed else self.finer
        moved = [self._output(run.outputs, name) for run in witness.moved(runs)]
        exact = self._output(self.witness.exact(), name) if in_float64 else None
        return allowance_of(self.reference[name], [one for one in moved if one is not None], exact)

    def _output(self, outputs: Mapping[str, Array], name: str) -> Array | None:
        """An output of the reference under the artifact's name: by name, else by its position."""
        if name in outputs:
            return outputs[name]
        position = list(self.reference).index(name)
        return list(outputs.values())[position] if len(outputs) == len(self.reference) else None

    def _outside(self, name: str, other: Array) -> Array:
        """Which elements of the artifact are further from another array than rounding explains."""
        art = self.artifact[name]
        if art.shape != other.shape and other is not art:
            return np.ones(art.shape, bool)
        if art.dtype.kind in "biuOSU":
            return np.asarray(art != other)
        return self._apart(name, other if other is not art else self.reference[name])

    def _apart(self, name: str, ref: Array) -> Array:
        art, allowance = self.artifact[name], self._allowance(name)
        r, a = as_floats(ref).astype(np.float64), as_floats(art).astype(np.float64)
        plain = self.tolerances.of(name, dtype_name(self.reference[name]))
        if r.shape != np.broadcast_shapes(r.shape, allowance.level.shape):  # rows came or went
            size = float(np.max(np.abs(r), initial=0.0, where=np.isfinite(r)))
            allowed = np.maximum(allowance.largest, plain.scale * size) + plain.rtol * np.abs(r)
        else:
            allowed = FACTOR * allowance.level
        coarse = self.tolerances.computed.get(name)
        measured = self.strict and coarse in _HALVES and allowance.spread is not None
        if self.tolerances.is_given(name, dtype_name(art)) or (coarse is not None and not measured):
            size = float(np.max(np.abs(r), initial=0.0, where=np.isfinite(r)))
            allowed = np.maximum(allowed, plain.scale * size + plain.rtol * np.abs(r) + plain.atol)
        with np.errstate(invalid="ignore"):
            inside = (np.abs(a - r) <= allowed + plain.underflow) | (r == a) | (np.isnan(r) & np.isnan(a))
        return np.asarray(~inside)

    def _stands_firm(self, plain: MovedRun, wrong: set[str]) -> bool:
        """Whether no decision can explain what is wrong, so that there is nothing to look for.

        The reference decides nothing; or nothing turned where values moved a step, and most of an output is off, as no
        single decision would have it.
        """
        if not isinstance(self.witness.reference, EagerRunner):
            return False
        if not plain.decisions:
            return True
        if any(_differs(plain, run) for run in [*self.witness.moved(_MEASURING), *self.witness.with_ties_settled()]):
            return False
        return all(
            self.artifact[name].shape == self.reference[name].shape
            and float(np.mean(self._outside(name, self.reference[name]))) > _MOST
            for name in wrong
        )

    # -- decisions -----------------------------------------------------------------------------------------------------

    def _candidates(self) -> Iterator[MovedRun]:
        """Other answers that the reference might as well have given, the likeliest first."""
        yield from self.witness.with_ties_settled()
        for count in range(1, _LOOKING + 1):
            runs = self.witness.moved(count)
            if len(runs) < count:
                return
            yield runs[-1]

    def _agrees(self, run: MovedRun) -> bool:
        for name, art in self.artifact.items():
            other = self._output(run.outputs, name)
            if other is None or other.shape != art.shape or other.dtype != art.dtype:
                return False
            if self._outside(name, other).any():
                return False
        return True

    def _left(self, name: str) -> Array | None:
        """Elements that agree with no run of the reference; None where shapes differ."""
        art = self.artifact[name]
        if art.shape != self.reference[name].shape:
            return None
        left = self._outside(name, self.reference[name])
        others = [
            other
            for run in [*self.witness.with_ties_settled(), *self.witness.moved(_LOOKING)]
            if (other := self._output(run.outputs, name)) is not None and other.shape == art.shape
        ]
        for other in others:
            left &= self._outside(name, other)
        if (
            art.size == 1 and art.dtype.kind in "iu"
        ):  # a count lies among those of the runs, and need not be one of them
            counts = [int(other.reshape(-1)[0]) for other in (self.reference[name], *others)]
            left &= not min(counts) <= int(art.reshape(-1)[0]) <= max(counts)
        return left

    def _as_unsteady(self, one: OutputComparison, plain: MovedRun) -> OutputComparison:
        """Undecided where the reference itself decides otherwise as often; failed as it was where it stands firm."""
        if one.undecided:
            return one
        ref, art = self.reference[one.name], self.artifact[one.name]
        moved = [self._output(run.outputs, one.name) for run in self.witness.moved(_LOOKING)]
        runs = [other for other in moved if other is not None]
        if ref.shape != art.shape:
            unsteady = any(other.shape != ref.shape for other in runs)
            close = unsteady and art.ndim == ref.ndim
        else:
            turned = [
                int(np.count_nonzero(self._between(one.name, other))) if other.shape == ref.shape else ref.size
                for other in runs
            ]
            unsteady = any(turned)
            count = int(np.count_nonzero(self._outside(one.name, ref)))
            close = unsteady and count <= _LIKE * max(turned, default=0)
        if not close:
            return one
        return replace(
            one,
            undecided=True,
            reason=f"{one.reason}; eager itself decides otherwise when its values move by a few units in the last "
            f"place ({self._first_turn(plain)}), but in none of {len(runs)} runs as the artifact does",
        )

    def _between(self, name: str, other: Array) -> Array:
        """Where another run of the reference is further from the first than rounding explains."""
        ref = self.reference[name]
        if ref.dtype.kind in "biuOSU":
            return np.asarray(ref != other)
        r, o = as_floats(ref).astype(np.float64), as_floats(other).astype(np.float64)
        with np.errstate(invalid="ignore"):
            inside = (np.abs(o - r) <= FACTOR * self._allowance(name).level) | (r == o) | (np.isnan(r) & np.isnan(o))
        return np.asarray(~inside)

    # -- words ---------------------------------------------------------------------------------------------------------

    def _told(self, plain: MovedRun, run: MovedRun) -> str:
        from graphforge.verify.rounding import turned

        if run.tied:
            return _of_order(run)
        turn = turned(plain.decisions, run.decisions)
        return (
            _hangs(turn) if turn else "it agrees with eager once eager's values move by a few units in the last place"
        )

    def _first_turn(self, plain: MovedRun) -> str:
        from graphforge.verify.rounding import turned

        for run in self.witness.moved(_LOOKING):
            turn = turned(plain.decisions, run.decisions)
            if turn:
                return _hangs(turn)
        for run in self.witness.with_ties_settled():
            if run.tied:
                return f"equal values at {', '.join(run.tied[:3])} stand in an arbitrary order"
        return "a decision hangs on rounding"

    def _failed(self, one: OutputComparison, outside: Array, allowance: Allowance) -> OutputComparison:
        ref = as_floats(self.reference[one.name])
        art = as_floats(self.artifact[one.name])
        with np.errstate(invalid="ignore", divide="ignore"):
            over = np.abs(art.astype(np.float64) - ref) / np.maximum(FACTOR * allowance.level, 1e-300)
        over = np.where(outside, np.nan_to_num(over, nan=np.inf), 0.0)
        place = np.unravel_index(int(np.argmax(over)), ref.shape)
        allowed = FACTOR * float(np.broadcast_to(allowance.level, ref.shape)[place])
        where = [int(index) for index in place]
        count = int(np.count_nonzero(outside))
        expected, got = float(ref[place]), float(art[place])
        return replace(
            one,
            passed=False,
            mismatched=count,
            worst=tuple(where),
            worst_reference=expected,
            worst_artifact=got,
            reason=f"{count} of {ref.size} elements are off by more than rounding explains; worst at {where}: "
            f"expected {expected:.7g}, got {got:.7g}, off by {abs(got - expected):.3g} where {allowed:.3g} is allowed "
            f"({allowance.describe()})",
        )

    def _unmeasured(self, one: OutputComparison, ref: Array, art: Array) -> OutputComparison:
        plain = self.tolerances.of(one.name, one.dtype)
        r, a = as_floats(ref).astype(np.float64), as_floats(art).astype(np.float64)
        allowed = plain.scale * (one.max_reference or 0.0) + plain.rtol * np.abs(r) + plain.atol + plain.underflow
        gap = "; ".join(self.witness.gaps) or "the reference cannot be watched"
        if np.all(np.abs(a - r) <= _UNMEASURED * allowed):
            return replace(
                one, undecided=True, reason=f"{one.reason}; what rounding does there was not measured: {gap}"
            )
        return one


def _differs(plain: MovedRun, run: MovedRun) -> bool:
    """Whether something was decided otherwise in a run; a reference that is a file cannot be watched."""
    from graphforge.verify.rounding import turned

    return bool(run.tied) or not plain.decisions or turned(plain.decisions, run.decisions) is not None


def _hangs(turn: tuple[object, int, int]) -> str:
    decision, count, size = turn
    one = decision.describe()  # type: ignore[attr-defined]
    return (
        f"a decision hangs on values within rounding of each other: {one} turns out otherwise for {count} of {size} "
        "elements when eager's values move by a few units in the last place"
    )
