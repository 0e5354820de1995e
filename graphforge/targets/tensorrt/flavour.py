"""The two flavours of TensorRT, classic and for RTX: which is installed, and what each can be asked for."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from graphforge.errors import GraphForgeError

__all__ = ["FLAVOURS", "Flavour", "choose_flavour", "gpu_problem"]


@dataclass(frozen=True, slots=True)
class Flavour:
    """One flavour: the same Python classes under two module names.

    Attributes:
        name: the Python module, and the word for it in options and manifests.
        title: what people call it.
        distributions: package names whose version says which release is installed.
        install: the way to get it.
        builds_without_gpu: whether a plan can be built for a GPU that is not there.
        opsets: (lowest release, newest opset its parser documents), newest release first.
    """

    name: str
    title: str
    distributions: tuple[str, ...]
    install: str
    builds_without_gpu: bool
    opsets: tuple[tuple[tuple[int, int], int], ...]

    def installed(self) -> bool:
        """Whether the package is there (found, not imported)."""
        return importlib.util.find_spec(self.name) is not None

    def release(self) -> tuple[int, int]:
        """Major and minor version of what is installed, (0, 0) when no package states it."""
        for distribution in self.distributions:
            try:
                numbers = re.findall(r"\d+", version(distribution))
            except PackageNotFoundError:
                continue
            if len(numbers) >= 2:
                return int(numbers[0]), int(numbers[1])
        return 0, 0

    def newest_opset(self) -> int:
        """The newest opset that the installed release's parser documents (the lowest when it is unknown)."""
        release = self.release()
        for lowest, opset in self.opsets:
            if release >= lowest:
                return opset
        return self.opsets[-1][1]

    def load(self) -> Any:
        """Import the vendor's module.

        Raises:
            GraphForgeError: it is not installed, or its libraries cannot be loaded.
        """
        if not self.installed():
            raise GraphForgeError(f"{self.title} is not installed here", self.install)
        try:
            return importlib.import_module(self.name)
        except (ImportError, OSError) as error:
            raise GraphForgeError(f"{self.title} is installed but cannot be loaded: {error}", self.install) from error


# Opsets: TensorRT's "ONNX Opset Guide" gives 25 for 11.x; onnx-tensorrt's operators.md gives 20 for 10.0, which all
# later 10.x read too.  RTX 1.7 carries the parser of the 11 line (it knows operators newer than opset 25).
FLAVOURS: dict[str, Flavour] = {
    "tensorrt_rtx": Flavour(
        name="tensorrt_rtx",
        title="TensorRT for RTX",
        distributions=("tensorrt_rtx_cu13", "tensorrt_rtx_cu12", "tensorrt_rtx"),
        install="install it with: pip install tensorrt-rtx-cu13",
        builds_without_gpu=True,
        opsets=(((1, 7), 25), ((0, 0), 20)),
    ),
    "tensorrt": Flavour(
        name="tensorrt",
        title="TensorRT",
        distributions=("tensorrt_cu13", "tensorrt_cu12", "tensorrt"),
        install="install it with: pip install tensorrt (its libraries come from NVIDIA's own package index)",
        builds_without_gpu=False,
        opsets=(((11, 0), 25), ((0, 0), 20)),
    ),
}

# The parser is documented to read 9 and above; GraphForge delivers from 11.
OLDEST_OPSET = 11


def choose_flavour(wanted: str = "auto") -> Flavour:
    """The flavour asked for; with "auto" the first installed one, TensorRT for RTX before classic TensorRT.

    Raises:
        GraphForgeError: none is installed.
    """
    if wanted != "auto":
        return FLAVOURS[wanted]
    for flavour in FLAVOURS.values():
        if flavour.installed():
            return flavour
    raise GraphForgeError(
        "neither TensorRT for RTX nor TensorRT is installed here",
        *(f"{flavour.title}: {flavour.install}" for flavour in FLAVOURS.values()),
    )


@functools.cache
def gpu_problem() -> str | None:
    """None when an NVIDIA GPU and its driver are usable, else what is missing.  Asks the driver only."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1 is not found)"
    status = driver.cuInit(0)
    if status != 0:
        return f"the NVIDIA driver does not start (cuInit returned {status})"
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value < 1:
        return "the NVIDIA driver sees no GPU"
    return None
