"""Compute in float16 what keeps its digits there.    Conv(x, w)  ==>  Cast(Conv(Cast(x to f16), w: f16) to f32)

What stays in float32 is decided by running the graph: values that do not fit, nodes whose own rounding is too much, and
what a comparison or a choice hangs on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.passes.half import convert_to_half
from graphforge.transform import Pass, Rewriter

__all__ = ["ConvertFloat16"]


@dataclass(frozen=True)
class ConvertFloat16(Pass):
    """Measured on the model's samples, see ``graphforge/ranges``.

    Attributes:
        keep_io: inputs and outputs of the model stay float32.
        headroom: how many times larger than on the samples values may become before they do not fit.
        pins: modules, nodes or values that stay in float32 whatever is measured; ``*`` stands for anything.
        max_drop: what the whole may lose of the metric, without one per cent of the signal; more stays in float32 until
            it holds.
    """

    name: ClassVar[str] = "convert-float16"
    keep_io: bool = True
    headroom: float = 2.0
    pins: tuple[str, ...] = ()
    max_drop: float | None = None

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Run the graph a few times, then edit it once."""
        convert_to_half(
            rewriter,
            ir.DataType.FLOAT16,
            keep_io=self.keep_io,
            headroom=self.headroom,
            pins=self.pins,
            max_drop=self.max_drop,
        )
