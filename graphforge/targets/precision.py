"""Passes that write a lower precision into the graph; a target runs them when its graph is legal otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphforge.targets.target import TargetOptions

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["REDUCED", "precision_passes"]

# The reduced precisions that are passes, with their help.
REDUCED = {
    "fp16": "float16 where ranges and errors that are measured allow it, float32 elsewhere",
    "bf16": "the same with bfloat16",
    "int8": "sums of products in int8 by ranges that are measured, within max_drop where it is given",
}


def precision_passes(options: TargetOptions, runtime: str, **settings: Any) -> list[Pass]:
    """Nothing where everything keeps its type; else the pass, and casts around what the runtime has no kernels for.

    Args:
        options: ``precision`` and, where the target has them, ``keep_io``, ``max_drop`` and ``ranges``.
        runtime: the name of its table of facts.
        settings: how the target wants its int8, see ``Quantize``.
    """
    from graphforge.passes.choose_precision import ChoosePrecision
    from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
    from graphforge.passes.convert_bfloat16 import ConvertBfloat16
    from graphforge.passes.convert_float16 import ConvertFloat16
    from graphforge.passes.quantize import Quantize
    from graphforge.passes.sink_dequantize import SinkDequantize

    own: Mapping[str, Any] = {name: getattr(options.own, name, None) for name in ("keep_io", "max_drop", "ranges")}
    keep_io = own["keep_io"] is not False
    if options.precision == "fp16":
        return [ConvertFloat16(keep_io=keep_io), ComputeWhereKernelsAre(runtime)]
    if options.precision == "bf16":
        return [ConvertBfloat16(keep_io=keep_io), ComputeWhereKernelsAre(runtime)]
    if options.precision == "auto":
        bound = {} if own["max_drop"] is None else {"max_drop": own["max_drop"]}
        chooser = ChoosePrecision(keep_io=keep_io, method=own["ranges"] or "mse", **settings, **bound)
        return [chooser, SinkDequantize(), ComputeWhereKernelsAre(runtime)]
    if options.precision == "int8":
        return [Quantize(max_drop=own["max_drop"], method=own["ranges"] or "mse", **settings), SinkDequantize()]
    return []
