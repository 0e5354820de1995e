"""Values of a file that says nothing of where they come from, found among the reference's by their numbers alone.

Such a pair is evidence that two values agree and never that they depart.
"""

from __future__ import annotations

import numpy as np

from graphforge.diagnosis.layout import Layout, compared
from graphforge.diagnosis.tape import Key, Tape
from graphforge.runners.arrays import Array
from graphforge.verify.compare import OutputComparison
from graphforge.verify.tolerance import Tolerances

__all__ = ["ByValue"]

# What so few elements hold, others hold by chance.
_FEW = 4
_CLOSE = 1e-3


class ByValue:
    """The reference's values by what they hold."""

    def __init__(self, tape: Tape, tolerances: Tolerances) -> None:
        self.tape = tape
        self.tolerances = tolerances
        self._known: dict[int, list[tuple[Key, float, float]]] = {}
        for key in tape.entries:
            array = tape.values[key]
            if tells(array):
                self._known.setdefault(array.size, []).append((key, *_sketch(array)))

    def find(self, name: str, found: Array) -> tuple[Key, Layout, OutputComparison] | None:
        """The first value of the reference that holds the same numbers."""
        if not tells(found):
            return None
        largest, mean = _sketch(found)
        for key, other_largest, other_mean in self._known.get(found.size, ()):
            if not (_close(largest, other_largest) and _close(mean, other_mean)):
                continue
            layout, comparison = compared(name, self.tape.values[key], found, self.tolerances)
            if layout is not None:
                return key, layout, comparison
        return None


def tells(array: Array) -> bool:
    """Whether an array holds enough to be known by it."""
    if array.size < _FEW or array.dtype.kind not in "fiuV":
        return False
    flat = array.reshape(-1)
    return bool((flat[: 1 << 12] != flat[0]).any())


def _sketch(array: Array) -> tuple[float, float]:
    flat = np.abs(array.reshape(-1).astype(np.float64))
    finite = flat[np.isfinite(flat)]
    return float(finite.max(initial=0.0)), float(finite.mean()) if finite.size else 0.0


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _CLOSE * max(abs(one), abs(other), 1e-30)
