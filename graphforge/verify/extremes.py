"""Inputs from which a model picks as little and as much as can be, for models whose sizes depend on data.

Nothing picked, and everything picked, are what such a model's artifact gets wrong first: a mean over no rows, a top-k
of fewer than k.  Which inputs bring that about, only a run tells: the model runs on faint, strong and opposite ones,
and those with the smallest and the largest results are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.runners.arrays import Array
from graphforge.runners.inputs import as_dtype, random_feeds
from graphforge.runners.runner import Runner
from graphforge.runners.structure import codes_of
from graphforge.spec import ShapeSpec
from graphforge.verify.accepted import Accepted, first_accepted

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["extremes", "picks_by_data"]

# Operators whose results have sizes that depend on values, and the choice between two branches.
_PICKING = {"NonZero", "Compress", "NonMaxSuppression", "Unique", "If"}
# Larger inputs are expensive to run: for them the two ends alone.
_LARGE = 1 << 18


def picks_by_data(model: ir.Model) -> bool:
    """Whether sizes inside the model depend on data."""
    return any(node.op_type in _PICKING or "nms" in node.op_type.lower() for node in model.graph.all_nodes())


def extremes(
    reference: Runner,
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    run_once: Callable[[Runner, Mapping[str, Array]], Any],
    *,
    seed: int,
    finite: bool,
) -> list[tuple[str, Accepted]]:
    """Sets of the example's sizes with the smallest and the largest results, each with its label.

    Args:
        reference: what picks.
        shapes: the inputs.
        example: the given inputs.
        run_once: runs the reference.
        seed: of the generator.
        finite: whether sets with results that are not finite are left out.
    """
    found: list[tuple[int, Accepted]] = []
    for feeds in _candidates(shapes, example, seed):
        one = first_accepted(reference, [feeds], run_once)
        if isinstance(one, Accepted) and (one.is_finite or not finite):
            found.append((sum(array.size for array in one.expected[0][1][0].values()), one))
    if not found:
        return []
    least, most = min(found, key=lambda item: item[0]), max(found, key=lambda item: item[0])
    if least[0] == most[0]:  # results of one size whatever was picked inside
        return [("little", found[0][1]), ("much", found[1][1])] if len(found) > 1 else [("little", found[0][1])]
    return [("least", least[1]), ("most", most[1])]


def _candidates(shapes: ShapeSpec, example: Mapping[str, Array], seed: int) -> Iterator[dict[str, Array]]:
    drawn = random_feeds(shapes, shapes.example_sizes(), example, seed=seed + 3)
    for end in (0.0, 1.0):
        yield {tensor.name: _near(example[tensor.name], end, seed) for tensor in shapes.inputs}
    if sum(array.size for array in example.values()) > _LARGE:
        return
    for factor in (0.05, 20.0, -20.0):
        yield {name: _scaled(array, factor, example[name]) for name, array in drawn.items()}


def _near(like: Array, end: float, seed: int) -> Array:
    """Elements in the lowest third (0) of the example's range, or in the highest (1), as far apart as that allows."""
    if like.size == 0 or like.dtype.kind in "cOSU":
        return like
    codes = codes_of(like)
    if like.dtype.kind in "biu" or codes is not None:
        return np.full_like(like, like.min() if end == 0 else like.max())
    known = like.astype(np.float64)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return like
    low, high = float(known.min()), float(known.max())
    share = np.random.default_rng(seed).random(like.shape) / 3
    drawn = low + (high - low) * (share if end == 0 else 1 - share)
    return as_dtype(np.asarray(drawn), like.dtype.name)


def _scaled(array: Array, factor: float, like: Array) -> Array:
    if array.dtype.kind in "biucOSU" or codes_of(like) is not None:
        return array
    with np.errstate(over="ignore"):
        return as_dtype(array.astype(np.float64) * factor, array.dtype.name)
