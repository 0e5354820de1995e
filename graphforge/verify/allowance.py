"""How far rounding can take each element of an output, from runs that show it; and the cheap test in front of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphforge.runners.arrays import Array

__all__ = ["FACTOR", "Allowance", "allowance_of", "as_floats", "at_most_steps", "steps_allowed"]

# Eager and artifact both round, in another order each, and a few runs do not show the worst: five times what they show.
# A right file stays below three; a fault of ten times what rounding does stands out.
FACTOR = 5.0

_EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "complex64": 2.0**-23, "complex128": 2.0**-52}

# The cheap test: so many units in the last place of the largest element around.  Rounding once or twice is below it in
# every network, so that whatever is ten times rounding is judged by evidence.
_STEPS = {"float16": 2.0, "bfloat16": 2.0}
_FEW_STEPS = 8.0
# Layers add up as errors do: n of them are off by 0.6 times the root of n (resnet18, mobilenet, vit), so that this is a
# third of ten times rounding.
_EACH_LAYER = 2.0

# A part of an output (a channel, a column) is judged by its own magnitude when it has this many elements; fewer say
# little about what rounding does there.
_PART = 32

# An element that moves by so many times what is usual, and by this share of what is around it, did not round: it was
# chosen otherwise.
_JUMP = 64.0
_SHARE = 2.0**-6


@dataclass(frozen=True, slots=True)
class Allowance:
    """What rounding does to one output.

    Attributes:
        level: how far it takes each element, by parts of the output; broadcasts to its shape.
        own: the most that the reference is off from its float64 run; None without one.
        spread: the most that an element moves when values move by a step; None without such runs.
        jumping: elements that some run chose otherwise; broadcasts to the output's shape.
    """

    level: Array
    own: float | None
    spread: float | None
    jumping: Array

    @property
    def largest(self) -> float:
        """The largest difference that is allowed anywhere."""
        return FACTOR * float(np.max(self.level, initial=0.0))

    def describe(self) -> str:
        """Where the number comes from."""
        parts = []
        if self.own is not None:
            parts.append(f"eager is off by {self.own:.3g} from its own float64 run")
        if self.spread is not None:
            parts.append(f"moves by {self.spread:.3g} when its values move by one unit in the last place")
        return " and ".join(parts) or "nothing was measured"


def as_floats(array: Array) -> Array:
    """Real numbers of float32 or float64: halves widened, complex numbers as pairs."""
    if array.dtype.kind == "c":
        return np.ascontiguousarray(array).view(array.real.dtype).reshape(*array.shape, 2)
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32)


def at_most_steps(
    reference: Array, artifact: Array, underflow: float, *, depth: int = 0, computed: str | None = None
) -> bool:
    """Whether the two are a few units in the last place apart, by the magnitude of each part of the output.

    Args:
        reference, artifact: an output.
        underflow: what is allowed where numbers are too small for the format.
        depth: sums of products one behind the other on the way to it.
        computed: dtype that it is computed in, where that has fewer digits than its own.
    """
    if reference.size == 0:
        return True
    eps = max(_eps(reference), _EPS.get(computed or "", 0.0))
    r, a = as_floats(reference), as_floats(artifact)
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - r)
        same = (r == a) | (np.isnan(r) & np.isnan(a))
    size = np.where(np.isfinite(r), np.abs(r), 0)
    allowed = _by_parts(size) * (steps_allowed(computed or reference.dtype.name, depth) * eps) + underflow
    return bool(np.all((apart <= allowed) | same))


def steps_allowed(dtype: str, depth: int) -> float:
    """How many units in the last place of the largest element around pass the simple test."""
    return _STEPS.get(dtype, max(_FEW_STEPS, _EACH_LAYER * math.sqrt(depth)))


def allowance_of(reference: Array, moved: Sequence[Array], exact: Array | None) -> Allowance:
    """What the runs say; those of another shape say nothing.

    Args:
        reference: the output of the plain run.
        moved: the same output where values moved by a step.
        exact: the same output in float64.
    """
    r = as_floats(reference).astype(np.float64)
    own = spread = None
    level = np.where(np.isfinite(r), np.abs(r), 0.0) * (_eps(reference) / 2)
    jumping = np.zeros((), bool)
    around = _SHARE * _by_parts(np.where(np.isfinite(r), np.abs(r), 0.0)) if r.size else level
    runs = [as_floats(one).astype(np.float64) for one in moved if one.shape == reference.shape]
    distances = [_distance(one, r) for one in runs]
    if distances and r.size:
        moves = np.maximum.reduce(distances)
        usual = float(np.median(moves[moves > 0])) if (moves > 0).any() else 0.0
        jumping = moves > np.maximum(_JUMP * usual, around)
        moves = np.where(jumping, 0.0, moves)
        spread = float(np.max(moves, initial=0.0))
        level = np.maximum(level, moves)
    if exact is not None and exact.shape == reference.shape and r.size:
        off = np.where(jumping, 0.0, _distance(as_floats(exact).astype(np.float64), r))
        off = np.where(off > np.maximum(_JUMP * level, around), 0.0, off) if distances else off
        own = float(np.max(off, initial=0.0))
        level = np.maximum(level, off)
    return Allowance(_by_parts(level) if r.size else level, own, spread, jumping)


def _distance(one: Array, other: Array) -> Array:
    """How far apart, 0 where either is not finite."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    return np.where(np.isfinite(apart), apart, 0.0)


def _by_parts(values: Array) -> Array:
    """The largest value of the smallest part around each element: a channel's, a column's, or the whole output's."""
    found: Array = np.max(values, initial=0.0, keepdims=True) if values.ndim else np.asarray(values)
    for axis, size in enumerate(values.shape):
        if size > 1 and values.size // size >= _PART:
            others = tuple(other for other in range(values.ndim) if other != axis)
            found = np.minimum(found, values.max(axis=others, keepdims=True))
    return found


def _eps(array: Array) -> float:
    return _EPS.get(
        array.dtype.name, float(np.finfo(array.dtype).eps) if array.dtype in (np.float32, np.float64) else 2.0**-2
    )
