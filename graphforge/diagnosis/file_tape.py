"""The tape of an ONNX file as the reference: all values of its main graph, as ONNX Runtime computes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphforge.diagnosis.artifact import Artifact, ArtifactNode
from graphforge.diagnosis.store import Store
from graphforge.diagnosis.tape import Entry, Key, ModuleCall, Tape
from graphforge.ir import Origin
from graphforge.runners.arrays import Array
from graphforge.runners.padding import unpadded

__all__ = ["tape_of_file"]


def tape_of_file(
    file: Artifact, feeds: Mapping[str, Array], *, memory: int, padding: Sequence[Mapping[str, Any]] = ()
) -> Tape:
    """Run a file on the feeds and keep every value.

    Args:
        file: the reference.
        feeds: inputs by name.
        memory: bytes of values held in memory.
        padding: its manifest's recipe for padded outputs.

    Raises:
        GraphForgeError: ONNX Runtime does not run it.
    """
    given = file.feeds(feeds)
    store: Store[Key] = Store(memory)
    keys = {name: (node.outputs[0], index) for node in file.nodes for index, name in enumerate(node.outputs)}
    found: dict[Key, Array] = {}
    outputs = file.run(file.outputs, given)  # as the file runs, with whatever the runtime fuses
    for piece in _pieces(file, memory):
        for name, array in file.each(piece, given):
            store.put(keys[name], array)
            found[keys[name]] = store[keys[name]]
    entries: dict[Key, Entry] = {}
    by_name: dict[str, list[Key]] = {}
    for node in file.nodes:
        reads = tuple(dict.fromkeys(keys[name][0] if name in keys else name for name in node.inputs))
        for name in node.outputs:
            key = keys[name]
            if key not in found:
                continue
            origin, array = _origin(node), found[key]
            calls = (ModuleCall(origin.module, origin.module_class),)
            shape = tuple(int(size) for size in array.shape)
            entries[key] = Entry(key, len(entries), node.operator, origin, calls, reads, shape, str(array.dtype.name))
            by_name.setdefault(key[0], []).append(key)
    for value, last in _of_programs(file, entries, keys).items():
        by_name.setdefault(value, last)
    ordered = {name: outputs[name] for name in file.outputs if name in outputs}
    tape = Tape(file.source.name, entries, store, by_name, unpadded(ordered, padding), {n: n for n in file.inputs})
    tape.by_value = {name: key for name, key in keys.items() if key in entries}
    return tape


def _origin(node: ArtifactNode) -> Origin:
    return node.origins[0] if node.origins else Origin(target=node.operator)


def _of_programs(file: Artifact, entries: Mapping[Key, Entry], keys: Mapping[str, Key]) -> dict[str, list[Key]]:
    """Value of the program that a file was compiled from -> the last value of the file that stands for it."""
    found: dict[str, list[Key]] = {}
    for node in file.nodes:
        if not node.is_ours or not node.origins or not node.origins[-1].value:
            continue
        made = [keys[name] for name in node.outputs if keys[name] in entries]
        if made:
            found[node.origins[-1].value] = made
    return found


def _pieces(file: Artifact, memory: int) -> Iterator[list[str]]:
    """Names in groups whose values fit into memory together, as far as the file tells their sizes."""
    sizes: dict[str, int] = {}
    for value in [*file.proto.graph.value_info, *file.proto.graph.output]:
        dims = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        sizes[value.name] = 4 * int(np.prod(dims, dtype=np.int64)) if dims else 4
    piece: list[str] = []
    held = largest = 0
    for node in file.nodes:
        for name in node.outputs:
            size = sizes.get(name, largest)
            largest = max(largest, size)
            if piece and held + size > memory:
                yield piece
                piece, held = [], 0
            piece.append(name)
            held += size
    if piece:
        yield piece
