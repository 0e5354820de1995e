"""Stand-in: build, write, load and run a model, in ONNX Runtime.  Nothing was run on an MLU."""

# ruff: noqa: B905 - the stand-in runs on Python 3.7 too, whose zip has no strict
from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from . import _log
from ._config import BuilderConfig
from ._device import STATE, Device, Queue, RuntimeTensorLike
from ._network import Network, wide_problem
from ._types import DataType, Dims, Status, answer, numpy_dtype

_MAGIC = b"MAGICMIND STAND-IN, NOT FOR AN MLU\n"
_NARROWED = {DataType.INT64: DataType.INT32, DataType.FLOAT64: DataType.FLOAT32}


class Builder:
    """Makes a Model out of a Network."""

    __slots__ = ()

    def build_model(self, name: str, network: Network, config: BuilderConfig | None = None) -> Model | None:
        """The model; None when it cannot be built, the reason in the log."""
        if not isinstance(name, str) or not isinstance(network, Network):
            raise TypeError("build_model takes a name and a Network")
        if config is not None and not isinstance(config, BuilderConfig):
            raise TypeError(f"build_model takes a BuilderConfig, got {type(config).__name__}")
        used = BuilderConfig() if config is None else config
        problem = _build_problem(network, used)
        _log.record("build_model", ok=problem is None, problem=problem)
        if problem is not None:
            _log.complain(f"build_model: {problem}")
            return None
        return _made(name, network, used)


def _build_problem(network: Network, config: BuilderConfig) -> str | None:
    if network.model is None:
        return "the network is empty"
    converts = config.get("opt_config", "type64to32_conversion", default=False)
    problem = wide_problem(network.model, converts=converts) or _shape_problem(network, config)
    problem = problem or _prologue_problem(network, config)
    if problem is not None:
        return problem
    if "tp_322" in config.mlu_archs and not config.get("cross_compile_toolchain_path"):
        return "tp_322 needs cross_compile_toolchain_path"
    precision = config.get("precision_config", "precision_mode", default="force_float32")
    if precision.startswith("qint") and config.get("custom_ranges") is None:
        if config.calibrated_with is None:
            return f"{precision} without calibration"
        fold = ("opt_config", "conv_scale_fold")
        before = config.calibrated_with.get(fold[0], {}).get(fold[1], False)
        if before != config.get(*fold, default=False):
            return "conv_scale_fold was changed after calibration"
    return None


def _shape_problem(network: Network, config: BuilderConfig) -> str | None:
    mutable = config.get("graph_shape_mutable", default=True)
    ranges = config.get("dim_range", default={})
    if not mutable and ranges:
        return "dim_range on an immutable graph"
    count = network.get_input_count()
    if any(int(key) >= count for key in ranges):
        return f"dim_range names an input beyond {count - 1}"
    corners: list[dict[str, Sequence[int]]] = [{}, {}]
    for index in range(count):
        tensor = network.get_input(index)
        dims, name = tensor.get_dimension().GetDims(), tensor.get_tensor_name()
        given = ranges.get(str(index))
        if given is None:
            if -1 in dims:
                return f"input {index} has unknown dims and no range"
            if mutable and -1 in tensor._onnx_dims:
                return f"input {index} is dynamic on a mutable graph and has no range"
            low = high = dims
        else:
            low, high = given["min"], given["max"]
            if len(low) != len(dims):
                return f"dim_range {index} does not fit rank {len(dims)}"
            fixed = zip(tensor._onnx_dims, low, high)
            if any(size != -1 and not size == a == b for size, a, b in fixed):
                return f"dim_range {index} contradicts the file's {tensor._onnx_dims}"
            inside = zip(dims, low, high)
            if any(size != -1 and not a <= size <= b for size, a, b in inside):
                return f"the dims of input {index} lie outside its range"
        corners[0][name], corners[1][name] = low, high
    for corner in corners:
        try:
            network.at(corner)
        except Exception as error:  # shape inference raises kinds of its own
            return f"the graph is not consistent at {corner}: {error}"
    return None


def _prologue_problem(network: Network, config: BuilderConfig) -> str | None:
    for index, given in config.get("insert_bn_before_firstnode", default={}).items():
        if int(index) >= network.get_input_count():
            return f"insert_bn_before_firstnode names input {index}"
        tensor = network.get_input(int(index))
        if any(node.get_node_type() != "IConvNode" for node in tensor.get_consumers()):
            return "insert_bn_before_firstnode: the first layer is not a Conv"
        if tensor.get_dimension().GetDims()[1] != len(given["mean"]):
            return "insert_bn_before_firstnode: mean does not fit the channels"
    for index, pair in config.get("convert_input_layout", default={}).items():
        if int(index) >= network.get_input_count():
            return f"convert_input_layout names input {index}"
        if len(network.get_input(int(index)).get_dimension().GetDims()) != len(pair["src"]):
            return "convert_input_layout does not fit the rank"
        if pair["src"] not in ("NCHW", "NCT", "NCDHW"):
            return "convert_input_layout: the source is no channels-first layout, which an ONNX file has"
    return None


def _made(name: str, network: Network, config: BuilderConfig) -> Model:
    assert network.model is not None
    inputs = []
    for index in range(network.get_input_count()):
        tensor = network.get_input(index)
        given = config.get("dim_range", str(index))
        dims = tensor.get_dimension().GetDims()
        source = tensor.get_data_type()
        normalise = config.get("insert_bn_before_firstnode", str(index))
        run = DataType.UINT8 if normalise else _NARROWED.get(source, source)
        inputs.append(
            {
                "source": source.name,
                "run": run.name,
                "low": given["min"] if given else dims,
                "high": given["max"] if given else dims,
                "normalise": normalise,
                "layout": config.get("convert_input_layout", str(index)),
            }
        )
    outputs = []
    for index in range(network.get_output_count()):
        source = network.get_output(index).get_data_type()
        outputs.append({"source": source.name, "run": _NARROWED.get(source, source).name})
    pins = {
        node.get_node_name(): [dtype.name for dtype in (*node.precisions.values(), *node.output_types.values())]
        for node in network.get_all_nodes_in_network()
        if node.precisions or node.output_types
    }
    model = Model()
    model._data = {
        "name": name,
        "config": config.settings,
        "inputs": inputs,
        "outputs": outputs,
        "pins": pins,
        "onnx": base64.b64encode(network.model.SerializeToString()).decode("ascii"),
    }
    return model


class MluEngineConfig:
    """What an engine is made for."""

    __slots__ = ("_device_type",)

    def __init__(self) -> None:
        self._device_type = ""

    @property
    def device_type(self) -> str:
        """``MLU``."""
        return self._device_type

    @device_type.setter
    def device_type(self, kind: str) -> None:
        if kind != "MLU":
            raise ValueError(f"device_type is 'MLU', got {kind!r}")
        self._device_type = kind


class Model:
    """A built model."""

    __slots__ = ("_data",)
    EngineConfig = MluEngineConfig

    def __init__(self) -> None:
        self._data: dict[str, Any] = {}

    def serialize_to_file(self, path: str) -> Status:
        """Write it."""
        if not isinstance(path, str):
            raise TypeError(f"serialize_to_file takes a path as text, got {type(path).__name__}")
        try:
            with open(path, "wb") as file:
                file.write(_MAGIC + json.dumps(self._data).encode("utf-8"))
        except OSError as error:
            return answer("serialize_to_file", str(error))
        return answer("serialize_to_file")

    def deserialize_from_file(self, path: str) -> Status:
        """Read it."""
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            return answer("deserialize_from_file", str(error))
        if not content.startswith(_MAGIC):
            return answer("deserialize_from_file", f"{path} is no model")
        self._data = json.loads(content[len(_MAGIC) :])
        return answer("deserialize_from_file")

    def get_input_num(self) -> int:
        """How many inputs."""
        return len(self._data["inputs"])

    def get_output_num(self) -> int:
        """How many outputs."""
        return len(self._data["outputs"])

    def get_input_names(self) -> list[str]:
        """Names of the inputs: not those of the ONNX file, which need not survive."""
        return [f"main/mm.input:{index}" for index in range(self.get_input_num())]

    def get_output_names(self) -> list[str]:
        """Names of the outputs, likewise."""
        return [f"main/mm.identityn:{index}" for index in range(self.get_output_num())]

    def get_input_data_types(self) -> list[DataType]:
        """Types to feed."""
        return [DataType[entry["run"]] for entry in self._data["inputs"]]

    def get_output_data_types(self) -> list[DataType]:
        """Types that come out."""
        return [DataType[entry["run"]] for entry in self._data["outputs"]]

    def get_input_dimensions(self) -> list[Dims]:
        """Shapes to feed, -1 where they vary."""
        return [
            Dims(_to_layout([a if a == b else -1 for a, b in _bounds(entry)], entry)) for entry in self._data["inputs"]
        ]

    def get_output_dimensions(self) -> list[Dims]:
        """Shapes that come out: unknown here."""
        return [Dims([-1]) for _ in self._data["outputs"]]

    def create_i_engine(self, config: MluEngineConfig) -> Engine | None:
        """An engine on the active device; None without one."""
        if not isinstance(config, MluEngineConfig) or config.device_type != "MLU":
            raise TypeError("create_i_engine takes an EngineConfig with device_type 'MLU'")
        return Engine(self) if STATE.active is not None and self._data else None


def _bounds(entry: dict[str, Any]) -> list[tuple[int, int]]:
    return list(zip(entry["low"], entry["high"]))


def _to_layout(sizes: list[int], entry: dict[str, Any]) -> list[int]:
    """Sizes of the ONNX file's layout in the layout that is fed."""
    return [*sizes[:1], *sizes[2:], sizes[1]] if entry["layout"] else sizes


class RuntimeTensor(RuntimeTensorLike):
    """An input or output at run time."""

    __slots__ = ("_array", "_dtype", "is_ready", "on_device")

    def __init__(self, dtype: DataType, array: np.ndarray | None = None) -> None:
        self._dtype, self._array, self.on_device, self.is_ready = dtype, array, False, False

    def from_numpy(self, array: np.ndarray) -> None:
        """Fill it; whether the real one answers with a Status is not public."""
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
            raise TypeError("from_numpy takes a C-contiguous array")
        if array.dtype != numpy_dtype(self._dtype):
            raise TypeError(f"from_numpy: expected {self._dtype.name}, got {array.dtype}")
        self._array = array.copy()
        self.on_device = False

    def to(self, device: Device) -> None:
        """Copy it to the device."""
        if not isinstance(device, Device) or STATE.active != device.id:
            raise RuntimeError("to() takes the active Device")
        self.on_device = True

    def asnumpy(self) -> np.ndarray:
        """What came out, after the queue was synchronised."""
        if not self.is_ready or self._array is None:
            raise RuntimeError("asnumpy before the queue was synchronised")
        return self._array


class Engine:
    """An engine."""

    __slots__ = ("_model",)

    def __init__(self, model: Model) -> None:
        self._model = model

    def create_i_context(self) -> Context | None:
        """A context on the active device."""
        return Context(self._model) if STATE.active is not None else None


class Context:
    """Runs a model."""

    __slots__ = ("_model", "_session")

    def __init__(self, model: Model) -> None:
        self._model = model
        content = base64.b64decode(model._data["onnx"])
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def create_inputs(self) -> list[RuntimeTensor]:
        """Empty inputs."""
        return [RuntimeTensor(dtype) for dtype in self._model.get_input_data_types()]

    def enqueue(self, inputs: list[RuntimeTensor], outputs: list[RuntimeTensor], queue: Queue) -> Status:
        """Run; an empty list of outputs is filled."""
        if not isinstance(inputs, list) or not isinstance(outputs, list) or not isinstance(queue, Queue):
            raise TypeError("enqueue takes a list of inputs, a list for outputs and a Queue")
        entries = self._model._data["inputs"]
        if len(inputs) != len(entries) or outputs:
            return answer("enqueue", f"expected {len(entries)} inputs and an empty list of outputs")
        feeds = {}
        for index, (tensor, entry, value) in enumerate(zip(inputs, entries, self._session.get_inputs())):
            if not tensor.on_device or tensor._array is None:
                return answer("enqueue", f"input {index} is not on the device")
            shape = list(tensor._array.shape)
            low, high = _to_layout(entry["low"], entry), _to_layout(entry["high"], entry)
            if len(shape) != len(low) or any(not a <= n <= b for a, n, b in zip(low, shape, high)):
                return answer("enqueue", f"input {index} has shape {shape}, expected {low} to {high}")
            feeds[value.name] = _prologue(tensor._array, entry)
        results = self._session.run(None, feeds)
        for result, entry in zip(results, self._model._data["outputs"]):
            dtype = DataType[entry["run"]]
            outputs.append(RuntimeTensor(dtype, np.ascontiguousarray(result.astype(numpy_dtype(dtype)))))
        queue.waiting += outputs
        return answer("enqueue")


def _prologue(array: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """Layout, normalisation and type, back to what the ONNX file takes."""
    if entry["layout"]:
        array = np.moveaxis(array, -1, 1)
    if entry["normalise"]:
        shape = (1, -1) + (1,) * (array.ndim - 2)
        mean = np.asarray(entry["normalise"]["mean"], np.float32).reshape(shape)
        var = np.asarray(entry["normalise"]["var"], np.float32).reshape(shape)
        array = (array.astype(np.float32) - mean) / np.sqrt(var)
    return np.ascontiguousarray(array.astype(numpy_dtype(DataType[entry["source"]])))
