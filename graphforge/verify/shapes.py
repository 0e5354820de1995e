"""Which sizes of the dynamic dims to try: the example's and at least two others of every dim, not the full product."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphforge.errors import UsageError, argument
from graphforge.runners.arrays import Array
from graphforge.spec import DimRange, ShapeSpec

__all__ = ["SizeAssignment", "SizePlan", "plan_sizes", "sizes_of"]

# Assignments may feed this many times the example's elements: cost stays a small multiple of the example's own run.
_BUDGET_FACTOR = 4
# What capture asks for may cost so many of the dearest runs that the plan admits.
_ASKED_FACTOR = 16
# Below this many input elements a run costs next to nothing, whatever the example was.
_FREE_ELEMENTS = 1 << 16


@dataclass(frozen=True, slots=True)
class SizeAssignment:
    """One size for every dynamic dim.

    Attributes:
        sizes: dim name -> size.
        label: what it stands for: ``example``, ``low``, ``odd``, ``high``, ``asked`` (by
            capture), one word per dim when they differ.
    """

    sizes: Mapping[str, int]
    label: str

    def describe(self) -> str:
        """``batch=3, height=160``, or ``example`` when nothing is dynamic."""
        return ", ".join(f"{name}={size}" for name, size in self.sizes.items()) or "example"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"label": self.label, "sizes": dict(self.sizes)}


@dataclass(frozen=True, slots=True)
class SizePlan:
    """The assignments in the order they are tried, the example first, and what was held back."""

    assignments: tuple[SizeAssignment, ...]
    notes: tuple[str, ...] = field(default=())


def plan_sizes(spec: ShapeSpec, *, max_elements: int | None = None, also: Sequence[Mapping[str, int]] = ()) -> SizePlan:
    """Choose the sizes to verify at.

    Every dynamic dim gets its lowest size, an odd one (an odd multiple of its step) and its highest, as far as these
    exist and differ from the example.  Dims are staggered against each other (while one is low another is odd), so that
    sizes that are equal in the example become unequal.  Dims that share a name vary together.

    Args:
        spec: the inputs and their dynamic dims.
        max_elements: input elements one assignment may have; None takes four times the example's (at least 65,536).
            The lowest sizes of a dim are tried whatever they cost; above that sizes are capped, and the notes say so.
        also: further sizes of some dims, the others at the example's, where capture asks for a run.
    """
    example = spec.example_sizes()
    dims = spec.dims
    first = SizeAssignment(example, "example")
    if not dims:
        return SizePlan((first,))
    budget = max_elements
    if budget is None:
        budget = max(_BUDGET_FACTOR * _elements(spec, example), _FREE_ELEMENTS)
    notes: list[str] = []
    wanted = {
        name: _candidates(spec, dim, example[name], {**example, **_lows(dims, name)}, budget, notes)
        for name, dim in dims.items()
    }
    rounds = max(len(sizes) for sizes in wanted.values())
    assignments = [first]
    for number in range(rounds):
        sizes, labels = {}, []
        for position, (name, candidates) in enumerate(wanted.items()):
            if not candidates:
                sizes[name] = example[name]
                continue
            label, size = candidates[(number + position) % len(candidates)]
            sizes[name] = size
            labels.append(label)
        fitted = _fit(spec, dims, sizes, example, budget)
        if any(fitted == known.sizes for known in assignments):
            fitted = sizes
        label = labels[0] if len(set(labels)) == 1 else "/".join(labels)
        if all(fitted != known.sizes for known in assignments):
            assignments.append(SizeAssignment(fitted, label))
    assignments.extend(_missing(wanted, assignments, example))
    assignments.extend(_asked(spec, [{**example, **sizes} for sizes in also], assignments, budget, notes))
    return SizePlan(tuple(assignments), tuple(notes))


def _asked(
    spec: ShapeSpec,
    asked: Sequence[Mapping[str, int]],
    known: Sequence[SizeAssignment],
    budget: int,
    notes: list[str],
) -> list[SizeAssignment]:
    """The sizes that capture asks for, without those that stand in the plan and those that are beyond the budget.

    All of them together may cost ``_ASKED_FACTOR`` budgets; what is beyond is thinned out evenly, and the notes say so.
    """
    tried = [assignment.sizes for assignment in known]
    fresh = [sizes for place, sizes in enumerate(asked) if sizes not in tried and sizes not in asked[:place]]
    cheap = [sizes for sizes in fresh if _elements(spec, sizes) <= budget]
    total = sum(_elements(spec, sizes) for sizes in cheap)
    kept = cheap
    if total > _ASKED_FACTOR * budget:
        count = max(2, int(len(cheap) * _ASKED_FACTOR * budget / total))
        kept = [cheap[round(place * (len(cheap) - 1) / (count - 1))] for place in range(count)]
    if len(kept) < len(fresh):
        notes.append(
            f"of {len(fresh)} sizes that capture could not settle {len(kept)} were tried "
            f"({budget:,} input elements at most per run)"
        )
    return [SizeAssignment(sizes, "asked") for sizes in kept]


def sizes_of(spec: ShapeSpec, feeds: Mapping[str, Array]) -> dict[str, int]:
    """The sizes of the dynamic dims in given data.

    Raises:
        UsageError: a size is not promised, or dims of one name have different sizes.
    """
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        array = feeds.get(tensor.name)
        if array is None or array.ndim != len(tensor.shape):
            continue  # `check_feeds` tells
        for axis, dim in tensor.dims.items():
            size = int(array.shape[axis])
            if size not in dim:
                raise UsageError(
                    f"input {tensor.name!r}: the data has size {size} on axis {axis}, promised is {dim.low}..{dim.high}"
                    + (f"/{dim.step}" if dim.step > 1 else ""),
                    f"widen {argument('dynamic_shapes')} or leave the data out",
                )
            if sizes.setdefault(dim.name, size) != size:
                raise UsageError(f"the data has sizes {sizes[dim.name]} and {size} for dim {dim.name!r}")
    return sizes


def _elements(spec: ShapeSpec, sizes: Mapping[str, int]) -> int:
    return sum(math.prod(shape) for shape in spec.shapes_at(sizes).values())


def _lows(dims: Mapping[str, DimRange], but: str) -> dict[str, int]:
    return {name: dim.sizes(limit=1)[0] for name, dim in dims.items() if name != but}


def _candidates(
    spec: ShapeSpec, dim: DimRange, example: int, others: Mapping[str, int], budget: int, notes: list[str]
) -> list[tuple[str, int]]:
    """Sizes other than the example's, labelled; the high end cut to the budget with all other dims at their lowest."""
    first = -(-dim.low // dim.step) * dim.step
    count = (dim.high - first) // dim.step + 1
    last = first + (count - 1) * dim.step

    def cost(size: int) -> int:
        return _elements(spec, {**others, dim.name: size})

    affordable = last
    if cost(last) > budget:
        # cost grows with the size: find the largest affordable multiple of the step by halving
        low, high = 0, count - 1
        while low < high:
            middle = (low + high + 1) // 2
            if cost(first + middle * dim.step) <= budget:
                low = middle
            else:
                high = middle - 1
        affordable = first + low * dim.step
    chosen: list[tuple[str, int]] = []

    def add(label: str, size: int) -> None:
        if size != example and size not in [known for _, known in chosen]:
            chosen.append((label, size))

    add("low", first)
    odd = _odd_size(dim, example, first, last, affordable)
    if odd is not None:
        add("odd", odd)
    add("high" if affordable == last else "high (capped)", affordable)
    for size in (first + dim.step, first + 2 * dim.step):  # short or expensive ranges: two others where two exist
        if len(chosen) < 2 and size <= last:
            add("next", size)
    largest = max([example, *(size for _, size in chosen)])
    if largest < last:
        notes.append(
            f"{dim.name}: promised up to {last}, tried up to {largest} ({budget:,} input elements at most per run)"
        )
    return chosen


def _odd_size(dim: DimRange, example: int, first: int, last: int, affordable: int) -> int | None:
    """The odd multiple of the step nearest to the example, other than the example and the ends where possible."""
    start = max(example // dim.step, 1)
    ends: int | None = None
    for distance in range(8):
        for multiple in (start + distance, start - distance):
            size = multiple * dim.step
            if multiple % 2 == 0 or size == example or not first <= size <= last:
                continue
            if size > affordable and size > first + 2 * dim.step:
                continue
            if size in (first, last):
                ends = size if ends is None else ends
                continue
            return size
    return ends


def _fit(
    spec: ShapeSpec, dims: Mapping[str, DimRange], sizes: Mapping[str, int], example: Mapping[str, int], budget: int
) -> dict[str, int]:
    """Bring an assignment within the budget: the dims that stand highest above the example come back to it first."""
    fitted = dict(sizes)
    while _elements(spec, fitted) > budget:
        above = [name for name in fitted if fitted[name] > max(example[name], dims[name].sizes(limit=1)[0])]
        if not above:
            break
        name = max(above, key=lambda name: fitted[name] / max(example[name], 1))
        smaller = [size for size in (example[name], fitted[name] // 2) if size in dims[name]]
        fitted[name] = max((size for size in smaller if size < fitted[name]), default=example[name])
    return fitted


def _missing(
    wanted: Mapping[str, list[tuple[str, int]]], assignments: list[SizeAssignment], example: Mapping[str, int]
) -> list[SizeAssignment]:
    """What fitting took away: dims that are left with fewer than two other sizes get them one at a time."""
    extra: list[SizeAssignment] = []
    for name, candidates in wanted.items():
        tried = {a.sizes[name] for a in (*assignments, *extra)} - {example[name]}
        for label, size in candidates:
            if len(tried) >= 2:
                break
            if size not in tried:
                extra.append(SizeAssignment({**example, name: size}, label))
                tried.add(size)
    return extra
