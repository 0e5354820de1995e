"""A histogram of numbers that come in pieces: its reach doubles as larger ones arrive, and neighbours become one."""

from __future__ import annotations

import math

import numpy as np

from graphforge.runners.arrays import Array

__all__ = ["BINS", "Histogram"]

# Bins on either side of zero: of int8's 128 steps each has sixteen.
BINS = 2048


class Histogram:
    """How many numbers lie where, from ``-reach`` to ``reach``.

    Attributes:
        reach: largest magnitude that has a bin, a power of two; 0 before any number came.
        counts: of ``2 * BINS`` bins of equal width, the lowest numbers first.
    """

    def __init__(self) -> None:
        self.reach = 0.0
        self.counts = np.zeros(2 * BINS, np.int64)

    def add(self, values: Array) -> None:
        """Count finite numbers in."""
        if not values.size:
            return
        largest = float(max(abs(float(values.max())), abs(float(values.min()))))
        if largest > 0:
            self._reach_out(2.0 ** math.ceil(math.log2(largest)))
        if self.reach == 0:  # nothing but zeros so far
            self._reach_out(2.0**-126)
        place = np.clip(np.floor(values * (BINS / self.reach)), -BINS, BINS - 1).astype(np.int64) + BINS
        self.counts += np.bincount(place.reshape(-1), minlength=2 * BINS)

    @property
    def width(self) -> float:
        """Of one bin."""
        return self.reach / BINS

    def centres(self) -> Array:
        """The middle of each bin."""
        return (np.arange(-BINS, BINS) + 0.5) * self.width

    def within(self, share: float) -> tuple[float, float]:
        """The ends of the middle part that holds this share of the numbers, as much being left out on either side."""
        total = int(self.counts.sum())
        if not total:
            return 0.0, 0.0
        out = (1 - share) / 2 * total
        rising = np.cumsum(self.counts)
        low = int(np.searchsorted(rising, out, side="right"))
        high = int(np.searchsorted(rising, total - out, side="left"))
        return (low - BINS) * self.width, (min(high, 2 * BINS - 1) + 1 - BINS) * self.width

    def _reach_out(self, reach: float) -> None:
        if self.reach == 0:
            self.reach = reach
            return
        while self.reach < reach:
            merged = self.counts.reshape(BINS, 2).sum(axis=1)
            self.counts = np.zeros(2 * BINS, np.int64)
            self.counts[BINS // 2 : BINS // 2 + BINS] = merged
            self.reach *= 2
