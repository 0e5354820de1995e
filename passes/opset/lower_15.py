"""What opset 15 brought, said in opset 14."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _batch_normalization(step: Step) -> Values | None:
    """Before 15, scale and bias had the type of the input."""
    kind = step.dtype()
    for position in (1, 2):
        value = step.need(position)
        if value.dtype != kind:
            step.rewriter.set_input(step.node, position, step.op.Cast(value, to=kind.value))
    return None


def _optional(step: Step) -> Values | None:
    step.fail("optional values exist from opset 15 on", "hand in tensors instead")


def _shape(step: Step) -> Values | None:
    """Some of the dims: all of them, cut."""
    if "start" not in step.node.attributes and "end" not in step.node.attributes:
        return None
    start = step.int_of("start", 0)
    end = step.int_of("end", np.iinfo(np.int64).max)
    whole = step.op.Shape(step.need(0))
    if start == 0 and "end" not in step.node.attributes:
        return [whole]
    return [step.op.Slice(whole, [start], [end], [0])]


STEPS_DOWN: Mapping[str, StepDown] = {
    "BatchNormalization": _batch_normalization,
    "CastLike": cast_like,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _optional,
    "Shape": _shape,
}
