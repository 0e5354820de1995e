"""Stand-in: the calibrator drives its streams for real, in ONNX Runtime.  Nothing was run on an MLU."""

# ruff: noqa: B905 - the stand-in runs on Python 3.7 too, whose zip has no strict
from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import numpy as np
import onnxruntime

from ._config import BuilderConfig
from ._device import STATE
from ._network import Network
from ._types import Code, DataType, Dims, QuantizationAlgorithm, Status, answer, numpy_dtype

# A stream with more than this is taken for one that never ends.
_MAX_FEEDS = 500


class CalibDataInterface:
    """What a user's calibration stream derives from."""

    def __init__(self) -> None:
        self._was_initialised = True

    def get_shape(self) -> Dims:
        """The shape of the current sample."""
        raise NotImplementedError

    def get_data_type(self) -> DataType:
        """The type of the samples."""
        raise NotImplementedError

    def get_sample(self) -> np.ndarray:
        """The current sample."""
        raise NotImplementedError

    def next(self) -> Status:
        """Load the next sample; OUT_OF_RANGE at the end."""
        raise NotImplementedError

    def reset(self) -> Status:
        """Start again."""
        raise NotImplementedError


class RemoteConfig:
    """Where a remote device listens."""

    __slots__ = ("address",)

    def __init__(self) -> None:
        self.address = ""


class Calibrator:
    """Finds the ranges of activations from samples."""

    __slots__ = ("_algorithm", "_remote", "_streams")

    def __init__(self, streams: Sequence[CalibDataInterface]) -> None:
        if not isinstance(streams, list) or not all(isinstance(one, CalibDataInterface) for one in streams):
            raise TypeError("Calibrator takes a list of CalibDataInterface")
        if not all(getattr(one, "_was_initialised", False) for one in streams):
            raise RuntimeError("a CalibDataInterface did not call super().__init__()")
        self._streams = streams
        self._algorithm: QuantizationAlgorithm | None = None
        self._remote: RemoteConfig | None = None

    def set_quantization_algorithm(self, algorithm: QuantizationAlgorithm) -> Status:
        """Choose how ranges are found."""
        if not isinstance(algorithm, QuantizationAlgorithm):
            raise TypeError(f"expected a QuantizationAlgorithm, got {type(algorithm).__name__}")
        self._algorithm = algorithm
        return answer("set_quantization_algorithm")

    def set_remote(self, remote: RemoteConfig) -> Status:
        """Calibrate on a device elsewhere."""
        if not isinstance(remote, RemoteConfig):
            raise TypeError(f"expected a RemoteConfig, got {type(remote).__name__}")
        if not re.fullmatch(r"[\w.-]+:\d+", remote.address):
            return answer("set_remote", f"address is no HOST:PORT: {remote.address!r}")
        self._remote = remote
        return answer("set_remote")

    def calibrate(self, network: Network, config: BuilderConfig) -> Status:
        """Run over all samples."""
        if not isinstance(network, Network) or not isinstance(config, BuilderConfig):
            raise TypeError("calibrate takes a Network and a BuilderConfig")
        problem = self._problem(network, config)
        if problem is None:
            config.calibrated_with = copy.deepcopy(config.settings)
        return answer("calibrate", problem)

    def _problem(self, network: Network, config: BuilderConfig) -> str | None:
        if network.model is None:
            return "the network is empty"
        if self._algorithm is None:
            return "no quantization algorithm is set"
        if self._remote is None and STATE.active is None:
            return "no device is active"
        if not str(config.get("precision_config", "precision_mode", default="")).startswith("qint"):
            return "the precision is no qint"
        is_asymmetric = config.get("precision_config", "activation_quant_algo") == "asymmetric"
        if self._algorithm is QuantizationAlgorithm.EQNM_ALGORITHM and is_asymmetric:
            return "EQNM works with symmetric activations only"
        if len(self._streams) != network.get_input_count():
            return f"{len(self._streams)} streams for {network.get_input_count()} inputs"
        for index in range(network.get_input_count()):
            tensor = network.get_input(index)
            if -1 in tensor.get_dimension().GetDims():
                return f"dims of input {index} are not set"
        first = self._drive(network, config)
        if isinstance(first, str):
            return first
        for stream in self._streams:
            if not _asked(stream.reset()):
                return "reset failed"
        second = self._drive(network, config)
        if isinstance(second, str):
            return second
        same = len(first) == len(second) and all(
            np.array_equal(a, b) for feed, again in zip(first, second) for a, b in zip(feed, again)
        )
        if not same:
            return "after reset the streams do not give the same samples"
        return _run(network, first)

    def _drive(self, network: Network, config: BuilderConfig) -> list[list[np.ndarray]] | str:
        feeds: list[list[np.ndarray]] = []
        while len(feeds) < _MAX_FEEDS:
            statuses = [stream.next() for stream in self._streams]
            if not all(isinstance(status, Status) for status in statuses):
                return "next() did not return a Status"
            goes_on = [_asked(status) for status in statuses]
            if not any(goes_on):
                if any(status.code is not Code.OUT_OF_RANGE for status in statuses):
                    return f"next() failed: {statuses[0]}"
                return feeds or "no sample reached the calibrator"
            if not all(goes_on):
                return "the streams have different lengths"
            feed = []
            for index, stream in enumerate(self._streams):
                sample = stream.get_sample()
                problem = _sample_problem(sample, stream, index, network, config)
                if problem is not None:
                    return problem
                feed.append(np.array(sample))
            feeds.append(feed)
        return "the streams do not end"


def _asked(status: Status) -> bool:
    return status.ok()


def _sample_problem(
    sample: np.ndarray, stream: CalibDataInterface, index: int, network: Network, config: BuilderConfig
) -> str | None:
    shape, dtype = stream.get_shape(), stream.get_data_type()
    if not isinstance(shape, Dims) or not isinstance(dtype, DataType):
        return "get_shape() or get_data_type() has the wrong type"
    if not isinstance(sample, np.ndarray) or not sample.flags.c_contiguous:
        return f"a sample of input {index} is no C-contiguous array"
    if list(sample.shape) != shape.GetDims():
        return f"a sample of input {index} has shape {list(sample.shape)}, get_shape() says {shape}"
    if dtype not in (DataType.FLOAT32, DataType.INT32) or sample.dtype != numpy_dtype(dtype):
        return f"a sample of input {index} is {sample.dtype}, get_data_type() says {dtype.name}"
    tensor = network.get_input(index)
    is_float = tensor.get_data_type() in (DataType.FLOAT32, DataType.FLOAT16)
    if is_float != (dtype is DataType.FLOAT32):
        return f"a sample of input {index} is {sample.dtype}, the input {tensor.get_data_type().name}"
    dims = tensor.get_dimension().GetDims()
    given = config.get("dim_range", str(index))
    low, high = (given["min"], given["max"]) if given else (dims, dims)
    if len(low) != sample.ndim or any(not a <= size <= b for a, size, b in zip(low, sample.shape, high)):
        return f"a sample of input {index} has shape {list(sample.shape)}, expected {low} to {high}"
    if is_float and not np.isfinite(sample).all():
        return f"a sample of input {index} has NaN or Inf"
    return None


def _run(network: Network, feeds: list[list[np.ndarray]]) -> str | None:
    assert network.model is not None
    session = onnxruntime.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    kinds = [numpy_dtype(network.get_input(i).get_data_type()) for i in range(network.get_input_count())]
    for feed in feeds:
        names = [value.name for value in session.get_inputs()]
        arrays = {name: array.astype(kind) for name, array, kind in zip(names, feed, kinds)}
        try:
            outputs = session.run(None, arrays)
        except Exception as error:  # ONNX Runtime raises several kinds of its own
            return f"the network does not run on a sample: {error}"
        if any(out.dtype.kind == "f" and np.isnan(out).any() for out in outputs):
            return "the network gives NaN on a sample"
    return None
