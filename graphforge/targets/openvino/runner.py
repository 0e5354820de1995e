"""Run a bundle's model in OpenVINO on this machine's processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.last_step import entering
from graphforge.runners.arrays import Array
from graphforge.runners.onnx_runtime import usable_cpus
from graphforge.runners.survey import is_doubted, try_first
from graphforge.targets.openvino.blame import places
from graphforge.targets.openvino.manifest import config_of, read_sidecar
from graphforge.targets.openvino.vendor import PACKAGE, core, load, told

__all__ = ["OpenVINOGraphRunner", "OpenVINORunner"]

# Element types that numpy has no name for: OpenVINO lends their memory as another type of the same width.
_WITHOUT_NUMPY = {"bf16": "bfloat16", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2"}


class OpenVINORunner:
    """Executes ``model.xml`` of a bundle folder, compiled on first use with what its openvino.json records.

    Args:
        folder: the bundle.
        threads: threads it computes with; None takes every usable CPU.

    Raises:
        GraphForgeError: the folder's files are damaged.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._sidecar = read_sidecar(folder)
        self._folder = folder
        self.file = folder / self._sidecar["model"]["file"]
        self.threads = usable_cpus() if threads is None else threads
        self.name = f"OpenVINO {str(load().__version__).partition('-')[0]}"
        self._request: Any = None
        self._compiled: Any = None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name; feeds that the model has no input for are left out.

        Raises:
            GraphForgeError: an input is missing, or OpenVINO failed; names the nodes that it speaks of.
        """
        request = self._ready()
        missing = [name for name in self._sidecar["inputs"] if name not in feeds]
        if missing:
            raise GraphForgeError(f"{self.name}: no data for input {', '.join(missing)}")
        entering(PACKAGE, f"run {self.file.name}", self.file)
        try:
            for port in self._compiled.inputs:
                request.set_tensor(port, _tensor(feeds[_own_name(port, self._sidecar["inputs"])], port))
            request.infer()
            found = [request.get_output_tensor(at) for at in range(len(self._compiled.outputs))]
            return dict(zip(self._sidecar["outputs"], map(_array, found), strict=True))
        except (RuntimeError, TypeError, ValueError) as error:
            raise self._failure("failed to run", error) from error

    def load(self) -> None:
        """Read and compile the model, which the first run does otherwise."""
        self._ready()

    def close(self) -> None:
        """Let go of the compiled model."""
        self._request = self._compiled = None

    def _ready(self) -> Any:
        if self._request is None:
            self._try_first()
            runtime = core()
            entering(PACKAGE, f"compile {self.file.name}", self.file)
            config = {
                **config_of(self._sidecar["hint"]),
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": "1",
                "ENABLE_CPU_PINNING": False,  # pinned threads of two processes would share a processor
            }
            try:
                self._compiled = runtime.compile_model(self._read(runtime), "CPU", config)
                self._request = self._compiled.create_infer_request()
            except RuntimeError as error:
                raise self._failure("cannot load the model", error) from error
        return self._request

    def _try_first(self) -> None:
        if is_doubted():
            what, folder = f"compile {self.file.name}", str(self._folder.absolute())
            try_first(PACKAGE, "graphforge.targets.openvino.trial", what, self.file, folder=folder)

    def _read(self, runtime: Any) -> Any:
        return runtime.read_model(str(self.file))

    def _failure(self, what: str, error: Exception) -> GraphForgeError:
        return GraphForgeError(
            f"{self.name} {what}: {told(error)}", *places(str(error), self.file.with_suffix(".onnx"))
        )


class OpenVINOGraphRunner(OpenVINORunner):
    """Executes an ONNX graph in memory as OpenVINO executes a bundle's model: a part of it, or with other outputs.

    Args:
        folder: the bundle, whose openvino.json says with what precision.
        model: the graph, with its weights in it.
    """

    def __init__(self, folder: Path, model: bytes) -> None:
        import onnx

        super().__init__(folder)
        graph = onnx.load_from_string(model).graph
        weights = {tensor.name for tensor in graph.initializer}
        self._model = model
        self._sidecar = {
            **self._sidecar,
            "inputs": [value.name for value in graph.input if value.name not in weights],
            "outputs": [value.name for value in graph.output],
        }

    def _try_first(self) -> None:
        """Parts of a file that was tried as a whole."""

    def _read(self, runtime: Any) -> Any:
        return runtime.read_model(self._model)


def _own_name(port: Any, known: list[str]) -> str:
    return next(name for name in known if name in port.names)


def _tensor(array: Array, port: Any) -> Any:
    """The array as a tensor of the port's element type.

    Raises:
        ValueError: it is of another element type.
    """
    vendor = load()
    kind = port.get_element_type()
    named = _WITHOUT_NUMPY.get(kind.to_string())
    expected = np.dtype(_dtype(named)) if named else np.dtype(kind.to_dtype())
    if array.dtype != expected:
        raise ValueError(f"input {port.any_name} is {expected}, and {array.dtype} was given")
    if array.size and not named:
        return vendor.Tensor(np.asarray(array, order="C"), shared_memory=True)
    tensor = vendor.Tensor(kind, list(array.shape))
    if array.size:
        target = tensor.data
        target[...] = np.asarray(array, order="C").view(target.dtype)
    return tensor


def _array(tensor: Any) -> Array:
    """A copy of its elements: the request's memory is used again by the next run."""
    named = _WITHOUT_NUMPY.get(tensor.element_type.to_string())
    shape = tuple(tensor.shape)
    if 0 in shape:
        return np.zeros(shape, dtype=_dtype(named) if named else tensor.element_type.to_dtype())
    array: Array = np.array(tensor.data)
    if named:
        array = array.view(_dtype(named))
    return array.reshape(shape)


def _dtype(name: str) -> Any:
    import ml_dtypes

    return getattr(ml_dtypes, name)
