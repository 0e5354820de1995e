"""What an example array says about the data that a model takes: what random data keeps of it, kind by kind.

A mask that leaves one element of each row, offsets in rising order, rows that sum to one: a model may rely on any of
these, and data without them is refused by the model or says nothing about the artifact.  Each rule recognises one such
fact in the example and makes it true of what was drawn; rows run along the last axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from graphforge.runners.arrays import Array

__all__ = ["Bounds", "are_offsets", "codes_of", "imposed", "integers", "mask", "with_both"]

# Floats and integers with at most this many distinct values, such as masks of 0 and 1, are codes: drawn from these.
_CODES = 2
# Facts that hold by chance for a handful of numbers are facts only of more than that.
_FEW = 3

Generator: TypeAlias = np.random.Generator


@dataclass(frozen=True, slots=True)
class Bounds:
    """What integers may be.

    Attributes:
        low, high: the least and the largest, both allowed.
        full: the largest is to be among them: it is the size of a dim, as the length of an unpadded row is.
        total: what a vector of them sums up to, as the sizes of parts do; None for any sum.
    """

    low: int
    high: int
    full: bool = False
    total: int | None = None


# -- masks -------------------------------------------------------------------------------------------------------------


def codes_of(like: Array) -> Array | None:
    """The one or two distinct values of a mask; None for other data.  Infinities are values: 0 and -inf make a mask."""
    flat = like.reshape(-1)
    if flat.size == 0:
        return None
    values = np.unique(flat[:4096])
    if values.size > _CODES or (values.dtype.kind == "f" and np.isnan(values).any()):
        return None
    return values if np.isin(flat, values).all() else None


def mask(like: Array, shape: tuple[int, ...], generator: Generator) -> Array:
    """A random boolean mask with what holds for every row of ``like``: where it begins, that something is left."""
    if like.all() or not like.any():
        return np.full(shape, bool(like.reshape(-1)[0]))
    drawn = generator.integers(0, 2, size=shape).astype(bool)
    if like.ndim == 0 or drawn.size == 0 or like.shape[-1] < 2:
        return drawn
    if like.ndim > 1 and like.shape[-1] == like.shape[-2] and shape[-1] == shape[-2]:
        for triangle in (np.tril, np.triu):
            for offset in (-1, 0, 1):
                for inverted in (False, True):
                    if np.array_equal(
                        like, np.broadcast_to(triangle(np.ones(like.shape[-2:], bool), offset) ^ inverted, like.shape)
                    ):
                        return np.broadcast_to(triangle(np.ones(shape[-2:], bool), offset) ^ inverted, shape).copy()
    width = shape[-1]
    if (like.sum(-1) == 1).all():
        return np.asarray(np.arange(width) == generator.integers(0, width, size=shape[:-1])[..., None])
    steps = np.diff(like.astype(np.int8), axis=-1)
    for first, monotone in ((True, (steps <= 0).all()), (False, (steps >= 0).all())):
        if monotone:  # each row is a run of `first`, then of the other
            counts = (like == first).sum(-1)
            least = min(int(counts.min() > 0), width)
            most = max(width - int(counts.max() < like.shape[-1]), least)
            leading = generator.integers(least, most, size=shape[:-1], endpoint=True)
            return np.asarray((np.arange(width) < leading[..., None]) == first)
    if width == 1 and all((like == value).any(-1).all() for value in (True, False)):
        return np.full(shape, bool(generator.integers(0, 2)))  # one of both: which of them is left, nobody can tell
    return with_both(like, drawn)


def with_both(like: Array, drawn: Array) -> Array:
    """A mask of which every row has a True, or a False, where every row of the example has one."""
    if like.ndim == 0 or drawn.ndim == 0 or drawn.size == 0:
        return drawn
    fixed = drawn.copy()
    for place, value in enumerate((False, True)):  # what is left is often True, so that goes last
        if (like == value).any(-1).all():
            fixed[..., place % fixed.shape[-1]] ^= ~(fixed == value).any(-1)
    return fixed


# -- integers ----------------------------------------------------------------------------------------------------------


def integers(like: Array, shape: tuple[int, ...], bounds: Bounds, generator: Generator) -> Array:
    """Random integers within bounds: in order, distinct, without zero or with a given sum where the example is."""
    low, high = bounds.low, max(bounds.low, bounds.high)
    count = int(np.prod(shape, dtype=np.int64))
    if bounds.total is not None and len(shape) == 1 and count:
        return _parts(bounds.total, count, min(low, bounds.total // count), generator)
    width = shape[-1] if shape else 1
    dtype = np.uint64 if high > np.iinfo(np.int64).max else np.int64
    if _are_distinct(like) and width > 1 and high - low + 1 >= width and high - low < 1 << 24:
        drawn = np.stack([generator.choice(high - low + 1, width, replace=False) for _ in range(count // width)])
        drawn = (drawn.astype(np.int64) + low).reshape(shape).astype(dtype)
    else:
        drawn = generator.integers(low, high, size=shape, dtype=dtype, endpoint=True)
    if low < 0 < high and not (like == 0).any():
        drawn = np.where(drawn == 0, drawn.dtype.type(1), drawn)
    if bounds.full and drawn.size and not (drawn == high).any():
        drawn.reshape(-1)[int(generator.integers(drawn.size))] = high
    return _in_order(like, drawn)


def _are_distinct(like: Array) -> bool:
    """Whether no row has a number twice; a single number says nothing of others."""
    if like.ndim == 0 or like.size == 0 or like.shape[-1] < 2:
        return False
    return all(np.unique(row).size == row.size for row in like.reshape(-1, like.shape[-1])[:64])


def are_offsets(like: Array) -> bool:
    """Whether a vector begins at 0 and rises, as the offsets of rows in a flat array do."""
    return like.ndim == 1 and like.size > 1 and bool(like[0] == 0) and bool((np.diff(like) >= 0).all())


def _parts(total: int, count: int, least: int, generator: Generator) -> Array:
    """``count`` numbers, none below ``least``, that sum up to ``total``."""
    cuts = np.sort(generator.integers(0, total - least * count, size=count - 1, endpoint=True))
    return np.diff(np.concatenate([[0], cuts, [total - least * count]])) + least


def _in_order(like: Array, drawn: Array) -> Array:
    """Every row in the order that all rows of the example have; offsets begin where the example's do."""
    if like.ndim == 0 or drawn.ndim == 0 or like.shape[-1] < 2 or like.size == 0 or drawn.size == 0:
        return drawn
    steps = np.diff(like.astype(np.float64), axis=-1)
    if not steps.any():
        return drawn
    if (steps >= 0).all():
        ordered = np.sort(drawn, axis=-1)
        if drawn.dtype.kind in "iu" and (like[..., 0] == 0).all():
            ordered[..., 0] = 0
        return ordered
    return np.sort(drawn, axis=-1)[..., ::-1].copy() if (steps <= 0).all() else drawn


# -- floats ------------------------------------------------------------------------------------------------------------


def imposed(like: Array, drawn: Array) -> Array:
    """Random floats with what holds for the example (finite, in float64): the rules below, each where it applies."""
    if like.ndim == 0 or drawn.ndim == 0 or like.size <= _FEW or drawn.size == 0:
        return _whole(like, drawn)
    for holds, impose in _RULES:
        if holds(like):
            drawn = impose(like, drawn)
    return drawn


def _whole(like: Array, drawn: Array) -> Array:
    if not (like == np.round(like)).all():
        return drawn
    rounded = np.round(drawn)
    return rounded if (like == 0).any() else np.where(rounded == 0, like.reshape(-1)[0], rounded)


def _is_ordered(like: Array) -> bool:
    steps = np.diff(like, axis=-1)
    if like.shape[-1] <= _FEW or not ((steps >= 0).all() or (steps <= 0).all()):
        return False
    return bool(((steps != 0).sum(-1) > 1).all())  # two values in a row are ordered by chance


def _is_distribution(like: Array) -> bool:
    return like.shape[-1] > 1 and bool((like >= 0).all()) and bool(np.allclose(like.sum(-1), 1, atol=1e-3))


def _has_unit_rows(like: Array) -> bool:
    return like.shape[-1] > 1 and bool(np.allclose(np.square(like).sum(-1), 1, atol=1e-3))


def _has_boxes(like: Array) -> bool:
    return like.shape[-1] == 4 and bool((like[..., 2:] > like[..., :2]).all())


def _is_square_symmetric(like: Array) -> bool:
    square = like.ndim > 1 and like.shape[-1] == like.shape[-2] > 1
    return square and bool(np.allclose(like, np.swapaxes(like, -1, -2), atol=1e-6))


def _boxes(like: Array, drawn: Array) -> Array:
    if drawn.shape[-1] != 4:
        return drawn
    first, second = drawn[..., :2], drawn[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)


def _symmetric(like: Array, drawn: Array) -> Array:
    """Symmetric; where the example is positive definite, so is what comes back."""
    if drawn.shape[-1] != drawn.shape[-2]:
        return drawn
    even = (drawn + np.swapaxes(drawn, -1, -2)) / 2
    if not (np.linalg.eigvalsh(like) > 0).all():
        return even
    least = np.linalg.eigvalsh(even).min(-1)[..., None, None]
    margin = np.linalg.eigvalsh(like).min()
    return np.asarray(even + np.eye(even.shape[-1]) * (margin - np.minimum(least, 0)))


def _distribution(like: Array, drawn: Array) -> Array:
    positive = np.abs(drawn) + 1e-6
    return np.asarray(positive / positive.sum(-1, keepdims=True))


def _unit_rows(like: Array, drawn: Array) -> Array:
    length = np.sqrt(np.square(drawn).sum(-1, keepdims=True))
    return drawn / np.where(length > 0, length, 1)


_RULES: tuple[tuple[Callable[[Array], bool], Callable[[Array, Array], Array]], ...] = (
    (lambda like: bool((like == np.round(like)).all()), _whole),
    (_is_ordered, _in_order),
    (_is_distribution, _distribution),
    (_has_unit_rows, _unit_rows),
    (_has_boxes, _boxes),
    (_is_square_symmetric, _symmetric),
)
