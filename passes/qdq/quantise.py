"""Quantise: measure, give each value its grid, and keep in float32 what costs more than is allowed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from graphforge.ir.describe import describe
from graphforge.ir.named import nodes_named
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.passes.half.decide import watched
from graphforge.passes.qdq.correct import corrected
from graphforge.passes.qdq.insert import Placement, insert, quantisable, values_of
from graphforge.passes.qdq.scales import TRIED, Grid, grid_of
from graphforge.passes.qdq.sensitivity import Layer, Sensitivity
from graphforge.passes.sink_dequantize import SinkDequantize
from graphforge.ranges import METRIC, PROGRESS, Measured, Samples, measure, samples_of
from graphforge.ranges.difference import Difference
from graphforge.ranges.values import values_in
from graphforge.runners.arrays import Array
from graphforge.runners.custom_ops import runner_before_lowering
from graphforge.transform import Pipeline, Rewriter

__all__ = ["QUANTISED", "Quantised", "Settings", "quantise"]

# In a model's meta: what was quantised, and how it was before.
QUANTISED = "graphforge.quantised"
# Feeds on which single nodes are tried; the whole is judged on all of them.
_FEW = 4
# The user's metric may take long: what single nodes cost of it is measured for as many as fit into these seconds, at
# least for some.
_AFFORDED = 120.0
_SCORED = 12
# Kept nodes that are tried once more when the bound holds.
_BACKTRACKED = 8
_PLACES = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How to quantise.

    Attributes:
        signed: activations are int8, symmetric around zero; else uint8 with a zero of their own.
        method: how ranges become scales.
        operators: types of the nodes to quantise.
        placement: which pairs the runtime makes integer kernels of.
        correct: biases take back what rounding does to the mean of each channel.
        max_drop: what the score may lose; None quantises everything.
        sensitivity: measure what each node costs alone even where the bound holds with all of them.
        pins: modules, nodes or values that stay in float32.
    """

    signed: bool
    method: str
    operators: tuple[str, ...]
    placement: Placement
    correct: bool
    max_drop: float | None
    sensitivity: bool
    pins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantised:
    """What was done to a model.

    Attributes:
        before: the model in float32.
        samples: what it was measured on.
        errors: what each output (or what choices hang on) is off by on the samples: the share of its root mean square.
        worst: the largest difference of each, as a share of its largest magnitude.
        score: of the model before, and of the quantised one.
        kept: names of the nodes that could have been quantised and stay in float32.
        sensitivity: what each node costs alone; None where that was not measured.
    """

    before: ir.Model
    samples: Samples
    errors: Mapping[str, float]
    worst: Mapping[str, float]
    score: tuple[float, float]
    kept: tuple[str, ...] = field(default=())
    sensitivity: Sensitivity | None = None


def quantise(rewriter: Rewriter, settings: Settings) -> None:
    """Quantise what can be, within the bound."""
    model = rewriter.model
    nodes = list(model.graph)
    able = [node for node in nodes if node.op_type in settings.operators and quantisable(node)]
    if not able or QUANTISED in model.meta:
        return
    pinned = nodes_named(nodes, settings.pins, "to keep in float32")
    stay = [node for node in able if node in pinned]
    able = [node for node in able if node not in pinned]
    if stay:
        named = "; ".join(describe(node) for node in stay[:_PLACES]) + (" and more" if len(stay) > _PLACES else "")
        rewriter.note(f"{len(stay)} stay in float32, asked for: {named}")
    if not able:
        return
    samples = samples_of(model)
    before = model.clone()
    names = {str(value.name) for node in able for value in values_of(node, settings.placement)}
    started = time.perf_counter()
    say = model.meta.get(PROGRESS) or _nothing
    say("int8: ranges")
    ranges = measure(runnable(before), samples, histograms=settings.method != "minmax", only=names)
    unseen = {name for name in names if name not in ranges or not ranges[name].count or ranges[name].strange}
    able = [n for n in able if not unseen & {str(v.name) for v in values_of(n, settings.placement)}]
    places = [nodes.index(node) for node in able]
    judge = _Judge(before, samples, settings, places, model.meta.get(METRIC), say)
    method = judge.choose({name: ranges[name] for name in names - unseen})
    chosen = list(range(len(able)))
    sensitivity: dict[int, float] = {}
    drops: dict[int, float] = {}
    exceeded = settings.max_drop is not None and judge.drop(chosen) > settings.max_drop
    if exceeded or settings.sensitivity:
        sensitivity = {number: judge.alone(number) for number in chosen}
        drops = judge.drops(sensitivity)
    if exceeded and settings.max_drop is not None:
        chosen = _within(judge, sensitivity, drops, settings.max_drop)
    insert(rewriter, [able[number] for number in chosen], judge.grids, settings.placement, judge.corrections)
    kept = [number for number in range(len(able)) if number not in chosen]
    told = [describe(node) for node in able]
    rows = [judge.row(n, sensitivity[n], drops.get(n), chosen) for n in _order(sensitivity, drops)]
    model.meta[QUANTISED] = Quantised(
        before,
        samples,
        judge.errors(chosen),
        judge.worst(chosen),
        (judge.full, judge.score(chosen)),
        tuple(told[number] for number in kept),
        Sensitivity(
            tuple(rows), judge.trials, time.perf_counter() - started, judge.full, judge.score(chosen), settings.max_drop
        )
        if rows
        else None,
    )
    _tell(rewriter, able, chosen, sensitivity, judge, unseen, method)


def _nothing(line: str) -> None:
    """Nobody watches."""


def _order(sensitivity: Mapping[int, float], drops: Mapping[int, float]) -> list[int]:
    """The most sensitive first: by what the metric loses, where that is known and more than nothing, then by noise.

    A metric of few samples gains as often as it loses by what hardly matters.
    """
    return sorted(sensitivity, key=lambda number: (-max(drops.get(number, 0.0), 0.0), -sensitivity[number]))


def _within(judge: _Judge, sensitivity: Mapping[int, float], drops: Mapping[int, float], bound: float) -> list[int]:
    """The most nodes that keep the bound: the most sensitive go first, then some are tried once more."""
    order = _order(sensitivity, drops)[::-1]  # least sensitive first
    low, high = 0, len(order)  # quantising the first `low` holds, the first `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if judge.drop(order[:middle]) <= bound:
            low = middle
        else:
            high = middle
    chosen = order[:low]
    for number in order[low + 1 : low + 1 + _BACKTRACKED]:
        if judge.drop([*chosen, number]) <= bound:
            chosen = [*chosen, number]
    return sorted(chosen)


class _Judge:
    """Tries sets of nodes; every trial is a model of its own in ONNX Runtime, with all its optimization.

    Attributes:
        full: the score of the model as it is.
        cost: seconds that the metric takes.
        trials: how many were made.
    """

    def __init__(
        self,
        before: ir.Model,
        samples: Samples,
        settings: Settings,
        places: Sequence[int],
        metric: Callable[[Callable[[Mapping[str, Array]], dict[str, Array]]], float] | None,
        say: Callable[[str], None],
    ) -> None:
        self.before = before
        self.samples = samples
        self.grids: Mapping[str, Grid] = {}
        self.corrections: Mapping[str, Array] = {}
        self.say = say
        self.settings = settings
        self.places = places
        self.trials = 0
        self.metric = metric
        self.watched = watched(before, chosen_from=True)
        self._right = [values_in(runnable(before), feeds, self.watched) for feeds in samples.feeds]
        self._known: dict[tuple[int, ...], tuple[float, dict[str, Difference]]] = {}
        begun = time.perf_counter()
        self.full = 100.0 if self.metric is None else self._measured(runnable(before))
        self.cost = time.perf_counter() - begun

    def choose(self, ranges: Mapping[str, Measured]) -> str:
        """Make the grids by the method that is asked for, or that the whole comes out best with, and say which."""
        settings = self.settings
        methods = TRIED if settings.method == "best" else (settings.method,)
        whole = range(len(self.places))
        found = []
        for method in methods:
            self.grids = {n: grid_of(one, method, signed=settings.signed) for n, one in ranges.items()}
            self.corrections = {}
            if settings.correct:
                self.say(f"int8: means of the channels ({method})")
                self.corrections = corrected(self.before, self.places, self.grids, settings.placement, self.samples)
            self._known = {}
            if len(methods) > 1:
                score, errors = self._tried(whole)
                found.append((score, -_largest(errors), method, self.grids, self.corrections, self._known))
        if found:
            *_, method, self.grids, self.corrections, self._known = max(found, key=lambda one: one[:2])
        return method

    def alone(self, number: int) -> float:
        """What one node does to what is watched, on a few feeds."""
        self.say(f"int8: layer {number + 1} of {len(self.places)} alone")
        self.trials += 1
        return _largest(self._errors(self._model([number]), _FEW))

    def drops(self, sensitivity: Mapping[int, float]) -> dict[int, float]:
        """What the user's metric loses by each node alone: of all where that is affordable, else of the noisiest."""
        if self.metric is None:
            return {}
        count = max(_SCORED, int(_AFFORDED / max(self.cost, 1e-6)))
        found = {}
        for number in sorted(sensitivity, key=lambda number: -sensitivity[number])[:count]:
            self.say(f"int8: the metric with layer {number + 1} of {len(self.places)} alone")
            found[number] = self.drop([number])
        return found

    def row(self, number: int, noise: float, drop: float | None, chosen: Collection[int]) -> Layer:
        """One line of the table."""
        return Layer.of(list(self.before.graph)[self.places[number]], noise, drop, kept=number not in chosen)

    def score(self, chosen: Collection[int]) -> float:
        """The user's metric; without one, how much of the signal is right, in per cent."""
        return self._tried(chosen)[0]

    def drop(self, chosen: Collection[int]) -> float:
        """What the score loses."""
        return self.full - self.score(chosen)

    def errors(self, chosen: Collection[int]) -> dict[str, float]:
        """What each watched value is off by."""
        return {name: min(difference.relative, 1.0) for name, difference in self._tried(chosen)[1].items()}

    def worst(self, chosen: Collection[int]) -> dict[str, float]:
        """The largest difference of each, as a share of its largest magnitude."""
        return {name: difference.share for name, difference in self._tried(chosen)[1].items()}

    def _tried(self, chosen: Collection[int]) -> tuple[float, dict[str, Difference]]:
        key = tuple(sorted(chosen))
        if key not in self._known:
            self.trials += 1
            self.say(f"int8: evaluation {self.trials}, {len(key)} of {len(self.places)} layers")
            candidate = self._model(chosen)
            errors = self._errors(candidate, len(self._right))
            score = 100.0 * (1 - _largest(errors)) if self.metric is None else self._measured(candidate)
            self._known[key] = (score, errors)
        return self._known[key]

    def _model(self, chosen: Collection[int]) -> ir.Model:
        candidate = self.before.clone()
        nodes = list(candidate.graph)
        insert(
            Rewriter(candidate, pass_name="try"),
            [nodes[self.places[number]] for number in chosen],
            self.grids,
            self.settings.placement,
            self.corrections,
        )
        Pipeline([SinkDequantize()]).run(candidate)  # as in what is delivered: the runtime loads it so
        return runnable(candidate)

    def _errors(self, candidate: ir.Model, count: int) -> dict[str, Difference]:
        found = {name: Difference() for name in self.watched}
        outputs = {str(value.name): value for value in candidate.graph.outputs}
        extra = [name for name in self.watched if name not in outputs]
        made = {value.name: value for node in candidate.graph for value in node.outputs}
        candidate.graph.outputs.extend(made[name] for name in extra)
        with runner_before_lowering(candidate, threads=1) as runner:
            for feeds, right in zip(self.samples.feeds[:count], self._right, strict=False):
                values = runner.run(feeds)
                for name in self.watched:
                    found[name].add(right[name], values[name])
        for name in extra:
            candidate.graph.outputs.remove(made[name])
        return found

    def _measured(self, model: ir.Model) -> float:
        assert self.metric is not None
        with runner_before_lowering(model, threads=1) as runner:
            return float(self.metric(runner.run))


def _largest(found: Mapping[str, Difference]) -> float:
    return max((min(difference.relative, 1.0) for difference in found.values()), default=0.0)


def _tell(
    rewriter: Rewriter,
    able: Sequence[ir.Node],
    chosen: Collection[int],
    sensitivity: Mapping[int, float],
    judge: _Judge,
    unseen: Collection[str],
    method: str,
) -> None:
    counts: dict[str, int] = {}
    for number in chosen:
        counts[able[number].op_type] = counts.get(able[number].op_type, 0) + 1
    for name in ("LSTM", "GRU", "RNN"):
        if name in counts:
            counts[f"{name} (weights only)"] = counts.pop(name)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    rewriter.note(f"{len(chosen)} of {len(able)} sums of products compute in int8{f': {listed}' if listed else ''}")
    kept = sorted(set(range(len(able))) - set(chosen), key=lambda number: -sensitivity.get(number, 0.0))
    if kept:
        told = "; ".join(
            f"{describe(able[number])}, alone {100 * sensitivity.get(number, 0.0):.2g} % off"
            for number in kept[:_PLACES]
        )
        more = f" and {len(kept) - _PLACES} more" if len(kept) > _PLACES else ""
        rewriter.note(f"{len(kept)} stay in float32, the most sensitive first: {told}{more}")
    if unseen:
        rewriter.note(f"{len(unseen)} values had no finite elements on the samples and are not quantised")
    errors = judge.errors(chosen)
    if errors:
        worst = max(errors, key=lambda name: errors[name])
        ratio = -20 * math.log10(errors[worst]) if errors[worst] > 0 else math.inf
        rewriter.note(f"signal to noise at least {ratio:.1f} dB ({worst}) against float32 on the samples")
    if judge.metric is not None:
        rewriter.note(f"the metric is {judge.score(chosen):.6g}, in float32 {judge.full:.6g}")
    rewriter.note(
        f"{judge.trials} evaluation{'s' * (judge.trials != 1)}, ranges ({method}) from {judge.samples.source}"
        + ("" if judge.samples.given else ": give calibration data for int8 that is to be used")
    )
    for line in judge.samples.notes:
        rewriter.note(line)
