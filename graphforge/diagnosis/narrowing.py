"""Which of several nodes that compute one value is wrong: the model compiled anew shows what each should give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from graphforge.diagnosis.artifact import Alone, Artifact
from graphforge.diagnosis.layout import compared
from graphforge.diagnosis.outputs import Outputs
from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.verify.tolerance import Tolerances

__all__ = ["Narrowed", "narrowed"]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What was found.

    Attributes:
        node: position of the node that is wrong, or of the last one.
        nodes: all that it may be.
        sure: whether it is one.
        note: how it is known.
    """

    node: int
    nodes: tuple[int, ...]
    sure: bool = False
    note: str = ""


def narrowed(
    part: Alone,
    last: int,
    artifact: Artifact,
    feeds: Mapping[str, Array],
    twin: Callable[[], Artifact | None] | None,
    outputs: Outputs,
    tolerances: Tolerances,
) -> Narrowed:
    """The first node of the part whose inputs are as in a fresh compilation and whose result is not.

    Args:
        part: the nodes, with the reference's values that they are given.
        last: the node to name where nothing is found.
        artifact: the file.
        feeds: its inputs.
        twin: compiles anew; what comes back counts only if its own outputs agree with the reference.
        outputs: the reference's.
        tolerances: what counts as equal.
    """
    unsure = Narrowed(last, part.nodes)
    fresh = twin() if twin is not None else None
    if fresh is None:
        return unsure
    inside = [name for position in part.nodes for name in artifact.nodes[position].outputs]
    shared = [name for name in inside if name in fresh.producer]
    try:
        right = fresh.run([*dict.fromkeys([*shared, *fresh.outputs])], fresh.feeds(feeds))
        found = artifact.run_alone([Alone(part.nodes, part.given, tuple(inside))], feeds)[0]
    except GraphForgeError:
        return unsure
    if not outputs.agree({name: right[name] for name in fresh.outputs}):
        return unsure
    wrong: set[str] = set()
    for position in part.nodes:
        node = artifact.nodes[position]
        for name in node.outputs:
            if name not in right:
                continue
            same = right[name].shape == found[name].shape
            if same and compared(name, right[name], found[name], tolerances, any_layout=False)[0] is not None:
                continue
            wrong.add(name)
            if not any(read in wrong for read in node.inputs):
                twins = fresh.nodes[fresh.producer[name]]
                return Narrowed(position, (position,), True, _difference(artifact, position, fresh, twins.position))
    return unsure


def _difference(artifact: Artifact, position: int, fresh: Artifact, other: int) -> str:
    """What a node has otherwise than the one of a fresh compilation."""
    from onnx.helper import get_attribute_value

    mine, theirs = artifact.proto.graph.node[position], fresh.proto.graph.node[other]
    if mine.op_type != theirs.op_type:
        return f"the model compiled anew has a {theirs.op_type} there"
    one = {attribute.name: get_attribute_value(attribute) for attribute in mine.attribute}
    two = {attribute.name: get_attribute_value(attribute) for attribute in theirs.attribute}
    for name in sorted(one.keys() | two.keys()):
        if name not in one or name not in two or str(one[name]) != str(two[name]):
            if any(isinstance(found.get(name), onnx.GraphProto) for found in (one, two)):
                return f"its {name} is not what the model compiled anew has"
            return f"{name} is {one.get(name, 'not given')}; the model compiled anew has {two.get(name, 'none')}"
    for place, (a, b) in enumerate(zip(mine.input, theirs.input, strict=False)):
        if a != b:
            return f"input {place} is {a!r}; the model compiled anew has {b!r}"
        here, there = artifact.constant(a), fresh.constant(b)
        if here is not None and there is not None and (here.shape != there.shape or (here != there).any()):
            return f"the constant {a!r} is not what the model compiled anew has"
    return ""
