"""Quantisation by pairs of QuantizeLinear and DequantizeLinear: scales, the edit, and what stays in float32."""

from __future__ import annotations

from graphforge.passes.qdq.quantise import QUANTISED, Quantised, Settings, quantise
from graphforge.passes.qdq.sensitivity import SENSITIVITY_FILES

__all__ = ["QUANTISED", "SENSITIVITY_FILES", "Quantised", "Settings", "quantise"]
