"""Stand-in for tests, made from public samples; NOTHING run with it was run on an MLU."""

from __future__ import annotations

from .._network import Parser  # noqa: TID252

__all__ = ["Parser"]
