"""Which departures are wrong where they are, and which of those make the outputs wrong.

A value that departs is computed again by its own node (with what stands between it and the nearest values that the
reference has), from the reference's values.  What departs then is *wrong here*; what agrees was only handed on.

Then the file is run with the reference's value put in the place of a wrong one.  What makes the outputs agree is the
cause, shown by experiment; what changes nothing (a factor that a pass moved elsewhere) is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphforge.diagnosis.artifact import Alone, Artifact
from graphforge.diagnosis.layout import SAME, Layout, compared
from graphforge.runners.arrays import Array
from graphforge.verify.compare import OutputComparison
from graphforge.verify.tolerance import Tolerances

__all__ = ["Fresh", "Part", "cause_among", "fresh_errors", "part_of"]

# So many wrong values are tried one by one; a file with more of them has more than one fault.
_TRIED = 24


@dataclass(frozen=True, slots=True)
class Part:
    """The nodes that make one value out of values that the reference has.

    Attributes:
        value: what they make.
        nodes: their positions.
        given: values of the file that the reference has, and that they read.
    """

    value: str
    nodes: tuple[int, ...]
    given: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fresh:
    """A value that is wrong although it is computed from the reference's values.

    Attributes:
        part: the nodes that compute it.
        comparison: how far it is off then.
    """

    part: Part
    comparison: OutputComparison | None


def part_of(value: str, artifact: Artifact, known: Mapping[str, object]) -> Part:
    """The nodes between a value and the nearest ones that the reference has."""
    nodes, given = artifact.part_before([value], known)
    return Part(value, nodes, tuple(sorted(given)))


def fresh_errors(
    parts: Sequence[Part],
    artifact: Artifact,
    feeds: Mapping[str, Array],
    right: Callable[[str], Array],
    reference: Callable[[str], Array],
    tolerances: Tolerances,
    *,
    memory: int,
) -> dict[str, Fresh]:
    """Those among the parts that are wrong alone, by value.

    Args:
        parts: what to run.
        artifact: the file.
        feeds: its inputs.
        right: the reference's value in the place and layout of the file's.
        reference: the reference's value as the reference has it.
        tolerances: what counts as equal.
        memory: bytes of values held at once.
    """
    found: dict[str, Fresh] = {}
    for piece in in_pieces(parts, right, memory):
        jobs = [Alone(part.nodes, {name: right(name) for name in part.given}, (part.value,)) for part in piece]
        for part, result in zip(piece, artifact.run_each(jobs, feeds), strict=True):
            if result is None:
                found[part.value] = Fresh(part, None)
                continue
            layout, comparison = compared(part.value, reference(part.value), result[part.value], tolerances)
            if layout is None:
                found[part.value] = Fresh(part, comparison)
    return found


def in_pieces(
    parts: Sequence[Part], right: Callable[[str], Array], memory: int, *, results: int = 1
) -> list[list[Part]]:
    """Parts that fit into the memory together, each with what it is given and so many times its result."""
    pieces: list[list[Part]] = [[]]
    held = 0
    for part in parts:
        size = sum(right(name).nbytes for name in part.given) + results * right(part.value).nbytes
        if pieces[-1] and held + size > memory:
            pieces.append([])
            held = 0
        pieces[-1].append(part)
        held += size
    return [piece for piece in pieces if piece]


def cause_among(
    suspects: Sequence[str],
    right: Callable[[str], Array],
    outputs_agree: Callable[[Mapping[str, Array]], bool | None],
) -> tuple[list[str], bool]:
    """The suspects that make the outputs wrong, in order, and whether an experiment shows it.

    Args:
        suspects: values that are wrong where they are, in the order of computation.
        right: the reference's value in the file's layout.
        outputs_agree: whether the outputs agree with these values put in place; None where that does not run.
    """
    tried = list(suspects[:_TRIED])
    for value in tried:
        if outputs_agree({value: right(value)}):
            return [value], True
    if len(tried) < 2 or not outputs_agree({value: right(value) for value in tried}):
        return list(suspects), False
    needed = tried
    for value in tried:
        fewer = [one for one in needed if one != value]
        if fewer and outputs_agree({one: right(one) for one in fewer}):
            needed = fewer
    return needed, True


def laid_out(array: Array, layout: Layout | None, like: Array | None) -> Array:
    """The reference's value as the file has it, in the file's element type."""
    found = (layout or SAME).of(array)
    return found if like is None or found.dtype == like.dtype else found.astype(like.dtype)
