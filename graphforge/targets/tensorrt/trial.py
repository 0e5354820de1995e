"""In another process: TensorRT loads a plan, or parses a file, from elsewhere, before it does so in the user's."""

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
    from graphforge.targets.tensorrt.flavour import FLAVOURS
    from graphforge.targets.tensorrt.log import vendor_logger
    from graphforge.targets.tensorrt.runner import TensorRTRunner

    if "folder" in job:
        TensorRTRunner(Path(job["folder"])).close()
        return {"done": True}
    trt = FLAVOURS[job["flavour"]].load()
    builder = trt.Builder(vendor_logger(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    trt.OnnxParser(network, vendor_logger(trt)).parse_from_file(job["onnx"])
    return {"done": True}
