"""Stand-in: Status, Dims and the enumerations.  Nothing was run on an MLU."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import numpy as np

from . import _log


class Code(enum.Enum):
    """Codes of Status that samples show, and one for everything else."""

    OK = 0
    OUT_OF_RANGE = 1
    INVALID_ARGUMENT = 2
    INTERNAL = 3


class Status:
    """The answer of a call; it must be asked ``.ok()`` and has no truth value."""

    __slots__ = ("about", "code", "message", "was_asked")

    def __init__(self, code: Code = Code.OK, message: str = "") -> None:
        if not isinstance(code, Code):
            raise TypeError(f"Status takes a Code, got {type(code).__name__}")
        self.code, self.message, self.about, self.was_asked = code, message, "", False

    @staticmethod
    def OK() -> Status:
        """A Status that says yes."""
        return Status()

    def ok(self) -> bool:
        """Whether the call worked."""
        self.was_asked = True
        return self.code is Code.OK

    def __bool__(self) -> bool:
        raise TypeError("a Status has no truth value: ask .ok()")

    def __str__(self) -> str:
        return self.code.name + (f": {self.message}" if self.message else "")


def answer(about: str, problem: str | None = None, code: Code = Code.INVALID_ARGUMENT) -> Status:
    """The Status a call returns; it is watched until somebody asks it."""
    status = Status() if problem is None else Status(code, problem)
    status.about = about
    _log.record(about, ok=problem is None, problem=problem)
    _log.watch(status)
    return status


class DataType(enum.Enum):
    """Types of tensors."""

    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BOOL = "bool"
    QINT8 = "qint8"
    QINT16 = "qint16"


class ModelKind(enum.Enum):
    """What a Parser reads."""

    kCaffe = 0
    kOnnx = 1
    kPytorch = 2
    kTensorflow = 3


class QuantizationAlgorithm(enum.Enum):
    """How ranges are found."""

    LINEAR_ALGORITHM = 0
    EQNM_ALGORITHM = 1


class Dims:
    """The sizes of a tensor; -1 where unknown."""

    __slots__ = ("_sizes",)

    def __init__(self, sizes: Sequence[int]) -> None:
        if not isinstance(sizes, (list, tuple)) or not all(type(size) is int for size in sizes):
            raise TypeError(f"Dims takes a list or tuple of int, got {sizes!r}")
        self._sizes: list[int] = list(sizes)

    def GetDims(self) -> list[int]:
        """The sizes."""
        return list(self._sizes)

    def GetDimValue(self, index: int) -> int:
        """One size."""
        return self._sizes[index]

    def GetElementCount(self) -> int:
        """How many elements, -1 when a size is unknown."""
        count: int = math.prod(self._sizes)
        return -1 if -1 in self._sizes else count

    def __str__(self) -> str:
        return str(self._sizes)


def numpy_dtype(dtype: DataType) -> np.dtype[np.generic]:
    """The numpy dtype of a plain DataType."""
    if not isinstance(dtype, DataType) or dtype in (DataType.QINT8, DataType.QINT16):
        raise TypeError(f"no numpy dtype for {dtype!r}")
    return np.dtype(str(dtype.value))


def datatype_of(dtype: np.dtype[np.generic]) -> DataType:
    """The DataType of a numpy dtype."""
    return DataType(np.dtype(dtype).name)
