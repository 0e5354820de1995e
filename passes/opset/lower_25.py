"""What opset 25 brought, said in opset 24: int2 and uint2, and windows in Attention (by its definition)."""

from __future__ import annotations

from collections.abc import Mapping

from graphforge.passes.opset.casts import cast_like
from graphforge.passes.opset.step import Rule

__all__ = ["RULES"]

RULES: Mapping[str, Rule] = {"CastLike": cast_like}
