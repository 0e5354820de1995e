"""Convert: measure, decide, try the whole, tighten where the outputs are off, then edit the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.errors import argument
from graphforge.ir.describe import describe
from graphforge.ir.dtypes import dtype_name
from graphforge.ir.named import nodes_named
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.passes.half.decide import (
    Kept,
    by_errors,
    by_meaning,
    by_name,
    by_ranges,
    in_front,
    watched,
    without_islands,
)
from graphforge.passes.half.estimate import differences, own_errors
from graphforge.passes.half.forms import Form, form_of
from graphforge.passes.half.place import place
from graphforge.passes.half.scores import largest_scores
from graphforge.ranges import METRIC, measure, samples_of
from graphforge.ranges.difference import Difference
from graphforge.runners.custom_ops import runner_before_lowering
from graphforge.runners.halves import rounded_throughout
from graphforge.transform import Rewriter

__all__ = ["HALF_IO", "convert_to_half"]

# What a node may be off by on its own, root of the mean square: eight units in the last place of the format.
_OWN = {ir.DataType.FLOAT16: 2.0**-8, ir.DataType.BFLOAT16: 2.0**-5}
# What an output may be off by on the samples, as a share of its largest magnitude: half of what verification allows.
_OUTPUT = {ir.DataType.FLOAT16: 2.5e-3, ir.DataType.BFLOAT16: 2e-2}
_FLOAT16 = ir.DataType.FLOAT16
# How often the bound on single nodes is halved where outputs are off by more.
_ROUNDS = 4
# The search for what else stays, where a bound does not hold, ends at this part of the nodes.
_PARTS = 32
# Places that a note names for one reason.
_PLACES = 3
# In a model's meta: the type, once it computes in one.
HALVED = "graphforge.half"
# In a model's meta: its inputs and outputs are halves where they were float32.
HALF_IO = "graphforge.half_io"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What stays in float32, and what the whole costs then.

    Attributes:
        staying: the nodes, each with its reason.
        off: what outputs, and what choices hang on, are off by.
        drop: what it loses of the metric, without one per cent of the signal; 0 where there is no bound on it.
    """

    staying: dict[ir.Node, Kept]
    off: dict[str, Difference]
    drop: float = 0.0


def convert_to_half(
    rewriter: Rewriter,
    half: ir.DataType,
    *,
    keep_io: bool,
    headroom: float,
    pins: Sequence[str] = (),
    max_drop: float | None = None,
) -> None:
    """Compute in half precision what keeps its digits there.

    Args:
        rewriter: of the model.
        half: FLOAT16 or BFLOAT16.
        keep_io: inputs and outputs stay float32.
        headroom: how many times larger than on the samples values may become before they do not fit.
        pins: modules, nodes or values that stay in float32 whatever is measured.
        max_drop: what the whole may lose of the metric, without one per cent of the signal; None where there is none.
    """
    model = rewriter.model
    nodes = list(model.graph)
    forms = {node: form for node in nodes if (form := form_of(node, half, rewriter.opset)) is not None}
    if not forms or model.meta.get(HALVED):
        return
    pinned = nodes_named(nodes, pins, "to keep in float32")
    model.meta[HALVED] = dtype_name(half)
    samples = samples_of(model)
    runs = runnable(model)
    ranges = measure(runs, samples)
    scores = {nodes[n]: most for n, most in largest_scores(model, samples).items()} if half == _FLOAT16 else {}
    kept = by_name(nodes, forms, pinned)
    for why in (by_meaning(nodes, forms), by_ranges(nodes, forms, ranges, half, headroom, scores)):
        kept |= {node: reason for node, reason in why.items() if node not in kept}
    free = {number: forms[node] for number, node in enumerate(nodes) if node in forms and node not in kept}
    errors = {nodes[number]: error for number, error in own_errors(model, free, half, samples).items()}
    full = _score(model, runs, {}) if max_drop is not None else 0.0

    def attempt(staying: dict[ir.Node, Kept], *, scored: bool) -> _Attempt:
        chosen = {number: forms[node] for number, node in enumerate(nodes) if node in forms and node not in staying}
        candidate = _candidate(model, chosen, half)
        off = differences(runs, candidate, samples, watched(runs))
        return _Attempt(staying, off, full - _score(model, candidate, off) if scored and chosen else 0.0)

    tried: list[_Attempt] = []
    for staying in _attempts(model, nodes, forms, kept, half, errors):
        tried.append(attempt(staying, scored=False))
        if len(staying) == len(forms) or _worst(tried[-1].off) <= _OUTPUT[half]:
            break
    best = tried[-1]
    if _worst(best.off) > _OUTPUT[half]:
        best = min(tried, key=lambda one: _worst(one.off))
    scored = []
    if max_drop is not None:
        off_by = {node: errors[node].relative if node in errors else 0.0 for node in forms}
        scored = [attempt(best.staying, scored=True)]
        for staying in _searched(nodes, forms, best.staying, off_by, lambda: scored[-1].drop <= max_drop):
            scored.append(attempt(staying, scored=True))
        holding = [one for one in scored if one.drop <= max_drop] or scored[1:2]  # where everything stays
        best = min(holding, key=lambda one: len(one.staying))
    converted = {node: form for node, form in forms.items() if node not in best.staying}
    place(rewriter, converted, half, keep_io=keep_io)
    if converted and not keep_io:
        model.meta[HALF_IO] = True
    _tell(rewriter, half, forms, best.staying, best.off)
    if scored:
        _tell_drop(rewriter, model, full, scored, best)
    rewriter.note(f"ranges and errors were measured on {samples.source}")
    for line in (*samples.notes, *ranges.left_out):
        rewriter.note(line)


def _attempts(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    forms: Mapping[ir.Node, Form],
    kept: Mapping[ir.Node, Kept],
    half: ir.DataType,
    errors: Mapping[ir.Node, Difference],
) -> Iterator[dict[ir.Node, Kept]]:
    """What stays in float32, each time more, for as long as the outputs are off by too much.

    First what is off by itself, by ever smaller limits; then what stands in front of that, ever further.
    """
    made: list[set[ir.Node]] = []
    for halved in range(_ROUNDS):
        why = by_errors(errors, _OWN[half] / 2**halved)
        more = {node: reason for node, reason in why.items() if node not in kept}
        staying = _widened(nodes, forms, {**kept, **more})
        if set(staying) not in made:
            made.append(set(staying))
            yield staying
    others = own_errors(model, {n: forms[x] for n, x in enumerate(nodes) if x in kept}, half, samples_of(model))
    errors = {**errors, **{nodes[number]: error for number, error in others.items()}}
    why = {node: reason for node, reason in by_errors(errors, _OWN[half]).items() if not errors[node].broken}
    steps = 1
    while why:
        more = {**in_front(why, forms, kept, steps), **{n: reason for n, reason in why.items() if n not in kept}}
        staying = _widened(nodes, forms, {**kept, **more})
        if set(staying) in made:
            return
        made.append(set(staying))
        yield staying
        steps *= 2


def _widened(
    nodes: Sequence[ir.Node], forms: Mapping[ir.Node, Form], staying: dict[ir.Node, Kept]
) -> dict[ir.Node, Kept]:
    islands = without_islands(nodes, forms, set(staying))
    return staying | {node: Kept("between such nodes, not worth two casts") for node in islands}


def _searched(
    nodes: Sequence[ir.Node],
    forms: Mapping[ir.Node, Form],
    staying: dict[ir.Node, Kept],
    off_by: Mapping[ir.Node, float],
    holds: Callable[[], bool],
) -> Iterator[dict[ir.Node, Kept]]:
    """What else stays where the last attempt does not hold: everything, then by halves as few as do, most off first."""
    if holds():
        return
    order = sorted((node for node in forms if node not in staying), key=lambda node: -off_by[node])

    def with_first(count: int) -> dict[ir.Node, Kept]:
        more = {node: Kept("too much is lost without it") for node in order[:count]}
        return _widened(nodes, forms, {**staying, **more})

    yield with_first(len(order))
    low, high = 0, len(order)
    while high - low > max(1, len(order) // _PARTS):
        middle = (low + high) // 2
        yield with_first(middle)
        low, high = (low, middle) if holds() else (middle, high)


def _worst(off: Mapping[str, Difference]) -> float:
    return max((difference.share for difference in off.values()), default=0.0)


def _candidate(model: ir.Model, chosen: Mapping[int, Form], half: ir.DataType) -> ir.Model:
    """A copy with these nodes converted, each result rounded."""
    candidate = model.clone()
    nodes = list(candidate.graph)
    place(Rewriter(candidate, pass_name="try"), {nodes[n]: form for n, form in chosen.items()}, half, keep_io=True)
    rounded_throughout(candidate)
    return candidate


def _score(model: ir.Model, candidate: ir.Model, off: Mapping[str, Difference]) -> float:
    """Its metric, or how much of the signal is right, in per cent."""
    metric = model.meta.get(METRIC)
    if metric is None:
        return 100.0 * (1 - max((min(difference.relative, 1.0) for difference in off.values()), default=0.0))
    with runner_before_lowering(runnable(candidate), optimize=False) as runner:
        return float(metric(runner.run))


def _tell_drop(rewriter: Rewriter, model: ir.Model, full: float, scored: Sequence[_Attempt], best: _Attempt) -> None:
    """What the first attempt would lose, and what is lost with what stays now."""
    what = "the metric is" if METRIC in model.meta else "the signal that is right, in per cent, is"
    line = f"{what} {full - best.drop:.6g}, in float32 {full:.6g}"
    if best is not scored[0]:
        fewer = len(best.staying) - len(scored[0].staying)
        line += f"; with {fewer} fewer nodes in float32 it is {full - scored[0].drop:.6g} ({len(scored)} evaluations)"
    rewriter.note(line)


def _tell(
    rewriter: Rewriter,
    half: ir.DataType,
    forms: Mapping[ir.Node, Form],
    staying: Mapping[ir.Node, Kept],
    off: Mapping[str, Difference],
) -> None:
    name = dtype_name(half)
    rewriter.note(f"{len(forms) - len(staying)} of {len(forms)} nodes compute in {name}")
    reasons: dict[str, list[ir.Node]] = {}
    for node, why in staying.items():
        reasons.setdefault(why.kind, []).append(node)
    for kind, found in reasons.items():
        told = "; ".join(
            describe(node) + (f", {staying[node].detail}" if staying[node].detail else "") for node in found[:_PLACES]
        )
        more = f" and {len(found) - _PLACES} more" if len(found) > _PLACES else ""
        rewriter.note(f"{len(found)} stay in float32, {kind}: {told}{more}")
    if _worst(off) > _OUTPUT[half]:
        rewriter.note(
            f"whatever stays in float32 of what was tried, outputs are off by more than {100 * _OUTPUT[half]:.2g} %: "
            f"{argument('target_options', {'pins': 'MODULE'})} keeps a module in float32 that you know to be delicate"
        )
    shares = {output: difference.share for output, difference in off.items() if not difference.reshaped}
    if shares:
        worst = max(shares, key=lambda output: shares[output])
        rewriter.note(
            f"outputs, and what choices hang on, are off by at most {100 * shares[worst]:.2g} % of their largest "
            f"magnitude ({worst}) on the samples"
        )
