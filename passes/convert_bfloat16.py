"""Compute in bfloat16 what keeps its digits there.    MatMul(x, w)  ==>  Cast(MatMul(Cast(x to bf16), w: bf16) to f32)

As convert-float16; every magnitude fits, so that rounding alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.passes.half import convert_to_half
from graphforge.transform import Pass, Rewriter

__all__ = ["ConvertBfloat16"]


@dataclass(frozen=True)
class ConvertBfloat16(Pass):
    """Measured on the model's samples, see ``graphforge/ranges``.

    Attributes:
        keep_io: inputs and outputs of the model stay float32.
        pins: modules, nodes or values that stay in float32 whatever is measured; ``*`` stands for anything.
        max_drop: what the whole may lose of the metric, without one per cent of the signal; more stays in float32 until
            it holds.
    """

    name: ClassVar[str] = "convert-bfloat16"
    keep_io: bool = True
    pins: tuple[str, ...] = ()
    max_drop: float | None = None

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Run the graph a few times, then edit it once."""
        convert_to_half(
            rewriter,
            ir.DataType.BFLOAT16,
            keep_io=self.keep_io,
            headroom=1.0,
            pins=self.pins,
            max_drop=self.max_drop,
        )
