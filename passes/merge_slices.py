"""Merge slices that follow each other.    slice(slice(x, axis=1), axis=2) ==> slice(x, axes=[1, 2])"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from graphforge.ir import Graph, Node, constant_of
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule, dims_of, rank_of

__all__ = ["MergeSlices"]

# Axis -> (start, end, step).
Ranges: TypeAlias = dict[int, tuple[int, int, int]]


@dataclass(frozen=True)
class MergeSlices(Pass):
    """Merge pairs until none is left."""

    name: ClassVar[str] = "merge-slices"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge them in the graph and its bodies."""
        rewriter.apply(_RULE, graph)


class SliceSlice(Rule):
    """Two slices in a row, with constant bounds."""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Slice(op.Slice(x, ..., _name="first"), ..., _name="second")

    def check(self, m: Match) -> Match | NoMatch:
        first, second = _ranges(m.first), _ranges(m.second)
        if first is None or second is None:
            return m.no("the bounds are not constant, or the rank is unknown")
        merged = dict(first)
        for axis, bounds in second.items():
            if axis not in merged:
                merged[axis] = bounds
                continue
            both = _compose(merged[axis], bounds)
            if both is None:
                return m.no("bounds of the same axis that count from the end, or go in steps")
            merged[axis] = both
        return m.having(ranges=merged)

    def rewrite(self, op: Any, m: Match) -> Any:
        axes = sorted(m.ranges)
        starts, ends, steps = zip(*(m.ranges[axis] for axis in axes), strict=True)
        return op.Slice(m.x, list(starts), list(ends), axes, None if set(steps) == {1} else list(steps))


def _ranges(node: Node) -> Ranges | None:
    starts, ends = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    steps = constant_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if starts is None or ends is None:
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None and axes is None:
        return None
    if len(node.inputs) > 4 and node.inputs[4] is not None and steps is None:
        return None
    places = range(len(starts)) if axes is None else [int(axis) for axis in axes]
    if any(axis < 0 for axis in places):
        rank = rank_of(node.inputs[0])
        if rank is None:
            return None
        places = [axis % rank for axis in places]
    dims = dims_of(node.inputs[0])
    ranges: Ranges = {}
    for place, axis in enumerate(places):
        start, end, step = int(starts[place]), int(ends[place]), 1 if steps is None else int(steps[place])
        size = None if dims is None else dims[axis]
        if isinstance(size, int) and step > 0:
            # Count from the start, so that bounds compose.
            start = max(start + size, 0) if start < 0 else start
            end = max(end + size, 0) if end < 0 else end
        ranges[axis] = (start, end, step)
    return ranges


def _compose(first: tuple[int, int, int], second: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """The range that takes ``second`` out of ``first``; None when it depends on the size."""
    if first[2] != 1 or second[2] < 1 or min(*first[:2], *second[:2]) < 0:
        return None
    start = first[0] + second[0]
    end = min(first[1], first[0] + second[1])
    return start, max(start, end), second[2]


_RULE = SliceSlice()
