"""Half precision: what of a graph may be computed in it (``forms``, ``decide``), what it costs (``estimate``), and the
edit itself (``place``)."""

from __future__ import annotations

from graphforge.passes.half.convert import HALF_IO, HALVED, convert_to_half

__all__ = ["HALF_IO", "HALVED", "convert_to_half"]
