"""Difference: how far a value computed in fewer digits lies from the same value in float32, over all samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphforge.ranges.measure import STANDS_FOR_INFINITY
from graphforge.runners.arrays import Array

__all__ = ["Difference"]

# What stands for infinity in either: beyond any number that is computed with.
_AS_GOOD_AS_INFINITE = 2.0**14


@dataclass(slots=True)
class Difference:
    """What was seen of two arrays that should be one.

    Attributes:
        count: elements compared.
        error: the sum of the squares of what they differ by.
        signal: the sum of the squares of the reference's elements.
        worst: the largest difference.
        largest: the largest magnitude of the reference.
        broken: elements that are NaN or infinite where the reference is an ordinary number.
        reshaped: they had different shapes, so that nothing more can be said.
    """

    count: int = 0
    error: float = 0.0
    signal: float = 0.0
    worst: float = 0.0
    largest: float = 0.0
    broken: int = 0
    reshaped: bool = False

    @property
    def relative(self) -> float:
        """The root of the mean squared difference as a share of the reference's own."""
        if self.broken:
            return math.inf
        if not self.signal:
            return 0.0 if not self.error else math.inf
        return math.sqrt(self.error / self.signal)

    @property
    def decibels(self) -> float:
        """The ratio of signal to noise, infinite where there is no difference."""
        ratio = self.relative
        return math.inf if ratio == 0 else -math.inf if math.isinf(ratio) else -20 * math.log10(ratio)

    @property
    def share(self) -> float:
        """The largest difference as a share of the reference's largest magnitude."""
        if self.broken:
            return math.inf
        return 0.0 if not self.worst else self.worst / self.largest if self.largest else math.inf

    def add(self, reference: Array, other: Array) -> None:
        """Look at more elements."""
        if reference.shape != other.shape:
            self.reshaped = True
            return
        r, o = (array.reshape(-1).astype(np.float64) for array in (reference, other))
        stands = (np.abs(r) >= STANDS_FOR_INFINITY) & (np.abs(o) >= _AS_GOOD_AS_INFINITE) & (np.sign(r) == np.sign(o))
        known = np.isfinite(r) & ~stands
        if not known.all():
            r, o = r[known], o[known]
        self.count += r.size
        finite = np.isfinite(o)
        if not finite.all():
            self.broken += int(r.size - finite.sum())
            r, o = r[finite], o[finite]
        if not r.size:
            return
        apart = o - r
        with np.errstate(over="ignore"):
            self.error += float(np.dot(apart, apart))
            self.signal += float(np.dot(r, r))
        self.worst = max(self.worst, float(np.abs(apart).max()))
        self.largest = max(self.largest, float(np.abs(r).max()))
