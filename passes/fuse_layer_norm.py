"""Raise LayerNormalization from its parts.    (x - mean) / sqrt(var + e) * w + b ==> LayerNormalization(x, w, b)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph, Node, Value, constant_of
from graphforge.transform import (
    Match,
    NoMatch,
    Pass,
    Rewriter,
    Rule,
    dims_of,
    int_attribute,
    rank_of,
    scalar_of,
)

__all__ = ["FuseLayerNorm"]


@dataclass(frozen=True)
class FuseLayerNorm(Pass):
    """First the normalisation, then the factor and the summand after it."""

    name: ClassVar[str] = "fuse-layer-norm"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Raise them in the graph and its bodies."""
        rewriter.apply(_NORMALISED, graph)
        rewriter.apply(_AFTER, graph)


def last_axes(reduce: Node, x: Value) -> int | str:
    """The first of the axes that a Reduce operator reduces, when they are the last ones and are kept."""
    rank = rank_of(x)
    axes = constant_of(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
    if rank is None or axes is None or not axes.size:
        return "the axes of the mean are not constant, or the rank is unknown"
    if not int_attribute(reduce, "keepdims", 1):
        return "the mean does not keep its axes"
    places = sorted(int(axis) % rank for axis in axes)
    if places != list(range(rank - len(places), rank)):
        return "the mean is not over the last axes"
    return places[0] - rank


def normalised_shape(x: Value, axis: int) -> tuple[int, ...] | None:
    """The dims from ``axis`` on when they are numbers."""
    dims = (dims_of(x) or ())[axis:]
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    return sizes if sizes and len(sizes) == len(dims) else None


class Normalised(Rule):
    """d / sqrt(mean(d ** 2) + e), with d = x - mean(x); under the root d may be centred once more."""

    def __init__(self, square: str, *, twice: bool = False) -> None:
        self.square = square
        self.twice = twice

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"Normalised{self.square}{'Twice' if self.twice else ''}"

    def pattern(self, op: Any, x: Any, epsilon: Any) -> Any:
        centred = op.Sub(x, op.ReduceMean(x, ..., _name="mean"), _name="centred")
        distance = op.Sub(centred, op.ReduceMean(centred, ..., _name="rest")) if self.twice else centred
        square = op.Pow(distance, 2) if self.square == "Pow" else op.Mul(distance, distance)
        variance = op.ReduceMean(square, ..., _name="variance")
        return op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))

    def check(self, m: Match) -> Match | NoMatch:
        axis, other = last_axes(m.mean, m.x), last_axes(m.variance, m.x)
        if isinstance(axis, str):
            return m.no(axis, m.mean)
        if axis != other:
            return m.no("mean and variance are over different axes", m.variance)
        if self.twice and last_axes(m.rest, m.x) != axis:
            return m.no("the two means are over different axes", m.rest)
        epsilon = scalar_of(m.epsilon)
        if epsilon is None:
            return m.no("epsilon is not a constant number")
        shape = normalised_shape(m.x, axis)
        if shape is None:
            return m.no("the normalised dims are not known")
        if m.x.dtype == ir.DataType.DOUBLE:
            return m.no("the epsilon of LayerNormalization is single precision, this one is a double")
        return m.having(axis=axis, shape=shape, number=float(epsilon))

    def rewrite(self, op: Any, m: Match) -> Any:
        ones = np.ones(m.shape, m.x.dtype.numpy())
        return op.LayerNormalization(m.x, ones, axis=m.axis, epsilon=m.number)


def _parameter_fits(value: Value, normalisation: Node) -> bool:
    source = normalisation.inputs[0]
    assert source is not None
    shape = normalised_shape(source, int_attribute(normalisation, "axis", -1))
    return shape is not None and dims_of(value) == shape and value.dtype == source.dtype


def is_ones(value: Value | None) -> bool:
    """Whether a constant holds ones only."""
    array = constant_of(value, limit=1 << 16)
    return array is not None and bool((array == 1).all())


class ScaleAfter(Rule):
    """LayerNormalization(x, ones) * w"""

    def pattern(self, op: Any, x: Any, ones: Any, w: Any) -> Any:
        return op.Mul(op.LayerNormalization(x, ones, _name="norm"), w)

    def check(self, m: Match) -> Match | NoMatch:
        if not is_ones(m.ones):
            return m.no("the normalisation has a factor already")
        if not _parameter_fits(m.w, m.norm):
            return m.no("the factor has not the shape of what is normalised")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        attributes = {name: attribute.value for name, attribute in m.norm.attributes.items()}
        return op.LayerNormalization(m.x, m.w, **attributes)


class BiasAfter(Rule):
    """LayerNormalization(x, w) + b"""

    def pattern(self, op: Any, x: Any, w: Any, b: Any) -> Any:
        return op.Add(op.LayerNormalization(x, w, _name="norm"), b)

    def check(self, m: Match) -> Match | NoMatch:
        if not _parameter_fits(m.b, m.norm):
            return m.no("the summand has not the shape of what is normalised")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        attributes = {name: attribute.value for name, attribute in m.norm.attributes.items()}
        return op.LayerNormalization(m.x, m.w, m.b, **attributes)


_NORMALISED = (Normalised("Pow"), Normalised("Mul"), Normalised("Mul", twice=True))
_AFTER = (ScaleAfter(), BiasAfter())
