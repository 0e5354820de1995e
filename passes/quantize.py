"""Quantise sums of products to int8.    Conv(x, w, b)  ==>  DQ(Q(Conv(DQ(Q(x)), DQ(w: i8), DQ(b: i32))))

Scales come from the ranges of the values on the model's samples; the weights have a scale for each channel.  With a
bound on what may be lost, the most sensitive nodes stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.errors import UsageError
from graphforge.ir import Graph
from graphforge.passes.qdq import Settings, quantise
from graphforge.passes.qdq.insert import Placement
from graphforge.passes.qdq.scales import METHODS
from graphforge.transform import Pass, Rewriter

__all__ = ["Quantize"]


@dataclass(frozen=True)
class Quantize(Pass):
    """Measured on the model's samples, see ``graphforge/ranges``.

    Attributes:
        activations: ``uint8`` with a zero of their own, or ``int8``, symmetric.
        method: ``minmax``, ``percentile`` (99.99 %) or ``mse`` (the ends that lose least).
        operators: types of the nodes to quantise.
        results: the results of convolutions are quantised, too.
        biases: biases are int32; else they stay float32.
        weights: ``int8``, ``int7`` (int8 that uses half of its range: products with uint8 then fit the 16 bits that
            processors without VNNI add pairs of them in) or ``uint8`` (the same numbers around 128).
        max_drop: what the score may lose: the user's metric, or per cent of the signal; None quantises everything.
    """

    name: ClassVar[str] = "quantize"
    activations: str = "uint8"
    method: str = "mse"
    operators: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    results: bool = True
    biases: bool = True
    weights: str = "int7"
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"quantize: unknown method {self.method!r}", f"known: {', '.join(METHODS)}")
        if self.activations not in ("uint8", "int8"):
            raise UsageError(f"quantize: activations are uint8 or int8, not {self.activations!r}")
        if self.weights not in ("int8", "int7", "uint8"):
            raise UsageError(f"quantize: weights are int8, int7 or uint8, not {self.weights!r}")
        if self.max_drop is not None and self.max_drop < 0:
            raise UsageError(f"quantize: max_drop is at least 0, got {self.max_drop}")

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Run the graph once for its ranges, then as often as the bound asks, and edit it once."""
        quantise(
            rewriter,
            Settings(
                signed=self.activations == "int8",
                method=self.method,
                operators=tuple(self.operators),
                placement=Placement(results=self.results, biases=self.biases, weights=self.weights),
                max_drop=self.max_drop,
            ),
        )
