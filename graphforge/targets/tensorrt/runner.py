"""Run a plan on this machine's GPU, through polygraphy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.targets.tensorrt.flavour import FLAVOURS, gpu_problem
from graphforge.targets.tensorrt.manifest import read_plan_manifest

__all__ = ["TensorRTRunner"]

_NUMPY_DTYPE = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


class TensorRTRunner:
    """Executes ``model.plan`` of a bundle folder.

    Raises:
        GraphForgeError: there is no usable GPU, or TensorRT refuses the plan (another GPU or version).
    """

    def __init__(self, folder: Path) -> None:
        problem = gpu_problem()
        if problem is not None:
            raise GraphForgeError(f"the plan cannot be run here: {problem}")
        manifest = read_plan_manifest(folder)
        flavour = FLAVOURS[manifest["flavour"]]
        trt = flavour.load()
        self.name = f"{flavour.title} {trt.__version__}"
        self._inputs = {entry["name"]: _NUMPY_DTYPE.get(entry["dtype"]) for entry in manifest["inputs"]}
        self._runner = _activated(
            folder / manifest["plan"]["file"], trt, is_rtx=flavour.name == "tensorrt_rtx", title=self.name
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; inputs that the plan narrows (float64) are converted."""
        ready = {}
        for name, array in feeds.items():
            ready[name] = np.ascontiguousarray(array, dtype=self._inputs.get(name))
        # Copied: polygraphy hands out views of buffers that the next run overwrites.
        return {name: np.array(array) for name, array in self._runner.infer(ready).items()}

    def close(self) -> None:
        """Free the engine and its device memory."""
        self._runner.deactivate()


def _engine(plan_file: Path, trt: Any) -> Any:
    """The engine of a plan, which may not bring code for the host.

    polygraphy's loader allows a plan to bring a library of its own, which is loaded into this process; the plans that
    we build have none, so one that has was made by somebody else.
    """
    from polygraphy.backend.trt.util import get_trt_logger
    from polygraphy.exception import PolygraphyException

    trt.init_libnvinfer_plugins(get_trt_logger(), "")
    runtime = trt.Runtime(get_trt_logger())
    runtime.engine_host_code_allowed = False
    engine = runtime.deserialize_cuda_engine(plan_file.read_bytes())
    if engine is None:
        raise PolygraphyException("the engine could not be deserialized")
    return engine


def _activated(plan_file: Path, trt: Any, *, is_rtx: bool, title: str) -> Any:
    from polygraphy import config
    from polygraphy.exception import PolygraphyException

    config.USE_TENSORRT_RTX = is_rtx  # read when polygraphy's backend is first imported, hence before the next line
    from polygraphy.backend.trt import TrtRunner

    runner = TrtRunner(lambda: _engine(plan_file, trt))
    try:
        runner.activate()
    except PolygraphyException as error:
        raise GraphForgeError(
            f"{title} does not load {plan_file.name} on this machine's GPU",
            *str(error).splitlines()[:2],
            "a plan runs only on the GPUs and with the version it was built for (plan.json says which)",
        ) from error
    return runner
