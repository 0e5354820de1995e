"""The MagicMind target: a bundle that a machine with a Cambricon MLU builds and runs.  Imports no vendor."""

from __future__ import annotations

from graphforge.targets.magicmind.target import MagicMindTarget

__all__ = ["MagicMindTarget"]
