"""Convert: measure, decide, try the whole, tighten where the outputs are off, then edit the graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphforge.ir.describe import describe
from graphforge.ir.dtypes import dtype_name
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.passes.half.decide import Kept, by_errors, by_meaning, by_ranges, watched, without_islands
from graphforge.passes.half.estimate import differences, own_errors, rounded_throughout
from graphforge.passes.half.forms import Form, form_of
from graphforge.passes.half.place import place
from graphforge.ranges import measure, samples_of
from graphforge.ranges.difference import Difference
from graphforge.transform import Rewriter

__all__ = ["HALF_IO", "convert_to_half"]

# What a node may be off by on its own, root of the mean square: eight units in the last place of the format.
_OWN = {ir.DataType.FLOAT16: 2.0**-8, ir.DataType.BFLOAT16: 2.0**-5}
# What an output may be off by on the samples, as a share of its largest magnitude: half of what verification allows.
_OUTPUT = {ir.DataType.FLOAT16: 2.5e-3, ir.DataType.BFLOAT16: 2e-2}
# How often the bound on single nodes is halved where outputs are off by more.
_ROUNDS = 4
# Places that a note names for one reason.
_PLACES = 3
_DONE = "graphforge.half"
# In a model's meta: its inputs and outputs are halves where they were float32.
HALF_IO = "graphforge.half_io"


def convert_to_half(rewriter: Rewriter, half: ir.DataType, *, keep_io: bool, headroom: float) -> None:
    """Compute in half precision what keeps its digits there.

    Args:
        rewriter: of the model.
        half: FLOAT16 or BFLOAT16.
        keep_io: inputs and outputs stay float32.
        headroom: how many times larger than on the samples values may become before they do not fit.
    """
    model = rewriter.model
    nodes = list(model.graph)
    forms = {node: form for node in nodes if (form := form_of(node, half, rewriter.opset)) is not None}
    if not forms or model.meta.get(_DONE):
        return
    model.meta[_DONE] = dtype_name(half)
    samples = samples_of(model)
    runs = runnable(model)
    ranges = measure(runs, samples)
    kept = by_meaning(nodes, forms)
    kept |= {n: why for n, why in by_ranges(nodes, forms, ranges, half, headroom).items() if n not in kept}
    place_of = {node: number for number, node in enumerate(nodes)}
    tried = {place_of[node]: form for node, form in forms.items() if node not in kept}
    errors = {nodes[number]: error for number, error in own_errors(model, tried, half, samples).items()}
    bound = _OWN[half]
    for _ in range(_ROUNDS):
        staying = dict(kept)
        staying |= {node: why for node, why in by_errors(errors, bound).items() if node not in staying}
        for node in without_islands(nodes, forms, set(staying)):
            staying[node] = Kept("between such nodes, not worth two casts")
        chosen = {node: form for node, form in forms.items() if node not in staying}
        off = _off(model, {place_of[node]: form for node, form in chosen.items()}, half, runs)
        if not chosen or all(difference.share <= _OUTPUT[half] for difference in off.values()):
            break
        bound /= 2
    place(rewriter, chosen, half, keep_io=keep_io)
    if chosen and not keep_io:
        model.meta[HALF_IO] = True
    _tell(rewriter, half, forms, staying, off)
    rewriter.note(f"ranges and errors were measured on {samples.source}")
    for line in (*samples.notes, *ranges.left_out):
        rewriter.note(line)


def _off(model: ir.Model, chosen: Mapping[int, Form], half: ir.DataType, runs: ir.Model) -> dict[str, Difference]:
    """What the outputs are off by when these nodes are converted."""
    candidate = model.clone()
    nodes = list(candidate.graph)
    place(Rewriter(candidate, pass_name="try"), {nodes[n]: form for n, form in chosen.items()}, half, keep_io=True)
    rounded_throughout(candidate, half)
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
    shares = {output: difference.share for output, difference in off.items() if not difference.reshaped}
    if shares:
        worst = max(shares, key=lambda output: shares[output])
        rewriter.note(
            f"outputs, and what choices hang on, are off by at most {100 * shares[worst]:.2g} % of their largest "
            f"magnitude ({worst}) on the samples"
        )
