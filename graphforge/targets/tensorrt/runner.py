"""Run a plan on this machine's GPU, through polygraphy; without one, the ONNX file beside it in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runners.survey import is_doubted, try_first
from graphforge.targets.tensorrt.flavour import FLAVOURS, gpu_problem
from graphforge.targets.tensorrt.log import collect_log, in_words, vendor_logger
from graphforge.targets.tensorrt.manifest import read_plan_manifest

if TYPE_CHECKING:
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

__all__ = ["TensorRTRunner", "onnx_of_plan", "profile_for"]

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
        if is_doubted():
            plan, told = folder / manifest["plan"]["file"], str(folder.absolute())
            trial = "graphforge.targets.tensorrt.trial"
            try_first(flavour.name, trial, f"load {plan.name}", plan, folder=told, stays=False)
        trt = flavour.load()
        self.name = f"{flavour.title} {trt.__version__}"
        self._profiles = manifest.get("profiles", [])
        self._profile = 0
        self._inputs = {entry["name"]: _NUMPY_DTYPE.get(entry["dtype"]) for entry in manifest["inputs"]}
        self._runner = _activated(
            folder / manifest["plan"]["file"], trt, is_rtx=flavour.name == "tensorrt_rtx", title=self.name
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; inputs that the plan narrows (float64) are converted."""
        ready = {}
        for name, array in feeds.items():
            ready[name] = np.ascontiguousarray(array, dtype=self._inputs.get(name))
        self._choose_profile(ready)
        # Copied: polygraphy hands out views of buffers that the next run overwrites.
        return {name: np.array(array) for name, array in self._runner.infer(ready).items()}

    def _choose_profile(self, feeds: Mapping[str, np.ndarray]) -> None:
        """The first profile that has these sizes; where none has, the plan itself says so."""
        chosen = profile_for(self._profiles, {name: array.shape for name, array in feeds.items()})
        if chosen is not None and chosen != self._profile:
            self._runner.set_profile(chosen)
            self._profile = chosen

    def close(self) -> None:
        """Free the engine and its device memory."""
        self._runner.deactivate()


def profile_for(profiles: Sequence[Mapping[str, Any]], shapes: Mapping[str, Sequence[int]]) -> int | None:
    """The position of the first profile, as plan.json has them, that holds these shapes; None where none does."""
    for position, profile in enumerate(profiles):
        if all(
            len(shapes.get(name, ())) == len(ends["min"])
            and all(low <= size <= high for low, size, high in zip(ends["min"], shapes[name], ends["max"], strict=True))
            for name, ends in profile.items()
        ):
            return position
    return None


def onnx_of_plan(onnx_file: Path) -> OnnxRuntimeRunner:
    """ONNX Runtime on the file that a plan was built from.

    Where it has no kernels for halves that TensorRT has, a copy runs, with casts around those nodes.
    """
    from graphforge.passes.compute_where_kernels_are import runnable_file
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    model = runnable_file(onnx_file)
    if model == onnx_file:
        return OnnxRuntimeRunner(onnx_file, name="ONNX Runtime on the plan's model.onnx")
    return OnnxRuntimeRunner(model, name="ONNX Runtime on a copy of the plan's model.onnx, halves cast")


def _engine(plan_file: Path, trt: Any) -> Any:
    """The engine of a plan, which may not bring code for the host.

    polygraphy's loader allows a plan to bring a library of its own, which is loaded into this process; the plans that
    we build have none, so one that has was made by somebody else.
    """
    from polygraphy.exception import PolygraphyException

    logger = vendor_logger(trt)
    with collect_log() as log:
        trt.init_libnvinfer_plugins(logger, "")
        runtime = trt.Runtime(logger)
        runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(plan_file.read_bytes())
    if engine is None:
        said = log.errors[0] if log.errors else "the engine could not be deserialized"
        raise PolygraphyException(in_words(said))
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
