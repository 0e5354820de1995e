"""Which value of the file stands for which value of the reference, as far as the file says it.

A node that stands for several values of the program (a convolution with a BatchNorm in it) computes the one that comes
last.  Nodes that stand for the same value (a MatMul and the Add behind it) compute it together: the one whose result is
read by others holds it.  What the file says is a claim, and the numbers decide what becomes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphforge.diagnosis.artifact import Artifact, ArtifactNode
from graphforge.diagnosis.tape import Key, Tape

__all__ = ["Claim", "claims_of", "merged_into"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a value of the file may stand for.

    Attributes:
        keys: values of the reference, the likeliest first.
        certain: whether a difference from the first one tells anything; else only agreement does.
    """

    keys: tuple[Key, ...]
    certain: bool


def claims_of(artifact: Artifact, tape: Tape) -> dict[str, Claim]:
    """Value of the file -> what it may stand for."""
    latest = {node.position: _latest(node, tape) for node in artifact.nodes}
    groups: dict[str, list[ArtifactNode]] = {}
    for node in artifact.nodes:
        if latest[node.position]:
            groups.setdefault(latest[node.position], []).append(node)
    claims: dict[str, Claim] = {}
    for name, nodes in groups.items():
        claims |= _of_group(tape.by_name[name], nodes, artifact, latest)
    for node in artifact.nodes if tape.by_value else ():
        for name in node.outputs:
            key = tape.by_value.get(name)
            if key is None or tape.entries[key].operator != node.operator:
                continue
            other = claims.get(name)
            if other is None or key in other.keys:
                claims[name] = Claim((key,), True)
            else:
                claims[name] = Claim((key, *other.keys), False)
    return claims


def _latest(node: ArtifactNode, tape: Tape) -> str:
    """The program's value that a node computes: of those it stands for, the one that comes last; "" for none."""
    known = [origin.value for origin in node.origins if origin.value in tape.by_name]
    if any(not origin.value for origin in node.origins):
        return ""  # a pass has said that it computes something else now
    return max(known, key=lambda name: tape.entries[tape.by_name[name][0]].order, default="")


def _of_group(
    keys: list[Key], nodes: list[ArtifactNode], artifact: Artifact, latest: Mapping[int, str]
) -> dict[str, Claim]:
    inside = {node.position for node in nodes}
    leaving = [
        name
        for node in nodes
        for name in node.outputs
        if name in artifact.outputs or any(reader not in inside for reader in artifact.readers.get(name, ()))
    ]
    ours = all(node.is_ours for node in nodes)
    alone = len(leaving) == 1 and len(keys) == 1
    several = len(keys) > 1 and len(nodes) == 1
    claims = {}
    for number, name in enumerate(leaving):
        if len(keys) > 1 and len(leaving) == len(keys) and not several:  # the pieces of a tensor, a node for each
            ordered = [keys[number], *keys[:number], *keys[number + 1 :]]
            claims[name] = Claim(tuple(ordered), ours)
        elif several:
            place = nodes[0].outputs.index(name)
            ordered = [*keys[place : place + 1], *keys[:place], *keys[place + 1 :]]
            claims[name] = Claim(tuple(ordered), ours and len(nodes[0].outputs) == len(keys))
        else:
            claims[name] = Claim(tuple(keys), ours and (alone or (len(keys) == 1 and name == leaving[-1])))
    return claims


def merged_into(tape: Tape, artifact: Artifact) -> dict[str, str]:
    """Value of the program -> the later one that the file computes together with it."""
    found: dict[str, str] = {}
    for node in artifact.nodes:
        last = _latest(node, tape)
        for origin in node.origins:
            if last and origin.value != last and origin.value in tape.by_name:
                found.setdefault(origin.value, last)
    return found
