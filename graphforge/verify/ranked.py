"""Results that are ranked by score: rows whose scores are equal within the tolerance may stand in either order.

Detections come sorted by score.  Two whose scores differ by less than rounding have no order that both sides must
find: eager itself turns them round when a convolution sums in another order.  Rows are matched inside such runs of
scores, all outputs of a detection together; everything else stays as strict as it was, exact ties included.
Rankings of a batch, or of each keypoint of a picture ([B, K], [B, J, K]), are so many rankings, each put in order by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphforge.runners.arrays import Array, dtype_name
from graphforge.verify.compare import compare_arrays
from graphforge.verify.tolerance import Tolerances

__all__ = ["reordered"]

# Longer runs of scores that are all equal within the tolerance say that the scores say nothing.
_MAX_RUN = 64
_OF_AN_IMAGE = re.compile(r"(output_\d+_).+")


def reordered(
    reference: Mapping[str, Array], artifact: Mapping[str, Array], tolerances: Tolerances
) -> tuple[dict[str, Array], dict[str, int]]:
    """The artifact's outputs with rows put in the reference's order, where only the order of near ties differs.

    Args:
        reference, artifact: outputs by name; both have the same names.
        tolerances: what is allowed.

    Returns:
        The outputs that were put in order, by name, and for each how many of its rows moved; empty when none could be.
    """
    changed: dict[str, Array] = {}
    moved: dict[str, int] = {}
    for scores, names in _rankings(reference, artifact, tolerances):
        if not changed.keys().isdisjoint(names):
            continue
        axes = reference[scores].ndim - 1
        ours, theirs = (
            {name: side[name].reshape(-1, *side[name].shape[axes:]) for name in names} for side in (reference, artifact)
        )
        bounds = {name: _bound(name, reference[name], tolerances) for name in names}
        put = {name: array.copy() for name, array in theirs.items()}
        count = 0
        for at in range(len(ours[scores])):
            here, there = ({name: array[at] for name, array in side.items()} for side in (ours, theirs))
            order = _order(scores, here, there, bounds)
            if order is None:
                continue
            count += int(np.sum(order != np.arange(len(order))))
            for name in names:
                put[name][at] = there[name][order]
        if count:
            changed |= {name: put[name].reshape(artifact[name].shape) for name in names}
            moved |= dict.fromkeys(names, count)
    return changed, moved


def _rankings(
    reference: Mapping[str, Array], artifact: Mapping[str, Array], tolerances: Tolerances
) -> Iterator[tuple[str, list[str]]]:
    """Scores from best to worst along their last axis, and the outputs of one image that have a row for each."""
    for scores, array in reference.items():
        if not array.ndim or array.shape[-1] < 2 or not array.size:
            continue
        if not _is_ranking(array, artifact[scores], scores, tolerances):
            continue
        names = [
            name
            for name, other in reference.items()
            if other.shape[: array.ndim] == array.shape
            and other.shape == artifact[name].shape
            and _image_of(name) == _image_of(scores)
        ]
        if len(names) > 1:
            yield scores, names


def _image_of(name: str) -> str:
    match = _OF_AN_IMAGE.fullmatch(name)
    return match.group(1) if match else ""


def _is_ranking(reference: Array, artifact: Array, name: str, tolerances: Tolerances) -> bool:
    """Whether an output holds scores from best to worst, equal on both sides."""
    if reference.dtype.kind != "f" or artifact.dtype != reference.dtype or artifact.shape != reference.shape:
        return False
    if not all(np.all(side[..., :-1] >= side[..., 1:]) for side in (reference, artifact)):
        return False
    return compare_arrays(name, reference, artifact, tolerances.of(name, dtype_name(reference))).passed


@dataclass(frozen=True, slots=True)
class _Bound:
    """What an output's elements may differ by, as the whole output is judged: by its largest magnitude."""

    fixed: float
    rtol: float
    underflow: float

    def around(self, values: Array) -> Array:
        return self.fixed + self.rtol * np.abs(values.astype(np.float64))


def _bound(name: str, reference: Array, tolerances: Tolerances) -> _Bound:
    allowed = tolerances.of(name, dtype_name(reference))
    finite = reference[np.isfinite(reference)] if reference.dtype.kind == "f" else reference[:0]
    largest = float(np.max(np.abs(finite), initial=0.0))
    return _Bound(allowed.scale * largest + allowed.atol, allowed.rtol, allowed.underflow)


def _order(
    scores: str, reference: Mapping[str, Array], artifact: Mapping[str, Array], bounds: Mapping[str, _Bound]
) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """For each row of the reference the artifact's row that is the same detection; None when some row has none."""
    ours, theirs = reference[scores].astype(np.float64), artifact[scores].astype(np.float64)
    apart = 2 * bounds[scores].around(ours)
    order = np.arange(len(ours), dtype=np.int64)
    start = 0
    while start < len(ours):
        end = start + 1
        while end < len(ours) and ours[end - 1] - ours[end] <= apart[end]:
            end += 1
        if end - start > 1:
            run = _matched(range(start, end), reference, artifact, bounds)
            if run is None:
                return None
            for row, other in zip(range(start, end), run, strict=True):
                tied = any(
                    one != row and ours[one] == ours[row] and theirs[one] == theirs[row] for one in range(start, end)
                )
                if other != row and tied and theirs[other] == theirs[row]:
                    return None  # an exact tie on both sides is broken by a rule, and the rule is part of the contract
            order[start:end] = run
        start = end
    return order


def _matched(
    rows: range, reference: Mapping[str, Array], artifact: Mapping[str, Array], bounds: Mapping[str, _Bound]
) -> list[int] | None:
    """The artifact's row for each row of the reference, its own where that fits."""
    if len(rows) > _MAX_RUN:  # padding is such a run: nothing moves in it
        return list(rows) if all(_same(row, row, reference, artifact, bounds) for row in rows) else None
    free = list(rows)
    chosen: list[int] = []
    for row in rows:
        candidates = [row, *(other for other in free if other != row)] if row in free else free
        same = next((other for other in candidates if _same(row, other, reference, artifact, bounds)), None)
        if same is None:
            return None
        free.remove(same)
        chosen.append(same)
    return chosen


def _same(
    row: int, other: int, reference: Mapping[str, Array], artifact: Mapping[str, Array], bounds: Mapping[str, _Bound]
) -> bool:
    for name, bound in bounds.items():
        one, two = reference[name][row], artifact[name][other]
        if one.dtype.kind != "f":
            if not np.array_equal(one, two):
                return False
        elif not np.all(np.abs(two.astype(np.float64) - one) <= bound.around(one) + bound.underflow):
            return False
    return True
