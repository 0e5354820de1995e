"""Where a file goes wrong: every value against the reference, then the first that is wrong by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphforge.diagnosis.artifact import Alone, Artifact, same_kind
from graphforge.diagnosis.by_value import ByValue
from graphforge.diagnosis.causes import Fresh, cause_among, fresh_errors, laid_out, part_of
from graphforge.diagnosis.layout import PADDED, SAME, Layout, compared, layouts
from graphforge.diagnosis.lining import Claim, claims_of, merged_into
from graphforge.diagnosis.narrowing import Narrowed, narrowed
from graphforge.diagnosis.outputs import Outputs
from graphforge.diagnosis.precision import (
    HALVES,
    LayerPrecision,
    Quality,
    decibels,
    layers_of,
    quality,
    reduced_to,
    worth_keeping,
)
from graphforge.diagnosis.report import COSTS, Cause, Diagnosis, Row
from graphforge.diagnosis.store import give_back
from graphforge.diagnosis.structure import places_by_structure
from graphforge.diagnosis.tape import Entry, Key, Tape
from graphforge.diagnosis.weights import Weights, weights_of
from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.verify.compare import OutputComparison
from graphforge.verify.tolerance import Tolerances

__all__ = ["MEMORY", "diagnose"]

# Bytes of values held at once, where nothing else is asked for.
MEMORY = 1 << 30
# Below this share of nodes that say what they stand for, values are looked for by their numbers as well.
_FEW_CLAIMS = 0.5
# Operators that hand a value on; nobody expects them to say what they stand for.
_CARRYING = frozenset("Cast Constant DequantizeLinear Identity QuantizeLinear".split())


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
        claimed: what it stands for by its place among its like, and how far it is from that, where it equals another.
    """

    value: str
    key: Key
    layout: Layout
    comparison: OutputComparison
    equal: bool
    dtype: str
    by: str = "origins"
    claimed: tuple[Key, OutputComparison] | None = None


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
    own: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None
    level: str = ""
    matches: dict[str, Match] = field(default_factory=dict)
    qualities: dict[str, Quality] = field(default_factory=dict)
    handed_on: dict[str, str] = field(default_factory=dict)
    compared: tuple[OutputComparison, ...] = ()
    measured: tuple[Quality | None, ...] = ()
    looked_at: bool = False
    hidden: bool = False
    notes: list[str] = field(default_factory=list)
    watch: Callable[[str, Array, Array], None] | None = None

    # -- comparing -----------------------------------------------------------------------------------------------------

    def compare_all(self) -> None:
        claims = claims_of(self.artifact, self.tape)
        sure = sum(claim.certain for claim in claims.values())
        counted = sum(node.operator not in _CARRYING for node in self.artifact.nodes)
        finder = ByValue(self.tape, self.tolerances) if sure < _FEW_CLAIMS * counted else None
        self.handed_on = {back: name for name in claims if (back := self._handed_on(name))}
        wanted = [*claims, *self.handed_on]
        if finder is not None:
            wanted = [name for node in self.artifact.nodes for name in node.outputs]
            self.notes.append(
                f"{sure or 'none'} of {counted} nodes say for certain what they stand for: values are "
                "found by their numbers, and a place is named only where an experiment shows it"
            )
        found_outputs: dict[str, Array] = {}
        for piece in self._pieces(dict.fromkeys([*wanted, *self.artifact.outputs]), claims):
            for name, array in self.artifact.each(piece, self.feeds):
                if name in self.artifact.outputs:
                    found_outputs[name] = array
                if name in self.handed_on:
                    match = self._quantised(name, array)
                else:
                    match = self._claimed(name, array, claims.get(name))
                if match is None and finder is not None and (pair := finder.find(name, array)) is not None:
                    match = Match(name, pair[0], pair[1], pair[2], True, str(array.dtype.name), "numbers")
                if match is not None:
                    self.matches[name] = match
                    self._measure(match, array)
                    if self.watch is not None:
                        self.watch(name, self.tape.values[match.key], array)
            give_back()
        self._see_each_once()
        if self.own is None:
            plain: Mapping[str, Array] = self.artifact.run(self.artifact.outputs, self.feeds)
        else:
            plain = self.own(self.feeds)
        self.compared = tuple(self.outputs.compare(plain))
        self.measured = tuple(self.outputs.measure(plain))
        self.looked_at = self.outputs.agree(found_outputs)
        if self.level in HALVES and self.own is None and self.artifact.graph_runner is None:
            self._round(plain)
        elif self.level:
            self.notes += _lost_by_fusions(self.outputs, plain, found_outputs)

    def _round(self, plain: Mapping[str, Array]) -> None:
        """Judge the outputs by what the file says: the result of each node has the type that it has there."""
        rounded = self.artifact.run_rounded(self.feeds)
        compared, measured = tuple(self.outputs.compare(rounded)), tuple(self.outputs.measure(rounded))
        hidden = not all(one.passed for one in compared) and all(one.passed for one in self.compared)
        self.hidden = hidden
        for one, alone, fused in zip(compared, measured, self.measured, strict=True):
            if alone is not None and fused is not None and fused.snr - alone.snr > _FUSED:
                self.notes.append(
                    f"output {one.name} has {decibels(alone.snr)} with each node's result in {self.level}, and "
                    f"{decibels(fused.snr)} as this runtime computes it, in more digits between the nodes: the first "
                    "is what the file says, and what runtimes with kernels for it give"
                )
        self.compared, self.measured = compared, measured

    @property
    def differs_by_fusions(self) -> bool:
        """The outputs agree as soon as every value is handed out, which keeps the runtime from fusing nodes."""
        return self.looked_at and not self.hidden and not all(one.passed for one in self.compared)

    def _see_each_once(self) -> None:
        """A piece of a tensor that equals a piece that another one holds, where its own is held by none, departs."""
        held: dict[Key, int] = {}
        for match in self.matches.values():
            held[match.key] = held.get(match.key, 0) + 1
        for name, match in list(self.matches.items()):
            if match.claimed is not None and held[match.key] > 1 and match.claimed[0] not in held:
                key, comparison = match.claimed
                self.matches[name] = Match(name, key, SAME, comparison, False, match.dtype)

    def _claimed(self, name: str, array: Array, claim: Claim | None) -> Match | None:
        if claim is None:
            return None
        first: tuple[Key, OutputComparison] | None = None
        for key in claim.keys:
            if not same_kind(self.tape.values[key], array):
                continue
            layout, comparison = compared(name, self.tape.values[key], array, self.tolerances)
            if layout is not None:
                place = first if claim.certain else None
                return Match(name, key, layout, comparison, True, str(array.dtype.name), claimed=place)
            first = first or (key, comparison)
        if first is None or not claim.certain:
            return None
        key, comparison = first
        reference = self.tape.values[key]
        if self.outputs.padding and array.size != reference.size:
            return self._padded(name, key, reference, array)
        layout = next(layouts(self.tape.values[key], array), SAME)
        return Match(name, key, layout, comparison, False, str(array.dtype.name))

    def _handed_on(self, name: str) -> str:
        """What a quantised value is read as, behind its QuantizeLinear and DequantizeLinear; "" where it is not one."""
        if self.level != "int8":
            return ""
        for step in ("QuantizeLinear", "DequantizeLinear"):
            readers = [self.artifact.nodes[position] for position in self.artifact.readers.get(name, ())]
            name = next((node.outputs[0] for node in readers if node.operator == step), "")
        return name

    def _quantised(self, name: str, array: Array) -> Match | None:
        """A value as it is handed on: with what it is clipped to, which may stand for the activation behind it."""
        match = self.matches.get(self.handed_on[name])
        if match is None or match.layout is not SAME:
            return None
        behind = [
            key
            for key, entry in self.tape.entries.items()
            if entry.reads == (match.key[0],) and entry.shape == self.tape.entries[match.key].shape
        ]
        best = max([match.key, *behind], key=lambda key: quality(self.tape.values[key], array).snr)
        layout, comparison = compared(name, self.tape.values[best], array, self.tolerances, any_layout=False)
        return Match(name, best, SAME, comparison, layout is SAME, str(array.dtype.name))

    def _measure(self, match: Match, array: Array) -> None:
        reference = self.tape.values[match.key]
        if self.level and reference.dtype.kind == "f" and match.layout is not PADDED and reference.size == array.size:
            self.qualities[match.value] = quality(match.layout.of(reference), array)

    def precision(self, full: Artifact | None) -> tuple[LayerPrecision, ...]:
        """What each layer of a file in fewer digits loses; nothing for one in full precision."""
        quantised = {self.handed_on[back] for back in self.handed_on if back in self.matches}  # told as it is handed on
        known = {n: one for n, one in self.matches.items() if self._usable(one) and n not in quantised}
        made = [name for node in self.artifact.nodes for name in node.outputs]
        names = [name for name in made if name in known and name in self.qualities]
        parts = [part_of(name, self.artifact, known) for name in names]
        keys = {name: known[name].key for name in names}
        formats = {name: known[name].dtype if self.level in HALVES else "" for name in names}
        rows = layers_of(
            keys,
            parts,
            self.qualities,
            self.artifact,
            self.tape,
            self.feeds,
            self.right,
            formats,
            full,
            memory=self.memory,
        )
        return tuple(rows)

    def costly(self, layer: LayerPrecision) -> Cause:
        """A layer whose result is as the format has it, and which costs the outputs more than they may lose."""
        node = self.artifact.nodes[self.artifact.producer[layer.value]]
        told = f"reduced alone it brings the outputs down to {decibels(layer.costs or 0.0)}"
        return Cause(layer.entry, layer.value, node.describe(), layer.nodes, None, False, COSTS, told)

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
        if array.dtype == dtype:
            return array
        with np.errstate(over="ignore"):  # a value too large for the file's type is infinite there
            return array.astype(dtype)

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
            self._made_by(found.node),
        )

    def _made_by(self, position: int) -> str:
        return next((one.made_by for one in self.artifact.nodes[position].origins if one.made_by), "")

    def _entry_of(self, position: int) -> Entry | None:
        """The program's value that a node stands for first of all: what it took in (a norm, a select) comes behind."""
        origins = self.artifact.nodes[position].origins
        name = next((origin.value for origin in origins if origin.value in self.tape.by_name), None)
        if name is not None:
            return self.tape.entries[self.tape.by_name[name][0]]
        # what a pass has made another value of still has its line
        places = [(origin.module, origin.source, origin.target) for origin in origins if origin.source]
        for entry in self.tape.entries.values():
            if (entry.origin.module, entry.origin.source, entry.origin.target) in places[:1]:
                return entry
        return None

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
        places = {cause.entry.key for cause in causes if cause.entry is not None}
        rows = []
        for key, entry in self.tape.entries.items():
            found = best.get(key)
            if found is None and key in places:
                rows.append(Row(entry, "wrong here", next(one.value for one in causes if one.entry is entry)))
            elif found is None:
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
    full: Callable[[], Artifact | None] | None = None,
    layers: str = "modules",
    weights: Weights | None = None,
    own: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
    notes: Sequence[str] = (),
    watch: Callable[[str, Array, Array], None] | None = None,
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
        full: compiles the model anew in full precision, for a file in fewer digits.
        layers: what is printed of the rows.
        weights: what differs among the weights.
        own: runs what the file became, where that is what is asked about: the outputs are then its outputs.
        notes: what limits the answer.
        watch: called with the name of each value of the file, the reference's array for it and its own.

    Raises:
        GraphForgeError: the file does not run on these inputs.
    """
    given, weights = tolerances or Tolerances(), weights or Weights()
    level = reduced_to(artifact, tape)
    if level and tolerances is None:
        given = _as_reduced(given, level)
    outputs = Outputs(tape.outputs, padding, given)
    told = [*tape.notes, *notes, *given.loosened]
    seen = artifact.feeds(feeds)
    search = _Search(tape, artifact, seen, outputs, given, memory, twin, own, level, notes=told, watch=watch)
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
    if not agrees and twin is not None and (anew := twin()) is not None:
        folded = weights_of(artifact, anew.arrays())
        weights = folded if len(folded.compared) > len(weights.compared) else weights
    strange = [one for one in search.compared if one.reason.startswith(_STRANGE)]
    nothing_to_find = agrees or strange or weights.are_others or search.differs_by_fusions or search.hidden
    causes, fresh = ([], {}) if nothing_to_find else search.causes()
    precision = search.precision(full() if full is not None else None) if level else ()
    if level and not agrees and not causes and not strange and not weights.are_others:
        causes = [search.costly(layer) for layer in worth_keeping(precision)[:1]]
    over = sum(layer.overflow > 0 for layer in precision)
    if agrees and over:
        search.notes.append(
            f"{over} values are beyond what {level} holds, and the outputs agree: what follows does not show it"
        )
    verdict = "agrees" if agrees else "undecided"
    if strange and (first := _first_strange(tape)) is not None:
        causes = [Cause(first, "", f"NaN or Inf in {first.name}", comparison=strange[0], by="the reference itself")]
    if not agrees and (causes or weights.are_others or _cannot_round(search.compared)):
        verdict = "departs"
    if verdict == "undecided" or (not agrees and not causes and not weights.are_others):
        search.notes.append(_without_a_cause(search))
    others = len(artifact.outputs) - len(tape.outputs)
    if others and not padding and (others > 0 or not agrees):
        hint = "name its bundle, whose manifest says how padded outputs are read"
        hint = "the others are compared with nothing" if agrees else hint
        search.notes.append(
            f"the file has {len(artifact.outputs)} outputs ({', '.join(artifact.outputs)}) and the reference "
            f"{len(tape.outputs)}: {hint}"
        )
    missing = tuple(
        f"output {one.name}: {one.reason}" for one in search.compared if one.max_abs is None and not one.passed
    )
    return Diagnosis(
        verdict,
        search.compared,
        tuple(causes),
        search.rows(fresh, causes, agrees=agrees),
        missing,
        (line,) if (line := weights.describe()) else (),
        tuple(dict.fromkeys(search.notes)),
        weights.are_others and not agrees,
        level,
        precision,
        search.measured,
        layers,
    )


# Decibels between two ways to run a file that are worth a word.
_FUSED = 3.0
# What is said of a quantised file where nothing else is asked: a tenth of an output's largest magnitude.
_QUANTISED = 0.1


def _as_reduced(tolerances: Tolerances, level: str) -> Tolerances:
    because = f"the file computes in {level}"
    if level == "int8":
        return tolerances.loosen(because=because, scale=_QUANTISED, rtol=0.0)
    return tolerances.computed_in(level, because=because)


_STRANGE = "the reference itself gives"


def _first_strange(tape: Tape) -> Entry | None:
    """The first value of the reference with NaN in it, or else with Inf."""
    for test in (np.isnan, np.isposinf, np.isinf):
        for key, entry in tape.entries.items():
            array = tape.values[key]
            if array.dtype.kind == "f" and bool(test(array).any()):
                return entry
    return None


def _cannot_round(outputs: Sequence[OutputComparison]) -> bool:
    """Whether some output differs by what no rounding does: another shape or dtype, NaN on one side."""
    return any(not one.passed and (one.max_abs is None or not np.isfinite(one.max_abs)) for one in outputs)


def _lost_by_fusions(outputs: Outputs, plain: Mapping[str, Array], looked_at: Mapping[str, Array]) -> list[str]:
    """What the runtime's own kernels for few digits lose beside the file, output by output."""
    told = []
    for (name, expected), one, other in zip(outputs.expected.items(), plain.values(), looked_at.values(), strict=False):
        if expected.dtype.kind != "f" or not expected.shape == one.shape == other.shape:
            continue
        fused, alone = quality(expected, one).snr, quality(expected, other).snr
        if alone - fused > _FUSED:
            told.append(
                f"output {name} has {fused:.1f} dB as the file runs and {alone:.1f} dB node by node: the rest is lost "
                "in the runtime's own kernels, which fuse nodes"
            )
    return told


def _without_a_cause(search: _Search) -> str:
    if search.differs_by_fusions and search.own is not None:
        return "every value agrees where values can be looked at: what differs is the runtime's own arithmetic"
    if search.differs_by_fusions:
        return "the outputs agree when every value is handed out: what differs comes from nodes that the runtime fuses"
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
