"""Passes that write a lower precision into the graph; a target runs them when its graph is legal otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphforge.targets.target import TargetOptions

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["precision_passes"]


def precision_passes(options: TargetOptions, runtime: str) -> list[Pass]:
    """Nothing where everything keeps its type; else the pass, and casts around what the runtime has no kernels for.

    Args:
        options: ``precision`` and, where the target has it, ``keep_io``.
        runtime: the name of its table of facts.
    """
    from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
    from graphforge.passes.convert_bfloat16 import ConvertBfloat16
    from graphforge.passes.convert_float16 import ConvertFloat16

    keep_io = bool(getattr(options.own, "keep_io", True))
    if options.precision == "fp16":
        return [ConvertFloat16(keep_io=keep_io), ComputeWhereKernelsAre(runtime)]
    if options.precision == "bf16":
        return [ConvertBfloat16(keep_io=keep_io), ComputeWhereKernelsAre(runtime)]
    return []
