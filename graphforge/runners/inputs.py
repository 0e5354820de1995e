"""Seeded random inputs that a model takes: drawn to resemble the example inputs, and to fit each other's sizes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.limiting import check_limit
from graphforge.runners.arrays import Array, dtype_name
from graphforge.runners.structure import Bounds, are_offsets, codes_of, imposed, integers, mask, with_both
from graphforge.spec import ShapeSpec, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["as_dtype", "candidate_feeds", "check_feeds", "feeds_for", "random_array", "random_feeds"]

# Draws that are left to chance, when everything deliberate was refused: a threshold may leave nothing of a single row.
_FURTHER = 6
_AGREE = "data and the declared input must agree: change one of them"


def candidate_feeds(
    spec: ShapeSpec, sizes: Mapping[str, int], example: Mapping[str, Array], *, seed: int = 0
) -> Iterator[dict[str, Array]]:
    """Sets of inputs at the same sizes, from free to cautious, for a model that may refuse some of them.

    First everything is drawn, integers that the example ties to a dim (a length, an index) by the dim's new size; then
    no integer exceeds the example's own; then integers and masks are the example's, cut or repeated to the sizes, and
    scaled down as the dims are; then floats are the example's, too; in the end, whatever chance brings.
    """
    yield random_feeds(spec, sizes, example, seed=seed)
    ratio = min((sizes.get(name, size) / size for name, size in spec.example_sizes().items() if size), default=1.0)
    own = {tensor.name: _fitted(example[tensor.name], tensor.at(sizes), min(ratio, 1.0)) for tensor in spec.inputs}
    if any(_is_choosy(tensor, example[tensor.name]) for tensor in spec.inputs):
        yield random_feeds(spec, sizes, example, seed=seed + 1, grow=False)
        drawn = random_feeds(spec, sizes, example, seed=seed + 2, grow=False)
        yield {name: drawn[name] if array.dtype.kind not in "biu" else array for name, array in own.items()}
    if {**spec.example_sizes(), **sizes} != spec.example_sizes():
        yield own
    for further in range(3, 3 + _FURTHER):
        yield random_feeds(spec, sizes, example, seed=seed + further, grow=False)


def _is_choosy(tensor: TensorSpec, like: Array) -> bool:
    """Whether a model may well refuse some data of this kind: all but floats that vary freely."""
    return like.dtype.kind in "biu" or codes_of(like) is not None or tensor.values is not None


def random_feeds(
    spec: ShapeSpec,
    sizes: Mapping[str, int],
    example: Mapping[str, Array] | None = None,
    *,
    seed: int = 0,
    grow: bool = True,
) -> dict[str, Array]:
    """Random inputs at given sizes of the dynamic dims; the same seed, sizes and example give the same inputs.

    Args:
        spec: the inputs; where one has a range of values, it is drawn in that.
        sizes: dim name -> size.
        example: arrays to resemble, see ``random_array``; without them floats are standard normal, the rest 0 or 1.
        seed: of the generator.
        grow: whether integers that reach up to a dim's size in the example do so at its new size.

    Raises:
        UsageError: the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"{argument('seed')}: expected a whole number >= 0, got {seed!r}")
    feeds = {}
    for tensor in spec.inputs:
        generator = _generator(seed, tensor.name, *sizes.values())
        shape = tensor.at(sizes)
        shown = "x".join(map(str, shape))
        check_limit("input_elements", math.prod(shape), f"input {tensor.name!r} of shape {shown}: elements")
        like = None if example is None else example[tensor.name]
        if tensor.values is not None:
            low, high = tensor.values.at(tensor.name, {**spec.example_sizes(), **sizes})
            feeds[tensor.name] = np.asarray(_within(low, high, shape, tensor.dtype, like, generator))
        elif like is None:
            feeds[tensor.name] = _from_nothing(shape, tensor.dtype, generator)
        else:
            bounds = _bounds(spec, tensor, sizes, like, grow=grow) if _is_counting(like) else None
            feeds[tensor.name] = np.asarray(random_array(like, shape, generator, bounds))
    return feeds


def random_array(
    like: Array, shape: tuple[int, ...], generator: np.random.Generator, bounds: Bounds | None = None
) -> Array:
    """Random elements that resemble ``like``.

    Floats are normal with its mean and deviation, kept between its least and largest; all zeros say nothing and give
    standard normals.  Integers are drawn between its least and largest (or other bounds), so that indices stay in
    range.  Anything of one or two distinct values (masks) is drawn from these.  What holds for every row of the example
    holds for what is drawn, see ``structure.py``.
    """
    if like.size == 0:
        return np.zeros(shape, like.dtype)
    kind = like.dtype.kind
    if kind == "c":
        real = random_array(np.asarray(like.real), shape, generator)
        imaginary = random_array(np.asarray(like.imag), shape, generator)
        complete: Array = (real + 1j * imaginary).astype(like.dtype)
        return complete
    if kind not in "biuf":  # bfloat16 and its kin, which numpy does not know
        return random_array(like.astype(np.float64), shape, generator).astype(like.dtype)
    if kind in "iu" and bounds is None:
        bounds = Bounds(int(like.min()), int(like.max()))
    codes = codes_of(like)
    if codes is not None and (kind == "b" or _are_codes(codes, bounds)):
        if codes.size == 2:
            return _coded(codes, mask(like == codes[1], shape, generator), like)
        if like.size == 1 and kind == "f" and np.isfinite(codes[0]) and codes[0] != 0:
            return (float(codes[0]) * generator.uniform(0.25, 1, size=shape)).astype(like.dtype)
        if codes[0] != 0 or kind != "f":
            return np.full(shape, codes[0], like.dtype)
    if bounds is not None:
        return integers(like, shape, bounds, generator).astype(like.dtype)
    known = like.astype(np.float64)
    finite = known[np.isfinite(known)]
    if finite.size == 0 or (finite == 0).all():
        return generator.standard_normal(shape).astype(like.dtype)
    drawn = generator.normal(finite.mean(), finite.std(), size=shape)
    drawn = np.clip(drawn, finite.min(), finite.max())
    if finite.size == known.size:
        return imposed(known, drawn).astype(like.dtype)
    others = known[~np.isfinite(known)]  # NaN or infinities in the user's own data: as many of them, anywhere
    chosen = generator.random(shape) < max(others.size / known.size, 1 / max(drawn.size, 1))
    return np.where(chosen, others[generator.integers(0, others.size, size=shape)], drawn).astype(like.dtype)


def _coded(codes: Array, second: Array, like: Array) -> Array:
    """A mask in the two values that it has in the example."""
    values: Array = codes.astype(like.dtype)
    return np.asarray(values[second.astype(np.int64)])


def _are_codes(codes: Array, bounds: Bounds | None) -> bool:
    """Whether one or two values are all that may be: two floats, 0 and 1; not two lengths, which may be others."""
    if bounds is None:
        return True
    if codes.size == 1:
        return bounds.low == bounds.high
    return set(codes.tolist()) <= {0, 1} and bounds.high <= 1


def _is_counting(like: Array) -> bool:
    return like.dtype.kind in "iu" and like.size > 0


def _bounds(spec: ShapeSpec, tensor: TensorSpec, sizes: Mapping[str, int], like: Array, *, grow: bool) -> Bounds:
    """Bounds of an input of integers at new sizes.

    An example whose largest integer is a dim's size (a length) or one less (an index) is taken to be bound by that dim.
    One that is smaller may be bound, too: where the dim shrinks, it shrinks as well.
    """
    low, high = int(like.min()), int(like.max())
    own = {dim.name for dim in tensor.dims.values()}
    highs: list[int] = []
    lows = [low]
    full = False
    total = None
    for name, size in spec.example_sizes().items():
        now = sizes.get(name, size)
        if grow and like.ndim == 1 and like.size > 1 and low >= 0 and int(like.sum()) == size > 1:
            total = None if are_offsets(like) else now
        if size < 2 or high > size or low < 0:
            continue
        tied = high >= size - 1
        full = full or (high == size and (grow or now <= size))
        if tied and (grow or now < size):
            highs.append(high - size + now)
        elif now < size and (name not in own or not grow):
            highs.append(high * now // size)
        if now < size:
            lows.append(low * now // size)
    least = 1 if low > 0 else 0
    if not highs and grow and low == high > 1:
        return Bounds(1, high, full, total)  # a single number says what may be, not that nothing else may
    if not highs:
        return Bounds(low, high, full, total)
    largest = max(min(highs), least)
    return Bounds(min(max(min(lows), least), largest), largest, full, total)


def _fitted(like: Array, shape: tuple[int, ...], ratio: float) -> Array:
    """The example cut or repeated to a shape; integers at a share of themselves, what is not 0 stays so."""
    array = like
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % max(1, like.shape[axis]), axis=axis) if like.shape[axis] else array
    if array.shape != tuple(shape):
        return np.zeros(shape, like.dtype)
    codes = codes_of(like)
    if codes is not None and codes.size == 2:
        return _coded(codes, with_both(like == codes[1], array == codes[1]), like)
    if like.dtype.kind in "iu" and ratio < 1:
        scaled = np.floor(np.abs(array.astype(np.float64)) * ratio)
        return (np.where(array != 0, np.maximum(scaled, 1), 0) * np.sign(array)).astype(like.dtype)
    return np.array(array)


def _within(
    low: float, high: float, shape: tuple[int, ...], dtype: str, like: Array | None, generator: np.random.Generator
) -> Array:
    """Random elements in a range that the user gave; both ends are among integers, where there are enough of them."""
    if "int" in dtype or dtype == "bool":
        bounds = Bounds(math.ceil(low), math.floor(high), full=True)
        shown = np.zeros((0,), np.int64) if like is None else like
        return integers(shown.astype(np.int64), shape, bounds, generator).astype(dtype)
    drawn = generator.uniform(low, high, size=shape)
    if like is not None and like.size:
        drawn = imposed(like.astype(np.float64), drawn)
    return as_dtype(drawn, dtype)


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


def _generator(seed: int, *key: Any) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in key)])


def _from_nothing(shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> Array:
    if dtype == "bool" or "int" in dtype:
        return generator.integers(0, 2, size=shape).astype(dtype)
    drawn = generator.standard_normal(shape)
    if dtype.startswith("complex"):
        return (drawn + 1j * generator.standard_normal(shape)).astype(dtype)
    return as_dtype(drawn, dtype)


def as_dtype(drawn: Array, dtype: str) -> Array:
    """Floats in an element type, by the name that specs have for it."""
    if dtype == "bfloat16":
        import ml_dtypes

        return drawn.astype(ml_dtypes.bfloat16)
    return drawn.astype(dtype)


def feeds_for(model: ir.Model, sizes: Mapping[str, int], *, seed: int = 0) -> dict[str, Array]:
    """Seeded random inputs for a graph, at the sizes given for its named dims, 2 where a name is missing.

    Raises:
        GraphForgeError: an input has no type or shape.
    """
    inputs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.dtype is None or value.shape is None or value.name is None:
            raise GraphForgeError(f"input {value.name!r} has no type and shape, so nothing can be drawn for it")
        shape = tuple(dim if isinstance(dim, int) else sizes.get(dim.value or "", 2) for dim in value.shape.dims)
        inputs.append(TensorSpec(value.name, shape, value.dtype.numpy().name))
    return random_feeds(ShapeSpec(tuple(inputs)), {}, seed=seed)
