"""One optimisation profile out of the shape spec: minimum, optimum and maximum of every dynamic input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphforge.errors import GraphForgeError, argument
from graphforge.spec import ShapeSpec

__all__ = ["InputRange", "profile_of"]


@dataclass(frozen=True, slots=True)
class InputRange:
    """The shapes one input may take: what the plan is built for."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


def profile_of(
    shapes: ShapeSpec, inputs: Mapping[str, Sequence[int]], optimum: Mapping[str, int] | None = None
) -> dict[str, InputRange]:
    """The profile of the dynamic inputs of a network; empty when every input is static.

    The optimum is the example's shape, which is what the user thought of first, save for the dims that are named.

    Args:
        shapes: what was promised.
        inputs: the network's inputs as the parser made them, -1 where a dim is dynamic.
        optimum: sizes of dims by their names.

    Raises:
        GraphForgeError: a dim is dynamic without a range, or baked in despite one, or an optimum was not promised.
    """
    optimum = optimum or {}
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
        # The smallest and largest promised sizes: with a step, the bounds themselves need not be promised.
        lowest = {axis: dim.sizes(limit=1)[0] for axis, dim in spec.dims.items()}
        highest = {axis: dim.high - dim.high % dim.step for axis, dim in spec.dims.items()}
        profile[name] = InputRange(
            minimum=tuple(lowest.get(axis, size) for axis, size in enumerate(spec.shape)),
            optimum=tuple(
                optimum.get(spec.dims[axis].name, size) if axis in spec.dims else size
                for axis, size in enumerate(spec.shape)
            ),
            maximum=tuple(highest.get(axis, size) for axis, size in enumerate(spec.shape)),
        )
    return profile


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
