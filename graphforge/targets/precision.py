"""Passes that write a lower precision into the graph; a target runs them when its graph is legal otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graphforge.errors import UsageError
from graphforge.targets.options import option
from graphforge.targets.target import TargetOptions

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["PRODUCTS", "REDUCED", "ReducedOptions", "precision_passes"]

# What int8 takes on every runtime; ONNX Runtime also takes weights of networks over time.
PRODUCTS = ("Conv", "Gemm", "MatMul")
# The reduced precisions that are passes, with their help.
REDUCED = {
    "fp16": "float16 where ranges and errors that are measured allow it, float32 elsewhere",
    "bf16": "the same with bfloat16",
    "int8": "sums of products in int8 by ranges that are measured, within max_drop where it is given",
}


@dataclass(frozen=True, slots=True)
class ReducedOptions:
    """What every target that has these passes is asked; a target adds its own, and its own words for ``precision``."""

    precision: str = option(
        "as_typed", values={"as_typed": "every tensor in the type that the model has", **REDUCED}, help="arithmetic"
    )
    keep_io: bool = option(True, help="inputs and outputs stay float32 where the rest is in half precision")
    ranges: Literal["best", "mse", "minmax", "percentile", "entropy"] = option(
        "best", help="how int8 makes scales of measured ranges; best tries mse, minmax and percentile on the whole"
    )
    sensitivity: bool = option(
        False,
        help="write what each layer costs when it alone is in int8, as a table and a picture, even where max_drop "
        "holds with all of them",
    )
    pins: tuple[str, ...] = option(
        (),
        form="module, node or value names, with commas",
        help="what stays in float32 in every reduced precision; * stands for anything",
    )
    max_drop: float | None = option(
        None,
        help="what a reduced precision may cost: of the metric that is given, without one per cent of the signal; what "
        "is most sensitive stays in float32 until it holds",
    )


def precision_passes(options: TargetOptions, runtime: str, **settings: Any) -> list[Pass]:
    """Nothing where everything keeps its type; else the pass, and casts around what the runtime has no kernels for.

    Args:
        options: their ``own`` are ``ReducedOptions``; where a target has others, the defaults hold.
        runtime: the name of its table of facts.
        settings: how the target wants its int8, see ``Quantize``.
    """
    from graphforge.passes.choose_precision import ChoosePrecision
    from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre
    from graphforge.passes.convert_bfloat16 import ConvertBfloat16
    from graphforge.passes.convert_float16 import ConvertFloat16
    from graphforge.passes.quantize import Quantize
    from graphforge.passes.sink_dequantize import SinkDequantize

    own = options.own if isinstance(options.own, ReducedOptions) else ReducedOptions()
    if own.pins and options.precision not in (*REDUCED, "auto"):
        raise UsageError(
            f"pins keep {', '.join(own.pins)} in float32 in a reduced precision, and {options.precision} is none",
            f"leave pins out, or ask for one of {', '.join((*REDUCED, 'auto'))}",
        )
    if options.precision == "fp16":
        half: Pass = ConvertFloat16(keep_io=own.keep_io, pins=own.pins, max_drop=own.max_drop)
        return [half, ComputeWhereKernelsAre(runtime)]
    if options.precision == "bf16":
        half = ConvertBfloat16(keep_io=own.keep_io, pins=own.pins, max_drop=own.max_drop)
        return [half, ComputeWhereKernelsAre(runtime)]
    if options.precision == "auto":
        bound: dict[str, Any] = {} if own.max_drop is None else {"max_drop": own.max_drop}
        chooser = ChoosePrecision(keep_io=own.keep_io, method=own.ranges, pins=own.pins, **settings, **bound)
        return [chooser, SinkDequantize(), ComputeWhereKernelsAre(runtime)]
    if options.precision == "int8":
        return [
            Quantize(max_drop=own.max_drop, method=own.ranges, sensitivity=own.sensitivity, pins=own.pins, **settings),
            SinkDequantize(),
        ]
    return []
