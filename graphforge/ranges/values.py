"""What a model computes on the way: any of its values for given inputs, a few at a time, so memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

__all__ = ["in_pieces", "values_in", "with_outputs"]

# Bytes of values that one run hands out.
_MEMORY = 256 << 20
# What is assumed of a value whose size is not known beforehand.
_UNKNOWN = 8 << 20


def values_in(model: ir.Model, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The values with these names for one set of inputs, as the graph is written.

    Raises:
        GraphForgeError: ONNX Runtime does not load or run it.
    """
    with OnnxRuntimeRunner(with_outputs(model, names), optimize=False) as runner:
        return runner.run(feeds)


def in_pieces(
    model: ir.Model, samples: Sequence[Mapping[str, Array]], names: Sequence[str]
) -> Iterator[dict[str, Array]]:
    """The values of every sample, in several dicts each: as many at once as fit into memory.

    One session for each piece of the list of names; inputs that are asked for are handed out, too.

    Raises:
        GraphForgeError: ONNX Runtime does not load or run the model.
    """
    known = {value.name: value for value in model.graph.inputs}
    inputs = [name for name in names if name in known]
    for feeds in samples:
        if inputs:
            yield {name: feeds[name] for name in inputs if name in feeds}
    sizes = _sizes(model, samples[0]) if samples else {}
    for piece in _pieces([name for name in names if name not in known], sizes):
        with OnnxRuntimeRunner(with_outputs(model, piece), optimize=False) as runner:
            for feeds in samples:
                found = runner.run(feeds)
                yield {name: found[name] for name in piece}


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy that shares the weights and hands out these values.

    Raises:
        GraphForgeError: no node of the main graph computes a value of that name.
    """
    copy = model.clone()
    made = {value.name: value for node in copy.graph for value in node.outputs}
    unknown = [name for name in names if name not in made]
    if unknown:
        raise GraphForgeError(f"no node computes {unknown[0]!r}")
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(made[name] for name in names)
    return copy


def _pieces(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    piece: list[str] = []
    held = 0
    for name in names:
        size = sizes.get(name, _UNKNOWN)
        if piece and held + size > _MEMORY:
            yield piece
            piece, held = [], 0
        piece.append(name)
        held += size
    if piece:
        yield piece


def _sizes(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Bytes of each value whose shape follows from that of the inputs."""
    dims: dict[str, int] = {}
    for value in model.graph.inputs:
        if value.shape is not None and value.name is not None and value.name in feeds:
            for dim, size in zip(value.shape.dims, feeds[value.name].shape, strict=False):
                if not isinstance(dim, int) and dim.value is not None:
                    dims[dim.value] = size
    found = {}
    for node in model.graph:
        for value in node.outputs:
            if value.shape is None or value.dtype is None or value.name is None:
                continue
            shape = [dim if isinstance(dim, int) else dims.get(dim.value or "", -1) for dim in value.shape.dims]
            if all(size >= 0 for size in shape):
                found[value.name] = math.ceil(math.prod(shape) * value.dtype.itemsize)
    return found
