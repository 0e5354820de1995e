"""The TensorRT target: classic and for RTX behind one backend.  Importing it imports no vendor."""

from __future__ import annotations

from graphforge.targets.tensorrt.target import TensorRTTarget

__all__ = ["TensorRTTarget"]
