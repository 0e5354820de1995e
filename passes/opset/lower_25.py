"""What opset 25 brought, said in opset 24: int2 and uint2, and windows in Attention (by its definition)."""

from __future__ import annotations

from collections.abc import Mapping

from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.step import StepDown

__all__ = ["STEPS_DOWN"]

STEPS_DOWN: Mapping[str, StepDown] = {"CastLike": cast_like}
