"""Stand-in for tests, made from public samples; NOTHING run with it was run on an MLU."""

from __future__ import annotations

from .._calibrate import CalibDataInterface, Calibrator, RemoteConfig  # noqa: TID252
from .._config import BuilderConfig  # noqa: TID252
from .._device import Device, System  # noqa: TID252
from .._model import Builder, Model  # noqa: TID252
from .._network import Network  # noqa: TID252
from .._types import Code, DataType, Dims, ModelKind, QuantizationAlgorithm, Status  # noqa: TID252

__all__ = [
    "Builder",
    "BuilderConfig",
    "CalibDataInterface",
    "Calibrator",
    "Code",
    "DataType",
    "Device",
    "Dims",
    "Model",
    "ModelKind",
    "Network",
    "QuantizationAlgorithm",
    "RemoteConfig",
    "Status",
    "System",
]
