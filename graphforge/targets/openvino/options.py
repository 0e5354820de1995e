"""What a user can ask of the OpenVINO target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphforge.errors import UsageError
from graphforge.ir import HOME_OPSET
from graphforge.targets.options import option
from graphforge.targets.precision import REDUCED, ReducedOptions
from graphforge.targets.tables import facts_of
from graphforge.targets.target import TargetOptions

__all__ = ["RUNTIME", "OpenVINOOptions", "opset_for"]

# The table of what it takes.
RUNTIME = "openvino"
# As for ONNX files: what is newer saves nothing.
DEFAULT_OPSET = 23
LOWEST_OPSET = 11


@dataclass(frozen=True, slots=True)
class OpenVINOOptions(ReducedOptions):
    """What is asked; the help of each field stands beside it."""

    precision: str = option(
        "as_typed",
        values={
            "as_typed": "every tensor in the type that the model has, computed in float32 unless option hint says",
            **REDUCED,
        },
        help="arithmetic of the model",
    )
    hint: Literal["f32", "bf16", "f16"] = option(
        "f32",
        help="what float32 may be computed in, as a hint that processors without it leave aside; OpenVINO's own "
        "default is bf16 on some processors",
    )
    fp16_weights: bool = option(
        False, help="weights stored in float16, half the size, and computed in float32: OpenVINO's compression"
    )


def opset_for(options: TargetOptions) -> int:
    """The opset that OpenVINO reads the graph in.

    Raises:
        UsageError: it was asked for one that cannot be.
    """
    facts = facts_of(RUNTIME)
    newest = min(facts.newest_opset, HOME_OPSET)
    if options.opset is None:
        return min(DEFAULT_OPSET, newest)
    if LOWEST_OPSET <= options.opset <= newest:
        return options.opset
    raise UsageError(f"opset {options.opset} was asked for, but {facts.called} is given {LOWEST_OPSET} to {newest}")
