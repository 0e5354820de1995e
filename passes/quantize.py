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
from graphforge.passes.qdq.scales import METHODS, WEIGHTS
from graphforge.transform import Pass, Rewriter

__all__ = ["Quantize"]


@dataclass(frozen=True)
class Quantize(Pass):
    """Measured on the model's samples, see ``graphforge/ranges``.

    Attributes:
        activations: ``uint8`` with a zero of their own, or ``int8``, symmetric.
        method: ``minmax``, ``percentile`` (99.99 %), ``mse`` (the ends that lose least), ``entropy`` (Kullback and
            Leibler's), or ``best``: of the first three the one that the whole comes out best with.
        operators: types of the nodes to quantise; of LSTM, GRU and RNN the weights only.
        results: the results of convolutions are quantised, too.
        biases: biases are int32; else they stay float32.
        weights: ``int8``, ``portable`` (int8 with steps so large that the products of two weights with uint8 fit the 16
            bits that processors without VNNI add them in) or ``uint8`` (int8 around 128).
        correct: biases take back what rounding does to the mean of each channel.
        max_drop: what the score may lose: the user's metric, or per cent of the signal; None quantises everything.
        sensitivity: measure what each node costs alone even where the bound holds with all of them.
        pins: modules, nodes or values that stay in float32 whatever is measured; ``*`` stands for anything.
    """

    name: ClassVar[str] = "quantize"
    activations: str = "uint8"
    method: str = "best"
    operators: tuple[str, ...] = ("Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
    results: bool = True
    biases: bool = True
    weights: str = "portable"
    correct: bool = True
    max_drop: float | None = None
    sensitivity: bool = False
    pins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in ("best", *METHODS):
            raise UsageError(f"quantize: unknown method {self.method!r}", f"known: best, {', '.join(METHODS)}")
        if self.activations not in ("uint8", "int8"):
            raise UsageError(f"quantize: activations are uint8 or int8, not {self.activations!r}")
        if self.weights not in WEIGHTS:
            raise UsageError(f"quantize: weights are {', '.join(WEIGHTS)}, not {self.weights!r}")
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
                correct=self.correct,
                placement=Placement(results=self.results, biases=self.biases, weights=self.weights),
                max_drop=self.max_drop,
                sensitivity=self.sensitivity,
                pins=tuple(self.pins),
            ),
        )
