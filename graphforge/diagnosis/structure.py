"""Where a file without origins may be wrong: nodes whose inputs agree, and what the reference computes from the same.

These are places to try, not answers: an experiment tells which of them is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from graphforge.diagnosis.artifact import Artifact
from graphforge.diagnosis.layout import Layout
from graphforge.diagnosis.tape import Key, Tape

__all__ = ["Place", "places_by_structure"]

# So many pairs are tried; each is a run of the file.
_TRIED = 24
# So many steps the reference may need for what the file does in one.
_STEPS = 6


class Known(Protocol):
    """What is known of a value of the file."""

    @property
    def key(self) -> Key: ...

    @property
    def equal(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A value of the file that may be wrong, and the reference's that may belong there.

    Attributes:
        value: of the file.
        key: of the reference.
        nodes: the nodes that make the value out of such that agree.
        layouts: ways to lay it out, beside its own.
        dtype: element type in the file, "" for the reference's own.
    """

    value: str
    key: Key
    nodes: tuple[int, ...]
    layouts: tuple[Layout, ...] = ()
    dtype: str = ""


def places_by_structure(artifact: Artifact, tape: Tape, known: Mapping[str, Known]) -> Iterator[Place]:
    """Places in the order of the file, the nearest of the reference's values first."""
    agreeing = {name: one.key for name, one in known.items() if one.equal}
    users: dict[str, list[Key]] = {}
    for key, entry in tape.entries.items():
        for name in entry.reads:
            users.setdefault(name, []).append(key)
    found_keys = set(agreeing.values())
    reaching = _reaching(artifact, agreeing)
    tried = 0
    for node in artifact.nodes:
        if node.position not in reaching:
            continue
        nodes, given = artifact.part_before(node.outputs, agreeing)
        if any(position != node.position and position not in reaching for position in nodes):
            continue
        sources = {agreeing[name][0] for name in given}
        read = {name for position in nodes for name in artifact.nodes[position].inputs}
        sources |= {inner for name, inner in tape.inputs.items() if name in read}
        for value in node.outputs:
            for key in _after(sources, users, tape):
                if key in found_keys:
                    continue
                yield Place(value, key, nodes)
                tried += 1
                if tried >= _TRIED:
                    return


def _reaching(artifact: Artifact, agreeing: Mapping[str, Key]) -> set[int]:
    """Nodes between values that agree and the outputs."""
    nodes, _ = artifact.part_before(artifact.outputs, agreeing)
    return set(nodes)


def _after(sources: set[str], users: Mapping[str, list[Key]], tape: Tape) -> list[Key]:
    """What the reference computes from these values, within a few steps, in order."""
    reached: dict[Key, None] = {}
    waiting = [(name, 0) for name in sorted(sources)]
    while waiting:
        name, steps = waiting.pop(0)
        for key in users.get(name, []):
            if key in reached or steps >= _STEPS:
                continue
            reached[key] = None
            waiting.append((key[0], steps + 1))
    return sorted(reached, key=lambda key: tape.entries[key].order)
