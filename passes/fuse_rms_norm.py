"""Raise RMSNormalization from its parts.    x / sqrt(mean(x ** 2) + e) * w ==> RMSNormalization(x, w)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.passes.fuse_layer_norm import is_ones, last_axes, normalised_shape
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule, dims_of, int_attribute, scalar_of

__all__ = ["FuseRmsNorm"]


@dataclass(frozen=True)
class FuseRmsNorm(Pass):
    """First the normalisation, then the factor after it."""

    name: ClassVar[str] = "fuse-rms-norm"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Raise them in the graph and its bodies."""
        rewriter.apply(_NORMALISED, graph)
        rewriter.apply(_AFTER, graph)


class Normalised(Rule):
    """x / r, x * reciprocal(r) or x * (1 / r), with r = sqrt(mean(x ** 2) + e)"""

    def __init__(self, square: str, form: str) -> None:
        self.square = square
        self.form = form

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"Rms{self.square}{self.form}"

    def pattern(self, op: Any, x: Any, epsilon: Any) -> Any:
        square = op.Pow(x, 2) if self.square == "Pow" else op.Mul(x, x, _name="square")
        root = op.Sqrt(op.Add(op.ReduceMean(square, ..., _name="mean"), epsilon))
        if self.form == "Div":
            return op.Div(x, root)
        return op.Mul(x, op.Reciprocal(root) if self.form == "Reciprocal" else op.Div(1, root))

    def check(self, m: Match) -> Match | NoMatch:
        axis = last_axes(m.mean, m.x)
        if isinstance(axis, str):
            return m.no(axis, m.mean)
        epsilon = scalar_of(m.epsilon)
        if epsilon is None:
            return m.no("epsilon is not a constant number")
        shape = normalised_shape(m.x, axis)
        if shape is None:
            return m.no("the normalised dims are not known")
        if m.x.dtype == ir.DataType.DOUBLE:
            return m.no("the epsilon of RMSNormalization is single precision, this one is a double")
        return m.having(axis=axis, shape=shape, number=float(epsilon))

    def rewrite(self, op: Any, m: Match) -> Any:
        ones = np.ones(m.shape, m.x.dtype.numpy())
        return op.RMSNormalization(m.x, ones, axis=m.axis, epsilon=m.number)


class ScaleAfter(Rule):
    """RMSNormalization(x, ones) * w"""

    def pattern(self, op: Any, x: Any, ones: Any, w: Any) -> Any:
        return op.Mul(op.RMSNormalization(x, ones, _name="norm"), w)

    def check(self, m: Match) -> Match | NoMatch:
        if not is_ones(m.ones):
            return m.no("the normalisation has a factor already")
        shape = normalised_shape(m.x, int_attribute(m.norm, "axis", -1))
        if shape is None or dims_of(m.w) != shape or m.w.dtype != m.x.dtype:
            return m.no("the factor has not the shape of what is normalised")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        attributes = {name: attribute.value for name, attribute in m.norm.attributes.items()}
        return op.RMSNormalization(m.x, m.w, **attributes)


_NORMALISED = tuple(Normalised(square, form) for square in ("Pow", "Mul") for form in ("Div", "Reciprocal", "One"))
_AFTER = ScaleAfter()
