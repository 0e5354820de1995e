"""Results that are ranked by score: rows whose scores are equal within the tolerance may stand in either order.

Detections come sorted by score.  Two whose scores differ by less than rounding have no order that both sides must
find: eager itself turns them round when a convolution sums in another order.  Rows are matched inside such runs of
scores, all outputs of a detection together; everything else stays as strict as it was, exact ties included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
    for names in _groups(reference, artifact):
        scores = next((name for name in names if _is_ranking(reference[name], artifact[name], name, tolerances)), None)
        if scores is None:
            continue
        order = _order(names, scores, reference, artifact, tolerances)
        count = 0 if order is None else int(np.sum(order != np.arange(len(order))))
        if order is None or not count:
            continue
        for name in names:
            changed[name] = artifact[name][order]
            moved[name] = count
    return changed, moved


def _groups(reference: Mapping[str, Array], artifact: Mapping[str, Array]) -> list[list[str]]:
    """Outputs with equally many rows that belong to one image."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, array in reference.items():
        if array.ndim and array.shape == artifact[name].shape and array.shape[0] > 1:
            match = _OF_AN_IMAGE.fullmatch(name)
            groups.setdefault((match.group(1) if match else "", array.shape[0]), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _is_ranking(reference: Array, artifact: Array, name: str, tolerances: Tolerances) -> bool:
    """Whether an output holds scores from best to worst, equal on both sides."""
    if reference.ndim != 1 or reference.dtype.kind != "f" or artifact.dtype != reference.dtype:
        return False
    if not (np.all(reference[:-1] >= reference[1:]) and np.all(artifact[:-1] >= artifact[1:])):
        return False
    return compare_arrays(name, reference, artifact, tolerances.of(name, dtype_name(reference))).passed


def _order(
    names: Sequence[str],
    scores: str,
    reference: Mapping[str, Array],
    artifact: Mapping[str, Array],
    tolerances: Tolerances,
) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """For each row of the reference the artifact's row that is the same detection; None when some row has none."""
    ours, theirs = reference[scores].astype(np.float64), artifact[scores].astype(np.float64)
    allowed = tolerances.of(scores, dtype_name(reference[scores]))
    slack = 2 * (allowed.scale * float(np.max(np.abs(ours))) + allowed.atol)
    order = np.arange(len(ours), dtype=np.int64)
    start = 0
    while start < len(ours):
        end = start + 1
        while end < len(ours) and ours[end - 1] - ours[end] <= slack + 2 * allowed.rtol * abs(ours[end]):
            end += 1
        if end - start > 1:
            if end - start > _MAX_RUN:
                return None
            run = _matched(range(start, end), names, reference, artifact, tolerances)
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
    rows: range,
    names: Sequence[str],
    reference: Mapping[str, Array],
    artifact: Mapping[str, Array],
    tolerances: Tolerances,
) -> list[int] | None:
    """The artifact's row for each row of the reference, its own where that fits."""
    free = list(rows)
    chosen: list[int] = []
    for row in rows:
        candidates = [row, *(other for other in free if other != row)] if row in free else free
        same = next((other for other in candidates if _same(row, other, names, reference, artifact, tolerances)), None)
        if same is None:
            return None
        free.remove(same)
        chosen.append(same)
    return chosen


def _same(
    row: int,
    other: int,
    names: Sequence[str],
    reference: Mapping[str, Array],
    artifact: Mapping[str, Array],
    tolerances: Tolerances,
) -> bool:
    for name in names:
        one, two = reference[name][row], artifact[name][other]
        if one.dtype.kind != "f":
            if not np.array_equal(one, two):
                return False
            continue
        allowed = tolerances.of(name, dtype_name(reference[name]))
        # as the whole output is judged: by its largest magnitude
        largest = float(np.max(np.abs(reference[name]), initial=0.0, where=np.isfinite(reference[name])))
        bound = allowed.scale * largest + allowed.rtol * np.abs(one) + allowed.atol + allowed.underflow
        if not np.all(np.abs(two.astype(np.float64) - one) <= bound):
            return False
    return True
