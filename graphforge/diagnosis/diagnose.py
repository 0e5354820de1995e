"""Where a file goes wrong: every value against the reference, then the first that is wrong by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphforge.diagnosis.artifact import Alone, Artifact
from graphforge.diagnosis.by_value import ByValue
from graphforge.diagnosis.causes import Fresh, cause_among, fresh_errors, laid_out, part_of
from graphforge.diagnosis.layout import PADDED, SAME, Layout, compared, layouts
from graphforge.diagnosis.lining import Claim, claims_of, merged_into
from graphforge.diagnosis.narrowing import Narrowed, narrowed
from graphforge.diagnosis.outputs import Outputs
from graphforge.diagnosis.report import Cause, Diagnosis, Row
from graphforge.diagnosis.structure import places_by_structure
from graphforge.diagnosis.tape import Entry, Key, Tape
from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.verify.compare import OutputComparison
from graphforge.verify.tolerance import Tolerances

__all__ = ["MEMORY", "diagnose"]

# Bytes of values held at once, where nothing else is asked for.
MEMORY = 1 << 30
# Below this share of nodes that say what they stand for, values are looked for by their numbers as well.
_FEW_CLAIMS = 0.5


@dataclass(frozen=True, slots=True)
class Match:
    """A value of the file and the reference's value that it stands for.

    Attributes:
        value: the file's value.
        key: the reference's.
        layout: how the one lies as the other.
        comparison: how far they are apart.
        equal: whether they agree.
        dtype: element type in the file.
        by: ``origins`` or ``numbers``.
    """

    value: str
    key: Key
    layout: Layout
    comparison: OutputComparison
    equal: bool
    dtype: str
    by: str = "origins"


@dataclass(slots=True)
class _Search:
    """One diagnosis at work."""

    tape: Tape
    artifact: Artifact
    feeds: Mapping[str, Array]
    outputs: Outputs
    tolerances: Tolerances
    memory: int
    twin: Callable[[], Artifact | None] | None
    matches: dict[str, Match] = field(default_factory=dict)
    compared: tuple[OutputComparison, ...] = ()
    notes: list[str] = field(default_factory=list)

    # -- comparing -----------------------------------------------------------------------------------------------------

    def compare_all(self) -> None:
        claims = claims_of(self.artifact, self.tape)
        share = len(claims) / max(1, len(self.artifact.nodes))
        by_numbers = share < _FEW_CLAIMS
        if by_numbers:
            wanted = [name for node in self.artifact.nodes for name in node.outputs]
            finder = ByValue(self.tape, self.tolerances)
            told = "no node says" if not claims else f"only {len(claims)} of {len(self.artifact.nodes)} nodes say"
            self.notes.append(
                f"{told} what it stands for: values are found by their numbers, which shows where the two agree; "
                "a place is named only where an experiment shows it"
            )
        else:
            wanted = list(claims)
            finder = None
        found_outputs: dict[str, Array] = {}
        for piece in self._pieces(dict.fromkeys([*wanted, *self.artifact.outputs]), claims):
            values = self.artifact.run(piece, self.feeds)
            for name in piece:
                array = values.get(name)
                if array is None or not isinstance(array, np.ndarray):
                    continue
                if name in self.artifact.outputs:
                    found_outputs[name] = array
                match = self._claimed(name, array, claims.get(name))
                if match is None and finder is not None and (pair := finder.find(name, array)) is not None:
                    match = Match(name, pair[0], pair[1], pair[2], True, str(array.dtype.name), "numbers")
                if match is not None:
                    self.matches[name] = match
        self.compared = tuple(self.outputs.compare(found_outputs))

    def _claimed(self, name: str, array: Array, claim: Claim | None) -> Match | None:
        if claim is None:
            return None
        first: tuple[Key, OutputComparison] | None = None
        for key in claim.keys:
            layout, comparison = compared(name, self.tape.values[key], array, self.tolerances)
            if layout is not None:
                return Match(name, key, layout, comparison, True, str(array.dtype.name))
            first = first or (key, comparison)
        if first is None or not claim.certain:
            return None
        key, comparison = first
        reference = self.tape.values[key]
        if self.outputs.padding and array.size != reference.size:
            return self._padded(name, key, reference, array)
        layout = next(layouts(self.tape.values[key], array), SAME)
        return Match(name, key, layout, comparison, False, str(array.dtype.name))

    def _padded(self, name: str, key: Key, reference: Array, array: Array) -> Match | None:
        """A ragged value in a file with fixed sizes: its rows come first, or it is kept in another form."""
        if reference.ndim != array.ndim or any(a > b for a, b in zip(reference.shape, array.shape, strict=True)):
            return None
        rows = array[tuple(slice(size) for size in reference.shape)]
        layout, comparison = compared(name, reference, rows, self.tolerances, any_layout=False)
        return None if layout is None else Match(name, key, PADDED, comparison, True, str(array.dtype.name))

    def _pieces(self, wanted: Mapping[str, None], claims: Mapping[str, Claim]) -> Iterator[list[str]]:
        """Names in groups whose values fit into memory together."""
        piece: list[str] = []
        held = largest = 0
        for name in wanted:
            claim = claims.get(name)
            size = sum(self.tape.values[key].nbytes for key in claim.keys[:1]) if claim is not None else largest
            largest = max(largest, size)
            if piece and held + size > self.memory:
                yield piece
                piece, held = [], 0
            piece.append(name)
            held += size
        if piece:
            yield piece

    # -- the cause -----------------------------------------------------------------------------------------------------

    def right(self, value: str) -> Array:
        """The reference's value in the place of the file's."""
        match = self.matches[value]
        array = laid_out(self.tape.values[match.key], match.layout, None)
        dtype = _dtype(match.dtype)
        return array if array.dtype == dtype else array.astype(dtype)

    def reference(self, value: str) -> Array:
        return self.tape.values[self.matches[value].key]

    def outputs_agree(self, replaced: Mapping[str, Array]) -> bool | None:
        try:
            found = self.artifact.run(self.artifact.outputs, self.feeds, replaced)
        except GraphForgeError:
            return None
        return self.outputs.agree(found)

    def causes(self) -> tuple[list[Cause], dict[str, Fresh]]:
        order = self.artifact.producer
        departing = sorted(
            (name for name, one in self.matches.items() if not one.equal), key=lambda n: order.get(n, -1)
        )
        known = {name: one for name, one in self.matches.items() if self._usable(one)}
        parts = [part_of(name, self.artifact, known) for name in departing if name in order]
        fresh = fresh_errors(
            parts, self.artifact, self.feeds, self.right, self.reference, self.tolerances, memory=self.memory
        )
        suspects = [name for name in departing if name in fresh]
        values, shown = cause_among(suspects, self.right, self.outputs_agree) if suspects else ([], False)
        if len(values) == 1 and shown:
            values = [self._odd_before(values[0], fresh[values[0]]) or values[0]]
        found = [self._cause(value, fresh.get(value), shown=shown) for value in values]
        if not found or not shown:
            found = self._by_experiment(known) or found or self._region(known)
        return found, fresh

    def _usable(self, match: Match) -> bool:
        """Whether the reference's value can stand in the place of the file's."""
        reference = self.tape.values[match.key]
        return match.layout is not PADDED and reference.size > 0

    def _odd_before(self, value: str, fresh: Fresh) -> str | None:
        """A value with the right elements in another layout than the program, which makes the outputs wrong."""
        for name in fresh.part.given:
            match = self.matches[name]
            if match.layout is SAME or match.by != "origins":
                continue
            plain = self.tape.values[match.key]
            if self.outputs_agree({name: plain.astype(_dtype(match.dtype))}):
                return name
        return None

    def _cause(self, value: str, fresh: Fresh | None, *, shown: bool, by: str = "origins") -> Cause:
        match = self.matches[value]
        nodes = fresh.part.nodes if fresh is not None else (self.artifact.producer[value],)
        given = fresh.part.given if fresh is not None else ()
        found = self._narrowed(nodes, given, (value,))
        names = tuple(self.artifact.nodes[position].name for position in found.nodes)
        return Cause(
            self._entry_of(found.node) or self.tape.entries[match.key],
            value,
            self.artifact.nodes[found.node].describe(),
            names,
            fresh.comparison if fresh is not None else match.comparison,
            shown,
            by,
            found.note,
        )

    def _entry_of(self, position: int) -> Entry | None:
        """The program's value that a node stands for first of all: what it took in (a norm, a select) comes behind."""
        known = (origin.value for origin in self.artifact.nodes[position].origins if origin.value in self.tape.by_name)
        name = next(known, None)
        return None if name is None else self.tape.entries[self.tape.by_name[name][0]]

    def _narrowed(self, nodes: tuple[int, ...], given: Sequence[str], wanted: tuple[str, ...]) -> Narrowed:
        """The node among several that is wrong, by what a compilation of the model gives there."""
        last = max((self.artifact.producer[name] for name in wanted if name in self.artifact.producer), default=-1)
        if len(nodes) < 2:
            return Narrowed(last, (last,))
        part = Alone(nodes, {name: self.right(name) for name in given}, wanted)
        return narrowed(part, last, self.artifact, self.feeds, self.twin, self.outputs, self.tolerances)

    def _by_experiment(self, known: Mapping[str, Match]) -> list[Cause]:
        """For a file that says nothing: a node whose inputs agree and whose result, put right, repairs the outputs."""
        for place in places_by_structure(self.artifact, self.tape, known):
            array = self.tape.values[place.key]
            for layout in [SAME, *place.layouts]:
                if self.outputs_agree({place.value: laid_out(array, layout, None).astype(_dtype(place.dtype, array))}):
                    node = self.artifact.nodes[self.artifact.producer[place.value]]
                    names = tuple(self.artifact.nodes[position].name for position in place.nodes)
                    return [
                        Cause(
                            self.tape.entries[place.key],
                            place.value,
                            node.describe(),
                            names,
                            None,
                            True,
                            "structure and numbers",
                        )
                    ]
        return []

    def _region(self, known: Mapping[str, Match]) -> list[Cause]:
        """What lies between the last values that agree and the outputs, where the outputs are wrong from there."""
        given = {name for name, one in known.items() if name not in self.artifact.outputs}
        nodes, read = self.artifact.part_before(self.artifact.outputs, given)
        if not nodes:
            return []
        part = Alone(nodes, {name: self.right(name) for name in read}, self.artifact.outputs)
        try:
            found = self.artifact.run_alone([part], self.feeds)[0]
        except GraphForgeError:
            return []
        wrong = [one for one in self.outputs.compare(found) if not one.passed]
        if not wrong:
            return []
        narrow = narrowed(part, nodes[-1], self.artifact, self.feeds, self.twin, self.outputs, self.tolerances)
        if not narrow.sure and not self.artifact.has_origins:
            return []
        node, entry = self.artifact.nodes[narrow.node], self._entry_of(narrow.node)
        listed = tuple(self.artifact.nodes[position].name for position in narrow.nodes)
        return [Cause(entry, node.outputs[0], node.describe(), listed, wrong[0], False, "the outputs", narrow.note)]

    # -- the table -----------------------------------------------------------------------------------------------------

    def rows(self, fresh: Mapping[str, Fresh], causes: Sequence[Cause], *, agrees: bool) -> tuple[Row, ...]:
        best: dict[Key, Match] = {}
        for match in self.matches.values():
            if match.key not in best or (match.equal and not best[match.key].equal):
                best[match.key] = match
        into = merged_into(self.tape, self.artifact)
        first = next((cause.entry for cause in causes if cause.entry is not None), None)
        guilty = {cause.value for cause in causes}
        rows = []
        for key, entry in self.tape.entries.items():
            found = best.get(key)
            if found is None:
                other = into.get(key[0])
                rows.append(Row(entry, "merged", note=f"into {other}" if other else ""))
            elif found.equal and found.value not in guilty:
                rows.append(Row(entry, "equal", found.value, found.comparison, found.layout.describe()))
            elif agrees:
                rows.append(Row(entry, "absorbed", found.value, found.comparison, "nothing that reads it departs"))
            elif found.value in guilty:
                rows.append(Row(entry, "wrong here", found.value, found.comparison))
            elif found.value in fresh and causes and causes[0].shown:
                note = "putting it right changes no output"
                rows.append(Row(entry, "absorbed", found.value, found.comparison, note))
            else:
                note = f"because of {first.name}" if first is not None else ""
                rows.append(Row(entry, "inherited", found.value, found.comparison, note))
        return tuple(rows)


def diagnose(
    tape: Tape,
    artifact: Artifact,
    feeds: Mapping[str, Array],
    *,
    tolerances: Tolerances | None = None,
    padding: Sequence[Mapping[str, Any]] = (),
    memory: int = MEMORY,
    twin: Callable[[], Artifact | None] | None = None,
    layers: str = "modules",
    weights: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Diagnosis:
    """Compare all values of a file with a reference's, and find what makes its outputs wrong.

    Args:
        tape: the reference's values for these inputs.
        artifact: the file.
        feeds: inputs by name, or in the file's order.
        tolerances: what counts as equal; None takes the defaults by dtype.
        padding: the manifest's recipe for padded outputs.
        memory: bytes of values held at once.
        twin: compiles the model anew, to find out which of several nodes is wrong; None where that is not possible.
        layers: what is printed of the rows.
        weights: what differs among the weights.
        notes: what limits the answer.

    Raises:
        GraphForgeError: the file does not run on these inputs.
    """
    given = tolerances or Tolerances()
    outputs = Outputs(tape.outputs, padding, given)
    search = _Search(tape, artifact, artifact.feeds(feeds), outputs, given, memory, twin, notes=[*tape.notes, *notes])
    try:
        search.compare_all()
    except GraphForgeError as error:
        if set(artifact.inputs) <= set(feeds):
            raise
        theirs, mine = ", ".join(artifact.inputs), ", ".join(feeds)
        raise error.with_notes(
            f"the file takes {theirs}, the model {mine}: was it compiled from this model?"
        ) from error
    agrees = all(one.passed for one in search.compared)
    causes, fresh = ([], {}) if agrees else search.causes()
    verdict = "agrees" if agrees else "departs" if causes or _cannot_round(search.compared) else "undecided"
    if not agrees and not causes:
        search.notes.append(_without_a_cause(search))
    missing = tuple(
        f"output {one.name}: {one.reason}" for one in search.compared if one.max_abs is None and not one.passed
    )
    return Diagnosis(
        verdict,
        search.compared,
        tuple(causes),
        search.rows(fresh, causes, agrees=agrees),
        missing,
        tuple(weights),
        tuple(dict.fromkeys(search.notes)),
        layers,
    )


def _cannot_round(outputs: Sequence[OutputComparison]) -> bool:
    """Whether some output differs by what no rounding does: another shape or dtype, NaN on one side."""
    return any(not one.passed and (one.max_abs is None or not np.isfinite(one.max_abs)) for one in outputs)


def _without_a_cause(search: _Search) -> str:
    departing = [one for one in search.matches.values() if not one.equal]
    if departing or search.artifact.has_origins:
        return "every node agrees when it is computed from the reference's values: the difference grows on the way"
    agreeing = [name for name in search.matches if search.matches[name].equal]
    order = search.artifact.producer
    last = max(agreeing, key=lambda name: order.get(name, -1), default="")
    return f"the last value that agrees by its numbers is {last!r}" if last else "no value agrees by its numbers"


def _dtype(name: str, like: Array | None = None) -> np.dtype[Any]:
    if not name:
        assert like is not None
        return like.dtype
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return narrow
