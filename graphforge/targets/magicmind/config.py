"""build_config.json: what MagicMind's BuilderConfig is told, with the documented keys only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from graphforge.targets.magicmind.operators import FRAGILE
from graphforge.targets.magicmind.options import MagicMindOptions
from graphforge.targets.magicmind.pixels import Fed

__all__ = ["build_config", "range_of"]


def build_config(
    options: MagicMindOptions,
    shapes: ShapeSpec,
    *,
    operators: Collection[str] = (),
    fed: Mapping[int, Fed] | None = None,
) -> dict[str, Any]:
    """The configuration for these options, this promise of shapes and a model of these operators, as data for JSON.

    Args:
        options: what is asked.
        shapes: what is promised.
        operators: those of the model.
        fed: inputs that are fed otherwise than model.onnx takes them, by their position.

    Raises:
        GraphForgeError: a promised size is below 1, which MagicMind's ``dim_range`` cannot say.
    """
    mutable = bool(shapes.dims)
    precision: dict[str, Any] = {"precision_mode": options.precision}
    if options.is_quantized:
        precision["weight_quant_granularity"] = options.weight_quant_granularity
        precision["activation_quant_algo"] = options.activation_quant_algo
    # ONNX always carries 64-bit shape arithmetic, so type64to32_conversion is always on.
    optimisation: dict[str, Any] = {"type64to32_conversion": True}
    if options.conv_scale_fold:
        optimisation["conv_scale_fold"] = True
    config: dict[str, Any] = {
        "archs": [{arch.name: list(arch.clusters)} if arch.clusters else arch.name for arch in options.archs],
        "graph_shape_mutable": mutable,
        "precision_config": precision,
        "opt_config": optimisation,
        "computation_preference": options.computation_preference,
    }
    if mutable:
        config["dim_range"] = _dim_range(shapes)
    if not FRAGILE.isdisjoint(operators):
        # As Cambricon's samples with loops, recurrence and random numbers (tacotron2, wenet) have it.
        config["debug_config"] = {"fusion_enable": False}
    for index, one in (fed or {}).items():
        for key, value in one.config().items():
            config.setdefault(key, {})[str(index)] = value
    if options.custom_ranges is not None:
        low, high = options.custom_ranges
        config["custom_ranges"] = {"": {"max": [high], "min": [low]}}  # "" stands for every value
    if options.cross_compile_toolchain_path:
        config["cross_compile_toolchain_path"] = options.cross_compile_toolchain_path
    return config


def range_of(tensor: TensorSpec) -> tuple[list[int], list[int]]:
    """Smallest and largest shape of an input: sizes that are promised, in the order of the ONNX file's axes."""
    low, high = list(tensor.shape), list(tensor.shape)
    for axis, dim in tensor.dims.items():
        low[axis], high[axis] = dim.sizes(limit=1)[0], _largest(dim)
    return low, high


def _largest(dim: DimRange) -> int:
    return dim.high - dim.high % dim.step


def _dim_range(shapes: ShapeSpec) -> dict[str, dict[str, list[int]]]:
    """Every input with its range, static ones too: nothing is left to a default.  Scalars have no dims to range."""
    ranges = {}
    for index, tensor in enumerate(shapes.inputs):
        if not tensor.shape:
            continue
        low, high = range_of(tensor)
        if min(low) < 1:
            raise GraphForgeError(
                f"input {tensor.name!r}: MagicMind's dim_range starts at 1, but {low} is promised",
                "raise the lower end of the range to 1",
            )
        ranges[str(index)] = {"min": low, "max": high}
    return ranges
