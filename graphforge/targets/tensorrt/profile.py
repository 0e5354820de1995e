"""Optimisation profiles out of the shape spec: minimum, optimum and maximum of every dynamic input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphforge.errors import GraphForgeError, argument
from graphforge.spec import DimRange, ShapeSpec

__all__ = ["InputRange", "Sizes", "profile_of", "profiles_of"]


@dataclass(frozen=True, slots=True)
class InputRange:
    """The shapes one input may take: what the plan is built for."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one dim in one profile, and the one that it is to be fastest at; None leaves that to us."""

    low: int
    high: int
    best: int | None = None

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


# Combinations of sizes that are held against the profiles; so many stand for more profiles than anybody builds.
_MOST_COMBINATIONS = 200_000


def profiles_of(
    shapes: ShapeSpec,
    inputs: Mapping[str, Sequence[int]],
    optimum: Mapping[str, int] | None = None,
    asked: Sequence[Mapping[str, Sizes]] = (),
) -> list[dict[str, InputRange]]:
    """One profile for each that is asked for, one for all that is promised where none is; none for a static network.

    Args:
        shapes: what was promised.
        inputs: the network's inputs as the parser made them, -1 where a dim is dynamic.
        optimum: sizes of dims by their names, for the profiles that have these sizes and no best one of their own.
        asked: for each profile, the dims that it narrows.

    Raises:
        GraphForgeError: as ``profile_of``; or a profile goes beyond what was promised, or sizes are in none.
    """
    whole = profile_of(shapes, inputs, optimum)
    if not asked:
        return [whole] if whole else []
    for one in asked:
        _check_sizes(shapes, one)
    _check_covered(shapes, asked)
    return [profile_of(shapes, inputs, optimum, one) for one in asked]


def profile_of(
    shapes: ShapeSpec,
    inputs: Mapping[str, Sequence[int]],
    optimum: Mapping[str, int] | None = None,
    narrowed: Mapping[str, Sizes] | None = None,
) -> dict[str, InputRange]:
    """The profile of the dynamic inputs of a network; empty when every input is static.

    The optimum is the example's shape, which is what the user thought of first, save for the dims that are named.

    Args:
        shapes: what was promised.
        inputs: the network's inputs as the parser made them, -1 where a dim is dynamic.
        optimum: sizes of dims by their names.
        narrowed: dims of which it has fewer sizes than were promised.

    Raises:
        GraphForgeError: a dim is dynamic without a range, or baked in despite one, or an optimum was not promised.
    """
    optimum, narrowed = optimum or {}, narrowed or {}
    _check_optimum(shapes, optimum)
    specs = {tensor.name: tensor for tensor in shapes.inputs}
    profile = {}
    for name, dims in inputs.items():
        spec = specs.get(name)
        if spec is None or len(spec.shape) != len(dims):
            known = ", ".join(f"{tensor.name}{list(tensor.shape)}" for tensor in shapes.inputs)
            raise GraphForgeError(
                f"the network has input {name!r} with {len(dims)} dims, but the inputs described are: {known or 'none'}"
            )
        for axis, size in enumerate(dims):
            if size == -1 and axis not in spec.dims:
                raise GraphForgeError(
                    f"input {name!r} is dynamic on axis {axis}, but no range is given for it",
                    f"give one: {argument('dynamic_shapes', f'{name}:{axis}=1..{max(spec.shape[axis], 8)}')}",
                )
            if size != -1 and axis in spec.dims:
                promised = spec.dims[axis]
                raise GraphForgeError(
                    f"input {name!r} was promised {promised.low}..{promised.high} on axis {axis}, "
                    f"but the model has the size {size} baked in there",
                )
        if -1 not in dims:
            continue
        ends = {axis: narrowed.get(dim.name, _promised(dim)) for axis, dim in spec.dims.items()}
        best = {axis: _best(ends[axis], optimum.get(dim.name, spec.shape[axis])) for axis, dim in spec.dims.items()}
        profile[name] = InputRange(
            minimum=tuple(ends[axis].low if axis in ends else size for axis, size in enumerate(spec.shape)),
            optimum=tuple(best.get(axis, size) for axis, size in enumerate(spec.shape)),
            maximum=tuple(ends[axis].high if axis in ends else size for axis, size in enumerate(spec.shape)),
        )
    return profile


def _promised(dim: DimRange) -> Sizes:
    """The smallest and largest promised sizes: with a step, the bounds themselves need not be promised."""
    return Sizes(dim.sizes(limit=1)[0], dim.high - dim.high % dim.step)


def _best(sizes: Sizes, wanted: int) -> int:
    return min(max(wanted, sizes.low), sizes.high) if sizes.best is None else sizes.best


def _check_sizes(shapes: ShapeSpec, profile: Mapping[str, Sizes]) -> None:
    for name, sizes in profile.items():
        if name not in shapes.dims:
            raise GraphForgeError(
                f"a profile names the dim {name!r}, which is not dynamic",
                f"the dynamic dims are: {', '.join(shapes.dims) or 'none'}",
            )
        dim = shapes.dims[name]
        for size in (sizes.low, sizes.high, sizes.high if sizes.best is None else sizes.best):
            if not dim.low <= size <= dim.high or size % dim.step:
                step = f" in steps of {dim.step}" if dim.step > 1 else ""
                raise GraphForgeError(
                    f"a profile has {name}={size}, which is not among the sizes promised: {dim.low}..{dim.high}{step}"
                )
        best = sizes.low if sizes.best is None else sizes.best
        if not sizes.low <= best <= sizes.high:
            raise GraphForgeError(f"a profile has {name}={sizes} and is to be fastest at {best}, which is outside")


def _check_covered(shapes: ShapeSpec, asked: Sequence[Mapping[str, Sizes]]) -> None:
    """Every promised combination of sizes lies in a profile: those beside the ends of profiles stand for all."""
    dims = {name: dim for name, dim in shapes.dims.items() if any(name in one for one in asked)}
    at = {
        name: sorted(set(_beside_ends(dim, [one[name] for one in asked if name in one]))) for name, dim in dims.items()
    }
    if math.prod(map(len, at.values())) > _MOST_COMBINATIONS:
        raise GraphForgeError(f"{len(asked)} profiles over {len(at)} dims are too many to be held against the promise")
    for sizes in itertools.product(*at.values()):
        point = dict(zip(at, sizes, strict=True))
        if not any(all(one[n].low <= size <= one[n].high for n, size in point.items() if n in one) for one in asked):
            said = ", ".join(f"{name}={size}" for name, size in point.items())
            raise GraphForgeError(
                f"{said} is promised, and no profile has it",
                "add a profile, widen one, or promise less",
            )


def _beside_ends(dim: DimRange, ranges: Sequence[Sizes]) -> Iterator[int]:
    promised = _promised(dim)
    yield from (promised.low, promised.high)
    for sizes in ranges:
        for size in (sizes.low - dim.step, sizes.low, sizes.high, sizes.high + dim.step):
            if promised.low <= size <= promised.high:
                yield size


def _check_optimum(shapes: ShapeSpec, optimum: Mapping[str, int]) -> None:
    for name, size in optimum.items():
        if name not in shapes.dims:
            raise GraphForgeError(
                f"optimum names the dim {name!r}, which is not dynamic",
                f"the dynamic dims are: {', '.join(shapes.dims) or 'none'}",
            )
        dim = shapes.dims[name]
        if not dim.low <= size <= dim.high or size % dim.step:
            raise GraphForgeError(f"optimum {name}={size} is not among the sizes promised: {dim.low}..{dim.high}")
