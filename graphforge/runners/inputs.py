"""Seeded random inputs that a trained network finds plausible: drawn to resemble the example inputs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphforge.errors import UsageError, argument
from graphforge.runners.arrays import Array, dtype_name
from graphforge.spec import ShapeSpec

__all__ = ["check_feeds", "random_array", "random_feeds"]

# Floats with at most this many distinct values, such as masks of 0 and 1, are codes: drawn from the same values.
_CODES = 2

_AGREE = "data and the declared input must agree: change one of them"


def random_feeds(
    spec: ShapeSpec, sizes: Mapping[str, int], example: Mapping[str, Array] | None = None, *, seed: int = 0
) -> dict[str, Array]:
    """Random inputs at given sizes of the dynamic dims; the same seed, sizes and example give the same inputs.

    Args:
        spec: the inputs.
        sizes: dim name -> size.
        example: arrays to resemble, see ``random_array``; without them floats are standard normal, the rest 0 or 1.
        seed: of the generator.

    Raises:
        UsageError: the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"{argument('seed')}: expected a whole number >= 0, got {seed!r}")
    feeds = {}
    for tensor in spec.inputs:
        generator = _generator(seed, tensor.name, *sizes.values())
        shape = tensor.at(sizes)
        like = None if example is None else example[tensor.name]
        feeds[tensor.name] = (
            _from_nothing(shape, tensor.dtype, generator) if like is None else random_array(like, shape, generator)
        )
    return feeds


def random_array(like: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Random elements that resemble ``like``.

    Floats are normal with its mean and deviation, kept between its least and largest; floats of one or two distinct
    values (masks) are drawn from these; all zeros say nothing and give standard normals.  Integers are drawn between
    its least and largest, so that indices stay in range.  Bools are fair coins, or constant when it is constant.
    """
    if like.size == 0:
        return np.zeros(shape, like.dtype)
    if like.dtype.kind == "b":
        return _choice(np.unique(like), shape, generator).astype(like.dtype)
    if like.dtype.kind in "iu":
        low, high = int(like.min()), int(like.max())
        dtype = np.uint64 if high > np.iinfo(np.int64).max else np.int64
        return generator.integers(low, high, size=shape, dtype=dtype, endpoint=True).astype(like.dtype)
    if like.dtype.kind == "c":
        real = random_array(np.asarray(like.real), shape, generator)
        imaginary = random_array(np.asarray(like.imag), shape, generator)
        return (real + 1j * imaginary).astype(like.dtype)
    known = like.astype(np.float64)
    known = known[np.isfinite(known)]
    if known.size == 0 or (known == 0).all():
        return generator.standard_normal(shape).astype(like.dtype)
    values = np.unique(known[:4096])
    if values.size <= _CODES and np.isin(known, values).all():
        return _choice(values, shape, generator).astype(like.dtype)
    drawn = generator.normal(known.mean(), known.std(), size=shape)
    return np.clip(drawn, known.min(), known.max()).astype(like.dtype)


def check_feeds(spec: ShapeSpec, feeds: Mapping[str, Array]) -> None:
    """See that the data fits the spec: every input present, with its rank, dtype and example shape.

    Raises:
        UsageError: names the input, what was expected and what came.
    """
    names = [tensor.name for tensor in spec.inputs]
    missing = [name for name in names if name not in feeds]
    if missing:
        raise UsageError(
            f"no data for input {', '.join(missing)}", f"data was given for: {', '.join(feeds) or 'nothing'}"
        )
    for tensor in spec.inputs:
        array = feeds[tensor.name]
        if tuple(array.shape) != tensor.shape:
            raise UsageError(f"input {tensor.name!r}: expected shape {tensor.shape}, got {tuple(array.shape)}", _AGREE)
        if dtype_name(array) != tensor.dtype:
            raise UsageError(f"input {tensor.name!r}: expected dtype {tensor.dtype}, got {dtype_name(array)}", _AGREE)


def _choice(values: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    chosen: Array = values[generator.integers(0, values.size, size=shape)]
    return np.asarray(chosen)


def _generator(seed: int, *key: Any) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in key)])


def _from_nothing(shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> Array:
    if dtype == "bool" or "int" in dtype:
        return generator.integers(0, 2, size=shape).astype(dtype)
    if dtype == "bfloat16":
        import ml_dtypes

        return generator.standard_normal(shape).astype(ml_dtypes.bfloat16)
    drawn = generator.standard_normal(shape)
    if dtype.startswith("complex"):
        return (drawn + 1j * generator.standard_normal(shape)).astype(dtype)
    return drawn.astype(dtype)
