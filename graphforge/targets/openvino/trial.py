"""In another process: OpenVINO reads and compiles a model that is from elsewhere, before it does so in the user's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphforge.runners.child import do_jobs

__all__ = ["serve"]


def serve() -> None:
    """Answer jobs until there are no more."""
    do_jobs(_read)


def _read(job: Mapping[str, Any]) -> Mapping[str, Any]:
    from graphforge.targets.openvino.runner import OpenVINORunner
    from graphforge.targets.openvino.vendor import core

    if "folder" in job:
        OpenVINORunner(Path(job["folder"]), threads=1).load()
    else:
        core().read_model(job["onnx"])
    return {"done": True}
