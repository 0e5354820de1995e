"""Scales: the step and the zero of 8-bit integers, for values from what was measured, for weights from the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphforge.ranges import Histogram, Measured

__all__ = ["METHODS", "Grid", "grid_of", "weight_scales"]

METHODS = ("minmax", "percentile", "mse")
# The share of all elements that the method percentile keeps.
_SHARE = 0.9999
# The method mse tries ends drawn in to these shares of what was measured.
_DRAWN_IN = np.linspace(0.3, 1.0, 36)


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that 8 bits can be: ``scale * (q - zero)``.

    Attributes:
        scale: one step.
        zero: the integer that stands for 0.
        signed: int8, else uint8.
    """

    scale: float
    zero: int
    signed: bool

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """Of the integers."""
        return np.int8 if self.signed else np.uint8

    def rounded(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers as they come back."""
        low, high = (-128, 127) if self.signed else (0, 255)
        return (np.clip(np.round(numbers / self.scale) + self.zero, low, high) - self.zero) * self.scale


def grid_of(measured: Measured, method: str, *, signed: bool) -> Grid:
    """The grid of a value.

    Args:
        measured: with a histogram, unless the method is ``minmax``.
        method: one of ``METHODS``.
        signed: int8 that is symmetric around zero, as TensorRT has it, else uint8 with a zero of its own.
    """
    low, high = (measured.low, measured.high) if measured.low <= measured.high else (0.0, 0.0)
    histogram = measured.histogram
    if histogram is None or method == "minmax":
        return _between(low, high, signed=signed)
    if method == "percentile":
        inner = histogram.within(_SHARE)
        return _between(max(low, inner[0]), min(high, inner[1]), signed=signed)
    return min(
        (_between(low * share, high * share, signed=signed) for share in _DRAWN_IN),
        key=lambda grid: _lost(histogram, grid),
    )


def weight_scales(weights: np.ndarray, axis: int | None, steps: int = 127) -> np.ndarray:
    """The step of symmetric integers for each slice along an axis, or one for all.

    Args:
        weights: a constant.
        axis: that of the channels.
        steps: how many there are on either side of zero.
    """
    others = None if axis is None else tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights).max(axis=others, initial=0.0)
    return np.asarray(np.maximum(largest / steps, np.finfo(np.float32).tiny), np.float32)


def _between(low: float, high: float, *, signed: bool) -> Grid:
    low, high = min(low, 0.0), max(high, 0.0)  # zero is exact: padding is made of it
    if signed:
        return Grid(max(-low, high, 1e-30) / 127.0, 0, signed=True)
    scale = max(high - low, 1e-30) / 255.0
    return Grid(scale, int(np.clip(round(-low / scale), 0, 255)), signed=False)


def _lost(histogram: Histogram, grid: Grid) -> float:
    centres = histogram.centres()
    return float(np.dot(histogram.counts, np.square(grid.rounded(centres) - centres)))
