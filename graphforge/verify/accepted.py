"""Inputs that the reference takes: of several sets for the same sizes the first that it runs on, with its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.limiting import BeyondLimitError
from graphforge.runners.arrays import Array
from graphforge.runners.elsewhere import DiedError
from graphforge.runners.runner import Runner

__all__ = ["Accepted", "Rejected", "first_accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A set of inputs, what the reference gives for it (as ``run_once`` returns it) and how long that took."""

    feeds: Mapping[str, Array]
    expected: Any
    seconds: float

    @property
    def is_finite(self) -> bool:
        """Whether no result is NaN or infinite."""
        return all(_is_finite(array) for array in self.expected[0][1][0].values())


@dataclass(frozen=True, slots=True)
class Rejected:
    """No set ran, or none as it should: why the first did not, and how many there were."""

    feeds: Mapping[str, Array]
    error: GraphForgeError
    count: int


def first_accepted(
    reference: Runner,
    candidates: Iterable[Mapping[str, Array]],
    run_once: Callable[[Runner, Mapping[str, Array]], Any],
    *,
    finite: bool = False,
) -> Accepted | Rejected:
    """The first set that the reference runs on.

    Args:
        reference: what is right; it refuses data by raising.
        candidates: sets of inputs for the same sizes, at least one.
        run_once: runs it.
        finite: take no set whose results are NaN or infinite: a mask that hides a whole row, or a zero divisor, brings
            them about without an error, and proves nothing of what was meant.
    """
    refused: list[tuple[Mapping[str, Array], GraphForgeError]] = []
    for feeds in candidates:
        start = time.perf_counter()
        try:
            expected = run_once(reference, feeds)
        except (BeyondLimitError, DiedError):  # nor would it come to an end on others
            raise
        except GraphForgeError as error:
            refused.append((feeds, error))
            continue
        found = Accepted(feeds, expected, time.perf_counter() - start)
        if not finite or found.is_finite:
            return found
        refused.append((feeds, GraphForgeError("its results are NaN or infinite")))
    return Rejected(*refused[0], len(refused))


def _is_finite(array: Array) -> bool:
    if array.dtype.kind in "biuOSU":
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array if array.dtype.kind in "fc" else array.astype(np.float32)).all())
