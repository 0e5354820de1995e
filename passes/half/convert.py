"""Convert: measure, decide, try the whole, tighten where the outputs are off, then edit the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
from graphforge.ranges import measure, samples_of
from graphforge.ranges.difference import Difference
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
# Places that a note names for one reason.
_PLACES = 3
# In a model's meta: the type, once it computes in one.
HALVED = "graphforge.half"
# In a model's meta: its inputs and outputs are halves where they were float32.
HALF_IO = "graphforge.half_io"


def convert_to_half(
    rewriter: Rewriter, half: ir.DataType, *, keep_io: bool, headroom: float, pins: Sequence[str] = ()
) -> None:
    """Compute in half precision what keeps its digits there.

    Args:
        rewriter: of the model.
        half: FLOAT16 or BFLOAT16.
        keep_io: inputs and outputs stay float32.
        headroom: how many times larger than on the samples values may become before they do not fit.
        pins: modules, nodes or values that stay in float32 whatever is measured.
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
    tried = []
    for staying in _attempts(model, nodes, forms, kept, half):
        chosen = {number: forms[node] for number, node in enumerate(nodes) if node in forms and node not in staying}
        tried.append((staying, _off(model, chosen, half, runs)))
        if not chosen or _worst(tried[-1][1]) <= _OUTPUT[half]:
            break
    staying, off = min(tried, key=lambda one: _worst(one[1])) if _worst(tried[-1][1]) > _OUTPUT[half] else tried[-1]
    converted = {node: form for node, form in forms.items() if node not in staying}
    place(rewriter, converted, half, keep_io=keep_io)
    if converted and not keep_io:
        model.meta[HALF_IO] = True
    _tell(rewriter, half, forms, staying, off)
    rewriter.note(f"ranges and errors were measured on {samples.source}")
    for line in (*samples.notes, *ranges.left_out):
        rewriter.note(line)


def _attempts(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    forms: Mapping[ir.Node, Form],
    kept: Mapping[ir.Node, Kept],
    half: ir.DataType,
) -> Iterator[dict[ir.Node, Kept]]:
    """What stays in float32, each time more, for as long as the outputs are off by too much.

    First what is off by itself, by ever smaller bounds; then what stands in front of that, ever further.
    """
    samples = samples_of(model)
    measured = own_errors(
        model, {n: forms[x] for n, x in enumerate(nodes) if x in forms and x not in kept}, half, samples
    )
    errors = {nodes[number]: error for number, error in measured.items()}
    made: list[set[ir.Node]] = []

    def widened(staying: dict[ir.Node, Kept]) -> dict[ir.Node, Kept]:
        islands = without_islands(nodes, forms, set(staying))
        return staying | {node: Kept("between such nodes, not worth two casts") for node in islands}

    for halved in range(_ROUNDS):
        bound = _OWN[half] / 2**halved
        why = by_errors(errors, bound)
        staying = widened({**kept, **{node: reason for node, reason in why.items() if node not in kept}})
        if set(staying) not in made:
            made.append(set(staying))
            yield staying
    others = own_errors(model, {n: forms[x] for n, x in enumerate(nodes) if x in kept}, half, samples)
    errors |= {nodes[number]: error for number, error in others.items()}
    why = {node: reason for node, reason in by_errors(errors, _OWN[half]).items() if not errors[node].broken}
    steps = 1
    while why:
        front = in_front(why, forms, kept, steps)
        staying = widened({**kept, **front, **{node: reason for node, reason in why.items() if node not in kept}})
        if set(staying) in made:
            return
        made.append(set(staying))
        yield staying
        steps *= 2


def _worst(off: Mapping[str, Difference]) -> float:
    return max((difference.share for difference in off.values()), default=0.0)


def _off(model: ir.Model, chosen: Mapping[int, Form], half: ir.DataType, runs: ir.Model) -> dict[str, Difference]:
    """What the outputs are off by when these nodes are converted."""
    candidate = model.clone()
    nodes = list(candidate.graph)
    place(Rewriter(candidate, pass_name="try"), {nodes[n]: form for n, form in chosen.items()}, half, keep_io=True)
    rounded_throughout(candidate)
    return differences(runs, candidate, samples_of(model), watched(runs))


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
