"""Scales: the step and the zero of 8-bit integers, for values from what was measured, for weights from the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphforge.ranges import Histogram, Measured

__all__ = ["METHODS", "TRIED", "WEIGHTS", "Grid", "grid_of", "weight_integers"]

METHODS = ("minmax", "percentile", "mse", "entropy")
# Those of which ``best`` takes the one that the outputs come out best with.  Entropy loses too much at the ends of what
# networks without batch norms compute to be worth an evaluation everywhere.
TRIED = ("mse", "minmax", "percentile")
# How weights are written: see ``weight_integers``.
WEIGHTS = ("portable", "int8", "uint8")
# The share of all elements that the method percentile keeps.
_SHARE = 0.9999
# What two neighbouring weights of one sign may be together: 255 * 128 is below 2^15.
_PAIR = 128
# The method mse tries ends drawn in to these shares of what was measured.
_DRAWN_IN = np.linspace(0.3, 1.0, 36)
# The method entropy has as many steps for magnitudes, and tries as many reaches.
_STEPS = 128
_REACHES = 96
# What a magnitude costs that the steps say nothing of, in nats.
_MISSED = 20.0


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
    if method == "entropy":
        reach = _least_told_apart(histogram, high=high, low=low)
        return _between(max(low, -reach), min(high, reach), signed=signed)
    return min(
        (_between(low * share, high * share, signed=signed) for share in _DRAWN_IN),
        key=lambda grid: _lost(histogram, grid),
    )


def weight_integers(weights: np.ndarray, axis: int | None, kind: str = "int8") -> tuple[np.ndarray, np.ndarray]:
    """Symmetric integers for weights, and their step for each slice along an axis, or one for all.

    Processors without VNNI add the products of two neighbours, uint8 by int8, in 16 bits and cut off what does not fit:
    255 times the sum of two weights of one sign, if that is above 128.  ``portable`` takes the smallest step at which
    no such sum is.  Neighbours are those along the axes that are summed over; of a convolution's weights either the
    channels lie next to each other or the places of the kernel, so both are looked at.

    Args:
        weights: a constant.
        axis: that of the channels.
        kind: ``int8``, ``portable``, or ``uint8``, the same as int8 around 128.
    """
    others = None if axis is None else tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.asarray(np.abs(weights).max(axis=others, initial=0.0), np.float64)
    scales = np.maximum(largest / 127, np.finfo(np.float32).tiny).astype(np.float32)
    integers = _integers(weights, scales, axis)
    if kind == "portable":
        for _ in range(4):  # rounding may bring a sum above it once more
            above = np.maximum(_pairs(integers, axis) / _PAIR, 1.0)
            if (above <= 1).all():
                break
            scales = (scales * above).astype(np.float32)
            integers = _integers(weights, scales, axis)
        else:
            scales = np.maximum(largest / 63, np.finfo(np.float32).tiny).astype(np.float32)
            integers = _integers(weights, scales, axis)
    if kind == "uint8":
        return (integers.astype(np.int16) + 128).astype(np.uint8), scales
    return integers, scales


def _integers(weights: np.ndarray, scales: np.ndarray, axis: int | None) -> np.ndarray:
    spread = scales if axis is None else scales.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
    return np.asarray(np.clip(np.round(weights / spread), -127, 127).astype(np.int8))


def _pairs(integers: np.ndarray, axis: int | None) -> np.ndarray:
    """The largest magnitude of two neighbours of one sign together, for each slice along the axis, or of all."""
    rows = np.moveaxis(integers, 0 if axis is None else axis, 0).astype(np.int32)
    orders = [rows.reshape(len(rows), -1)]
    if rows.ndim > 2:
        orders.append(np.moveaxis(rows, 1, -1).reshape(len(rows), -1))
    most = np.zeros(len(rows))
    for order in orders:
        for half in (np.maximum(order, 0), np.maximum(-order, 0)):
            if half.shape[1] > 1:
                most = np.maximum(most, (half[:, 1:] + half[:, :-1]).max(axis=1, initial=0))
    return np.asarray(most.max(initial=0.0) if axis is None else most)


def _between(low: float, high: float, *, signed: bool) -> Grid:
    low, high = min(low, 0.0), max(high, 0.0)  # zero is exact: padding is made of it
    if signed:
        return Grid(max(-low, high, 1e-30) / 127.0, 0, signed=True)
    scale = max(high - low, 1e-30) / 255.0
    return Grid(scale, int(np.clip(round(-low / scale), 0, 255)), signed=False)


def _lost(histogram: Histogram, grid: Grid) -> float:
    centres = histogram.centres()
    return float(np.dot(histogram.counts, np.square(grid.rounded(centres) - centres)))


def _least_told_apart(histogram: Histogram, *, low: float, high: float) -> float:
    """The reach within which 128 steps keep most of what the magnitudes say (Kullback and Leibler; as in TensorRT)."""
    half = len(histogram.counts) // 2
    magnitudes = histogram.counts[half:] + histogram.counts[:half][::-1]
    magnitudes = magnitudes.astype(np.float64)
    magnitudes[0] = magnitudes[1]  # zeros of a Relu are exact at any step, and would decide alone
    whole = max(int(np.ceil(max(high, -low) / histogram.width)), _STEPS)
    best, least = whole, np.inf
    for reach in np.unique(np.linspace(_STEPS, min(whole, half), _REACHES).astype(int)):
        inside = magnitudes[:reach].copy()
        seen = inside > 0
        step = np.arange(reach) * _STEPS // reach
        held = np.bincount(step, inside, _STEPS)
        among = np.bincount(step, seen.astype(np.float64), _STEPS)
        kept = np.where(seen, (held / np.maximum(among, 1))[step], 0.0)
        inside[-1] += magnitudes[reach:].sum()
        p, q = inside / max(inside.sum(), 1), kept / max(kept.sum(), 1)
        both = (p > 0) & (q > 0)
        apart = float((p[both] * np.log(p[both] / q[both])).sum()) + float(p[(p > 0) & (q == 0)].sum()) * _MISSED
        if apart < least:
            best, least = int(reach), apart
    return float(best * histogram.width)
