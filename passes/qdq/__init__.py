"""Quantisation by pairs of QuantizeLinear and DequantizeLinear: scales, the edit, and what stays in float32."""

from __future__ import annotations

from graphforge.passes.qdq.quantise import QUANTISED, Quantised, Settings, quantise

__all__ = ["QUANTISED", "Quantised", "Settings", "quantise"]
