"""What a model computes on the way: any of its values for given inputs, a few at a time, so memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.runners.custom_ops import runner_before_lowering

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
    if not names:
        return {}
    with runner_before_lowering(with_outputs(model, names), optimize=False) as runner:
        return runner.run(feeds)


def in_pieces(
    model: ir.Model, samples: Sequence[Mapping[str, Array]], groups: Iterable[Sequence[str]]
) -> Iterator[dict[str, Array]]:
    """The values of every sample, in several dicts each: as many groups at once as fit into memory.

    One session for each piece; of inputs that are asked for, groups of their own, what was fed is handed out.

    Args:
        model: in operators that ONNX Runtime runs.
        samples: the inputs.
        groups: names of values that are wanted together.

    Raises:
        GraphForgeError: ONNX Runtime does not load or run the model.
    """
    known = {value.name: value for value in model.graph.inputs}
    groups = [tuple(group) for group in groups]
    inputs = [name for group in groups for name in group if name in known]
    for feeds in samples:
        if inputs:
            yield {name: feeds[name] for name in inputs if name in feeds}
    sizes = _sizes(model, samples[0]) if samples else {}
    for piece in _pieces([group for group in groups if not known.keys() & set(group)], sizes):
        with runner_before_lowering(with_outputs(model, piece), optimize=False) as runner:
            for feeds in samples:
                found = runner.run(feeds)
                yield {name: found[name] for name in piece}


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy that shares the weights, hands out these values and computes nothing else.

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
    RemoveUnusedNodesPass()(copy)
    return copy


def _pieces(groups: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    piece: dict[str, None] = {}
    held = 0
    for group in groups:
        size = sum(sizes.get(name, _UNKNOWN) for name in group if name not in piece)
        if piece and held + size > _MEMORY:
            yield list(piece)
            piece, held = {}, sum(sizes.get(name, _UNKNOWN) for name in group)
        else:
            held += size
        piece.update(dict.fromkeys(group))
    if piece:
        yield list(piece)


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
