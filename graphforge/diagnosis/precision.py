"""What a file in fewer digits loses, and where: error and range by layer, and what each layer alone costs the outputs.

A layer's *own* error is what it makes of the reference's values; what stands before it is left out.  What it costs is
found by experiment: its own result, with its error, goes through the rest of the model in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphforge.diagnosis.artifact import Alone, Artifact, ArtifactNode
from graphforge.diagnosis.causes import Part, in_pieces
from graphforge.diagnosis.lining import claims_of
from graphforge.diagnosis.tape import Entry, Key, Tape
from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array, dtype_name

__all__ = [
    "HALVES",
    "LayerPrecision",
    "Quality",
    "decibels",
    "layers_of",
    "quality",
    "reduced_to",
    "worth_keeping",
]

HALVES = ("float16", "bfloat16")
# The largest number, the smallest with all its digits, and how many digits there are.
_FORMATS = {"float16": (65504.0, 2.0**-14, 2.0**-10), "bfloat16": (3.39e38, 2.0**-126, 2.0**-7)}
_FP32_DIGITS = 2.0**-23
# So many layers are told apart as worth keeping in full precision.
_WORST = 10
# Decibels: a layer that leaves the outputs right to a thousandth is not worth keeping.
_DEAR = 60.0
# So many layers, those with the largest errors of their own, are carried through the rest of the model.
_CARRIED = 32
_QUANTISED = ("QuantizeLinear", "DequantizeLinear")
_QUANTISED_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


@dataclass(frozen=True, slots=True)
class Quality:
    """How close two arrays are, in the measures that people use.

    Attributes:
        snr: power of the signal over the power of the error, in decibels; inf where they are equal.
        cosine: of the angle between them.
        max_abs: largest difference.
        max_rel: as a share of the largest magnitude.
        ulp: largest difference in units in the last place of the reference's own format.
        top1: share of the rows (along the last axis) whose largest element stands at the same place; None where rows
            are shorter than three.
        top5: share of the reference's five largest elements of each row that are among the five largest; None where
            rows are no longer than five.
    """

    snr: float
    cosine: float
    max_abs: float
    max_rel: float
    ulp: float
    top1: float | None = None
    top5: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {name: _plain(getattr(self, name)) for name in ("snr", "cosine", "max_abs", "max_rel", "ulp")} | {
            "top1": self.top1,
            "top5": self.top5,
        }


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """One value of the model in the reduced file.

    Attributes:
        entry: the reference's value.
        value: the file's.
        nodes: names of the nodes that compute it.
        here: how close it is, with all that went before.
        own: how close it is when it is computed from the reference's values; None where it does not run alone.
        costs: how close the outputs are when this layer alone is reduced, in decibels; None where not tried.
        largest: largest magnitude of the reference.
        overflow: share of elements that the format cannot hold.
        underflow: share of elements, zeros apart, that lose digits at the bottom of the format.
        clipped: share of elements that a quantised value behind it cuts off.
    """

    entry: Entry
    value: str
    nodes: tuple[str, ...]
    here: Quality
    own: Quality | None
    costs: float | None
    largest: float
    overflow: float
    underflow: float
    clipped: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "name": self.entry.name,
            "module": self.entry.call.path,
            "operator": self.entry.operator,
            "source": self.entry.origin.source,
            "value": self.value,
            "nodes": list(self.nodes),
            "here": self.here.to_dict(),
            "own": None if self.own is None else self.own.to_dict(),
            "costs": None if self.costs is None else _plain(self.costs),
            "largest": _plain(self.largest),
            "overflow": self.overflow,
            "underflow": self.underflow,
            "clipped": self.clipped,
        }


def reduced_to(artifact: Artifact, tape: Tape) -> str:
    """``float16``, ``bfloat16`` or ``int8`` where the file computes in that and the reference does not; else ""."""
    if any(entry.dtype in HALVES or "Quantize" in entry.operator for entry in tape.entries.values()):
        return ""
    operators = {node.operator for node in artifact.nodes}
    if operators & {*_QUANTISED, *_QUANTISED_OPERATORS}:
        return "int8"
    elements = {tensor.data_type for tensor in artifact.proto.graph.initializer}
    casts = {
        attribute.i
        for node in artifact.proto.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    }
    return "float16" if 10 in elements | casts else "bfloat16" if 16 in elements | casts else ""


def worth_keeping(layers: Sequence[LayerPrecision]) -> tuple[LayerPrecision, ...]:
    """The layers that cost the outputs most, the worst first; of those that cost the same, the first computed."""
    dear = [layer for layer in layers if layer.costs is not None and layer.costs < _DEAR]
    return tuple(sorted(dear, key=lambda layer: round(layer.costs or 0.0, 1))[:_WORST])


def decibels(snr: float) -> str:
    """``41.3 dB``; what is equal, and what is not finite, in words."""
    return f"{snr:.1f} dB" if math.isfinite(snr) else "no error" if snr > 0 else "NaN or Inf"


def quality(reference: Array, found: Array, *, tops: bool = False) -> Quality:
    """The measures, over the elements that are finite on both sides; ``tops`` adds ``top1`` and ``top5``."""
    r, a = (array.astype(np.float64).reshape(-1) for array in (reference, found))
    finite = np.isfinite(r) & np.isfinite(a)
    broken = bool((np.isfinite(r) & ~np.isfinite(a)).any())
    r, a = r[finite], a[finite]
    error = a - r
    signal, noise = float((r * r).sum()), float((error * error).sum())
    lengths = math.sqrt(signal) * math.sqrt(float((a * a).sum()))
    largest = float(np.abs(r).max(initial=0.0))
    worst = math.inf if broken else float(np.abs(error).max(initial=0.0))
    digits = _FORMATS.get(dtype_name(reference), (0.0, 0.0, _FP32_DIGITS))[2]
    with np.errstate(divide="ignore"):
        scale = np.exp2(np.floor(np.log2(np.maximum(np.abs(r), 2.0**-126)))) * digits
    return Quality(
        snr=-math.inf if broken else math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise),
        cosine=float((r * a).sum()) / lengths if lengths else 1.0,
        max_abs=worst,
        max_rel=worst / largest if largest else 0.0 if worst == 0 else math.inf,
        ulp=math.inf if broken else float((np.abs(error) / scale).max(initial=0.0)),
        top1=_top(reference, found, 1) if tops else None,
        top5=_top(reference, found, 5) if tops else None,
    )


def _top(reference: Array, found: Array, count: int) -> float | None:
    """The share of the largest elements of each row that both have."""
    length = reference.shape[-1] if reference.ndim else 0
    if length <= max(count, 2) or not reference.size or reference.shape != found.shape:
        return None
    if count == 1:  # several may be the largest
        rows = reference.reshape(-1, length).astype(np.float64)
        chosen = found.reshape(-1, length).astype(np.float64).argmax(axis=1)
        return float((np.take_along_axis(rows, chosen[:, None], 1)[:, 0] == rows.max(axis=1)).mean())
    best = [
        np.argpartition(-one.reshape(-1, length).astype(np.float64), count)[:, :count] for one in (reference, found)
    ]
    return float((best[0][:, :, None] == best[1][:, None, :]).any(axis=2).mean())


def layers_of(
    matched: Mapping[str, Key],
    parts: Sequence[Part],
    here: Mapping[str, Quality],
    artifact: Artifact,
    tape: Tape,
    feeds: Mapping[str, Array],
    right: Callable[[str], Array],
    formats: Mapping[str, str],
    full: Artifact | None,
    *,
    memory: int,
) -> list[LayerPrecision]:
    """One row for each float value that the file has, in the order of computation.

    Args:
        matched: the file's value -> the reference's key.
        parts: how each is computed from such that the reference has.
        here: how close each is in the whole file.
        artifact: the reduced file.
        tape: the reference.
        feeds: the file's inputs.
        right: the reference's value in the place of the file's.
        formats: the file's value -> the element type that it has there, where that is what reduces it.
        full: the model compiled in full precision, whose values have the file's names; None where there is none.
        memory: bytes of values held at once.
    """
    alone: dict[str, Array] = {}
    own: dict[str, Quality] = {}
    for piece in in_pieces(parts, right, memory, results=2):
        jobs = [Alone(part.nodes, {name: right(name) for name in part.given}, (part.value,)) for part in piece]
        for part, job, found in zip(piece, jobs, artifact.run_each(jobs, feeds), strict=True):
            reference = tape.values[matched[part.value]]
            if found is None or (_fits(reference, formats[part.value]) and not all(map(_finite, job.given.values()))):
                continue  # what it reads is too large for the format: that is the fault of what makes it
            array = found[part.value].reshape(reference.shape) if found[part.value].size == reference.size else None
            if array is not None:
                own[part.value] = quality(reference, array)
                alone[part.value] = array
    costs = {} if full is None else _costs(own, alone, matched, full, tape, feeds)
    rows = []
    for part in parts:
        entry = tape.entries[matched[part.value]]
        reference = tape.values[entry.key]
        size = np.abs(reference.astype(np.float64))
        top, bottom, _ = _FORMATS.get(formats[part.value], (math.inf, 0.0, 0.0))
        nonzero = max(1, int(np.count_nonzero(size)))
        rows.append(
            LayerPrecision(
                entry,
                part.value,
                _names(part, artifact),
                here[part.value],
                own.get(part.value),
                costs.get(part.value),
                float(size.max(initial=0.0)),
                float((size > top).mean()) if size.size else 0.0,
                float(((size > 0) & (size < bottom)).sum()) / nonzero,
                _clipped(part, reference, artifact),
            )
        )
    return rows


def _fits(reference: Array, dtype: str) -> bool:
    top = _FORMATS.get(dtype, (math.inf, 0.0, 0.0))[0]
    return not (np.abs(reference.astype(np.float64)) > top).any()


def _finite(array: Array) -> bool:
    return array.dtype.kind not in "fV" or bool(np.isfinite(array.astype(np.float32)).all())


def _names(part: Part, artifact: Artifact) -> tuple[str, ...]:
    """The nodes of a layer, without those that only quantise."""
    nodes = [artifact.nodes[position] for position in part.nodes]
    return tuple(node.name for node in nodes if node.operator not in _QUANTISED)


def _costs(
    own: Mapping[str, Quality],
    alone: Mapping[str, Array],
    matched: Mapping[str, Key],
    full: Artifact,
    tape: Tape,
    feeds: Mapping[str, Array],
) -> dict[str, float]:
    """The outputs' closeness when one layer's own result goes through the rest of the model in full precision."""
    found: dict[str, float] = {}
    places = {claim.keys[0]: name for name, claim in claims_of(full, tape).items() if claim.certain}
    for name in sorted(own, key=lambda one: own[one].snr)[:_CARRIED]:
        entry = tape.entries[matched[name]]
        place = places.get(entry.key)
        if place is None:
            continue
        given = alone[name].astype(np.dtype(entry.dtype))
        try:
            outputs = full.run(full.outputs, full.feeds(feeds), {place: given})
        except GraphForgeError:
            continue
        pairs = zip(tape.outputs.values(), outputs.values(), strict=False)
        snrs = [quality(a, b).snr for a, b in pairs if a.shape == b.shape and a.dtype.kind == "f"]
        if snrs:
            found[name] = min(snrs)
    return found


def _clipped(part: Part, reference: Array, artifact: Artifact) -> float:
    """The share of elements beyond the ends of what it is quantised to; 0 where it is not quantised."""
    for position in part.nodes[::-1]:
        node = artifact.nodes[position]
        if node.operator == "QuantizeLinear" and reference.size and node.inputs[0] not in artifact.constants:
            ends = _ends(node, artifact)
            if ends is not None:
                low, high = ends
                return float(((reference < low) | (reference > high)).mean())
            return 0.0
    return 0.0


def _ends(node: ArtifactNode, artifact: Artifact) -> tuple[float, float] | None:
    names = artifact.proto.graph.node[node.position].input
    scale = artifact.constant(names[1])
    if scale is None or scale.size != 1:
        return None
    zero = artifact.constant(names[2]) if len(names) > 2 else np.zeros((), np.uint8)
    if zero is None or zero.dtype.kind not in "iu":
        return None
    limits, middle, step = np.iinfo(zero.dtype), float(zero.reshape(-1)[0]), float(scale.reshape(-1)[0])
    # Half a step beyond the ends is rounded to them.
    return (limits.min - middle - 0.5) * step, (limits.max - middle + 0.5) * step


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
