"""Choose the precision that runs fastest within a bound.    float32  ==>  the same, convert-float16's or quantize's

Every candidate is made, run on the samples and timed on this machine, in turn with the others; the notes have a table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import onnx_ir as ir

from graphforge.errors import UsageError
from graphforge.ir import Graph
from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre, runnable
from graphforge.passes.convert_bfloat16 import ConvertBfloat16
from graphforge.passes.convert_float16 import ConvertFloat16
from graphforge.passes.half.decide import watched
from graphforge.passes.quantize import Quantize
from graphforge.passes.sink_dequantize import SinkDequantize
from graphforge.ranges import METRIC, PROGRESS, SAMPLES, Samples, samples_of
from graphforge.ranges.difference import Difference
from graphforge.ranges.values import values_in
from graphforge.runners.custom_ops import PiecewiseRunner, runner_before_lowering
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.transform import Pass, Pipeline, Rewriter

__all__ = ["ChoosePrecision"]

# Seconds of CPU that all candidates may be timed for together, and feeds that are run.
_SECONDS = 4.0
_FEEDS = 4
# Times closer than this are equal on a machine that does something else as well: then the smaller file is better.
_EQUAL = 0.03
_CHOSEN = "graphforge.precision_chosen"


@dataclass(frozen=True, slots=True)
class _Tried:
    """One candidate.

    Attributes:
        name: its precision.
        score: the user's metric, or per cent of the signal that is right.
        seconds: CPU time of a run.
        size: bytes of its constants.
    """

    name: str
    score: float
    seconds: float
    size: int


@dataclass(frozen=True)
class ChoosePrecision(Pass):
    """Timed in ONNX Runtime with one thread.

    Attributes:
        candidates: among ``fp32``, ``bf16``, ``fp16`` and ``int8``.
        max_drop: what the score may lose: the user's metric, or per cent of the signal.
        keep_io: inputs and outputs stay float32.
        method, weights: of the pass ``quantize``.
        pins: modules, nodes or values that stay in float32 in every candidate.
    """

    name: ClassVar[str] = "choose-precision"
    candidates: tuple[str, ...] = ("fp32", "fp16", "int8")
    max_drop: float = 1.0
    keep_io: bool = True
    method: str = "best"
    weights: str = "portable"
    pins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.candidates) - {"fp32", "bf16", "fp16", "int8"}
        if unknown or not self.candidates:
            raise UsageError(
                f"choose-precision: candidates are among fp32, bf16, fp16 and int8, not {self.candidates!r}"
            )

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Make and measure the candidates, then do to the graph what the best of them did."""
        model = rewriter.model
        if _CHOSEN in model.meta:
            return
        model.meta[_CHOSEN] = True
        samples = samples_of(model)
        made = {name: self._made(model, samples, name) for name in self.candidates}
        changed = [name for name, (_, changes) in made.items() if changes or name == "fp32"]
        if not changed or changed == ["fp32"]:
            return
        tried = self._tried({name: made[name][0] for name in changed}, model, samples)
        full = next(one.score for one in tried if one.name == "full")
        within = [one for one in tried if one.name != "full" and full - one.score <= self.max_drop]
        best = min(within, key=lambda one: one.seconds, default=None)
        near = [one for one in within if best is not None and one.seconds <= best.seconds * (1 + _EQUAL)]
        chosen = min(near, key=lambda one: one.size).name if near else "fp32"
        whole = next(one for one in tried if one.name == "full")
        for one in tried:
            if one.name != "full":
                mark = " <- chosen" if one.name == chosen else ""
                rewriter.note(
                    f"{one.name}: score {one.score:.6g} ({one.score - full:+.2g}), "
                    f"time {one.seconds / whole.seconds:.2f}, size {one.size / whole.size:.2f} of float32's{mark}"
                )
        rewriter.note(f"{chosen} is the fastest here that loses at most {self.max_drop:g}")
        for item in self._passes(chosen)[:1]:
            item.run(graph, rewriter)

    def _passes(self, name: str) -> list[Pass]:
        kernels = ComputeWhereKernelsAre()
        if name == "fp16":
            return [ConvertFloat16(keep_io=self.keep_io, pins=self.pins), kernels]
        if name == "bf16":
            return [ConvertBfloat16(keep_io=self.keep_io, pins=self.pins), kernels]
        if name == "int8":
            quantize = Quantize(max_drop=self.max_drop, method=self.method, weights=self.weights, pins=self.pins)
            return [quantize, SinkDequantize()]
        return []

    def _made(self, model: ir.Model, samples: Samples, name: str) -> tuple[ir.Model, int]:
        candidate = model.clone()
        candidate.meta[SAMPLES] = samples
        if PROGRESS in model.meta:
            candidate.meta[PROGRESS] = model.meta[PROGRESS]
        if METRIC in model.meta:
            candidate.meta[METRIC] = model.meta[METRIC]
        inside = replace(self, keep_io=True)  # what is timed is fed with float32
        records = Pipeline(inside._passes(name)).run(candidate)
        return runnable(candidate), sum(record.changes for record in records)

    def _tried(self, made: Mapping[str, ir.Model], model: ir.Model, samples: Samples) -> list[_Tried]:
        models = {"full": runnable(model), **made}
        metric = model.meta.get(METRIC)
        runners = {name: runner_before_lowering(one, threads=1, here=True) for name, one in models.items()}
        try:
            names = watched(models["full"])
            scores = {
                name: float(metric(runner.run)) if metric is not None else _signal(models, name, samples, names)
                for name, runner in runners.items()
            }
            spent = _spent(runners, samples.feeds[:_FEEDS])
        finally:
            for runner in runners.values():
                runner.close()
        return [_Tried(name, scores[name], spent[name], _size(one)) for name, one in models.items()]


def _signal(models: Mapping[str, ir.Model], name: str, samples: Samples, names: Sequence[str]) -> float:
    """How much of the signal is right in what is watched, in per cent."""
    found = {one: Difference() for one in names}
    for feeds in samples.feeds[:_FEEDS]:
        right, other = (values_in(models[one], feeds, names) for one in ("full", name))
        for one in names:
            found[one].add(right[one], other[one])
    return 100.0 * (1 - max((min(difference.relative, 1.0) for difference in found.values()), default=0.0))


def _spent(
    runners: Mapping[str, OnnxRuntimeRunner | PiecewiseRunner], feeds: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """CPU seconds of one run of each, the least of several, run in turn."""
    least = dict.fromkeys(runners, float("inf"))
    for runner in runners.values():  # the first run allocates, and those of files from elsewhere are tried
        for one in feeds:
            runner.run(one)
    start = time.process_time()
    while time.process_time() - start < _SECONDS / 2:
        for name, runner in runners.items():
            began = time.process_time()
            for one in feeds:
                if isinstance(runner, PiecewiseRunner):
                    runner.run(one)
                else:
                    runner.session.run(None, {key: one[key] for key in runner.input_names})
            least[name] = min(least[name], (time.process_time() - began) / len(feeds))
    return least


def _size(model: ir.Model) -> int:
    constants = [value for value in model.graph.initializers.values() if value.uses()]
    return sum(value.const_value.nbytes for value in constants if value.const_value is not None)
