"""ONNX Runtime on any file that a compilation wrote: also one whose halves are another runtime's to compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphforge.passes.compute_where_kernels_are import runnable_file
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

__all__ = ["runner_of_file"]


def runner_of_file(path: Path | str, **settings: Any) -> OnnxRuntimeRunner:
    """A runner of the file; of a copy with casts, where ONNX Runtime has no kernels for its halves.

    Args:
        path: the file.
        settings: those of ``OnnxRuntimeRunner``.
    """
    return OnnxRuntimeRunner(runnable_file(Path(path)), **settings)
