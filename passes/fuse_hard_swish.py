"""Raise HardSigmoid and HardSwish from their parts.    x * clip(x + 3, 0, 6) / 6 ==> HardSwish(x)"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.transform import Match, NoMatch, Pass, Rewriter, Rule

__all__ = ["FuseHardSwish"]


@dataclass(frozen=True)
class FuseHardSwish(Pass):
    """First HardSigmoid, then HardSwish."""

    name: ClassVar[str] = "fuse-hard-swish"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Raise them in the graph and its bodies."""
        rewriter.apply(_PRODUCTS, graph)
        rewriter.apply(_SIGMOIDS, graph)
        rewriter.apply(_SWISH, graph)


def _in_runtime(m: Match) -> Match | NoMatch:
    """The match when ONNX Runtime has a kernel for the whole operator in this type: it has none for doubles."""
    if m.x.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return m.no(f"HardSigmoid is not computed in {m.x.dtype} everywhere")
    return m


class Sigmoid(Rule):
    """clip(x + 3, 0, 6) / 6"""

    def __init__(self, sixth: str) -> None:
        self.sixth = sixth

    def pattern(self, op: Any, x: Any) -> Any:
        return op.node(self.sixth, op.Clip(op.Add(x, 3), 0, 6), 6 if self.sixth == "Div" else 1 / 6)

    def check(self, m: Match) -> Match | NoMatch:
        return _in_runtime(m)

    def rewrite(self, op: Any, m: Match) -> Any:
        return op.HardSigmoid(m.x, alpha=1 / 6, beta=0.5)


class Product(Rule):
    """x * clip(x + 3, 0, 6) / 6, the product first"""

    def __init__(self, sixth: str) -> None:
        self.sixth = sixth

    def pattern(self, op: Any, x: Any) -> Any:
        product = op.Mul(x, op.Clip(op.Add(x, 3), 0, 6), _name="product")
        return op.node(self.sixth, product, 6 if self.sixth == "Div" else 1 / 6, _name="sixth")

    def check(self, m: Match) -> Match | NoMatch:
        return _in_runtime(m)

    def rewrite(self, op: Any, m: Match) -> Any:
        return op.HardSwish(m.x)


class Swish(Rule):
    """x * HardSigmoid(x)"""

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Mul(x, op.HardSigmoid(x))

    def check(self, m: Match) -> Match | NoMatch:
        alpha, beta = m.hardsigmoid.attributes.get("alpha"), m.hardsigmoid.attributes.get("beta")
        # The defaults are 0.2 and 0.5.
        slope = 0.2 if alpha is None else alpha.as_float()
        offset = 0.5 if beta is None else beta.as_float()
        if not math.isclose(slope, 1 / 6, rel_tol=1e-6) or offset != 0.5:
            return m.no("the HardSigmoid is another one")
        return m

    def rewrite(self, op: Any, m: Match) -> Any:
        return op.HardSwish(m.x)


_PRODUCTS = (Product("Div"), Product("Mul"))
_SIGMOIDS = (Sigmoid("Div"), Sigmoid("Mul"))
_SWISH = Swish()
