"""Substitutes that come with GraphForge, one file per package whose functions they stand in for."""

from __future__ import annotations

import importlib
import sys

__all__ = ["load_substitutes"]

_PACKAGES = ("torchvision", "mmengine", "mmcv", "mmdet", "mmpose", "transformers", "ultralytics")


def load_substitutes() -> None:
    """Declare the substitutes for every package that is in use; what was never imported cannot be called."""
    importlib.import_module("graphforge.frontend.substitutes.packed_sequences")  # of torch itself
    importlib.import_module("graphforge.frontend.substitutes.encoders")
    for package in _PACKAGES:
        if package in sys.modules:
            importlib.import_module(f"graphforge.frontend.substitutes.{package}")
    if "graphforge.frontend.openmmlab.batched" in sys.modules:  # ours, in use where a batch is decoded as one
        importlib.import_module("graphforge.frontend.substitutes.openmmlab_rows")
