"""A stand-in for classic TensorRT's Python module, which cannot be installed without the vendor's own package index.

It builds by TensorRT for RTX, which has the same classes, and is stricter: a config has only what the code may use of
classic TensorRT and takes values of the right kind only.  The GPU that it builds for is made up.
Nothing that runs with it has run on a GPU.
"""

from __future__ import annotations

from typing import Any

import tensorrt_rtx as _rtx
from tensorrt_rtx import (  # noqa: F401 - the surface
    BuilderFlag,
    Dims,
    IAttentionInputLayer,
    IConvolutionLayer,
    IDeconvolutionLayer,
    IEinsumLayer,
    ILogger,
    IMatrixMultiplyLayer,
    LayerType,
    MatrixOperation,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    Runtime,
    init_libnvinfer_plugins,
)

__version__ = "11.4.0 (stand-in)"

# What was asked of each config, in order, for tests to read.
ASKED: list[tuple[str, Any]] = []


class _Config:
    """The part of IBuilderConfig that classic TensorRT has and that is used here; everything else raises."""

    __slots__ = ("_real",)

    def __init__(self, real: Any) -> None:
        object.__setattr__(self, "_real", real)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"classic TensorRT's IBuilderConfig has no {name!r}, or the stand-in does not know it")

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "builder_optimization_level":
            raise AttributeError(f"classic TensorRT's IBuilderConfig has no {name!r} to set")
        if not isinstance(value, int) or not 0 <= value <= 5:
            raise TypeError(f"builder_optimization_level is 0 to 5, got {value!r}")
        ASKED.append((name, value))

    def set_flag(self, flag: Any) -> None:
        """A flag of the builder."""
        ASKED.append(("set_flag", _kind_of(flag, BuilderFlag).name))

    def clear_flag(self, flag: Any) -> None:
        """The flag, not."""
        ASKED.append(("clear_flag", _kind_of(flag, BuilderFlag).name))

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """Bytes that a pool may hold."""
        ASKED.append((f"pool {_kind_of(pool, MemoryPoolType).name}", _kind_of(size, int)))

    def add_optimization_profile(self, profile: Any) -> int:
        """The position of the profile."""
        position: int = self._real.add_optimization_profile(profile)
        return position

    def create_timing_cache(self, content: bytes) -> Any:
        """A cache of what was read."""
        return _Cache(_kind_of(content, bytes))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """Whether it fits this GPU and version."""
        ASKED.append(("set_timing_cache", _kind_of(cache, _Cache).content))
        return not cache.content.startswith(b"other")

    def get_timing_cache(self) -> Any:
        """The cache with what the build added."""
        return _Cache(b"timings")


class _Cache:
    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        """Its bytes."""
        return self.content


class Builder:
    """Builds for the made-up GPU."""

    __slots__ = ("_real",)

    def __init__(self, logger: Any) -> None:
        self._real = _rtx.Builder(logger)

    def create_network(self, flags: int) -> Any:
        """An empty network."""
        return self._real.create_network(flags)

    def create_builder_config(self) -> _Config:
        """An empty configuration."""
        ASKED.clear()
        return _Config(self._real.create_builder_config())

    def create_optimization_profile(self) -> Any:
        """An empty profile."""
        return self._real.create_optimization_profile()

    def build_serialized_network(self, network: Any, config: _Config) -> Any:
        """The plan."""
        real = _kind_of(config, _Config)._real
        real.num_compute_capabilities = 1
        real.set_compute_capability(_rtx.ComputeCapability.SM86, 0)
        return self._real.build_serialized_network(network, real)


def _kind_of(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, got {value!r}")
    return value
