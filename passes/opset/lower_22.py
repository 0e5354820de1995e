"""What opset 22 brought, said in opset 21: bfloat16 in the operators that lacked it, which goes through float."""

from __future__ import annotations

from collections.abc import Mapping

from graphforge.passes.opset.step import Rule

__all__ = ["RULES"]

RULES: Mapping[str, Rule] = {}
