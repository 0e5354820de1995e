"""Line up module calls with values of an ONNX graph by origin: which value holds what this call returned.

The graph is optimised, so the line-up is a matter of sets.  The nodes of a module are those with an origin in it or
below it; its outputs are values that these nodes make and other nodes (or the caller) use.  A node that also stands for
a module that runs later (a convolution with the BatchNorm folded in) computes the later one's output: the earlier one
is *merged*.  A node that also stands for the code of an enclosing module may compute more or less than the module: it
is *uncertain*, good for showing that two agree, not for claiming that they do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from graphforge.ir.origin import Origin

__all__ = ["ArtifactGraph", "ArtifactNode", "Candidates", "ModuleCall", "candidates_of"]


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One call of one module in the eager run.

    Attributes:
        module: module path, "" for the model itself.
        module_class: class name, ``torch.nn.modules.conv.Conv2d``.
        call: number of this call of this module, from 0.
        started: time of the call, in ticks of the eager run.
        finished: time of its return.
        shapes: shapes of the tensors it returned.
        dtypes: their dtypes.
        hands_through: it returned a tensor that it was given (Identity, Dropout).
    """

    module: str
    module_class: str
    call: int
    started: int
    finished: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    hands_through: bool = False


@dataclass(frozen=True, slots=True)
class ArtifactNode:
    """A node of the main graph with what the line-up needs.

    Attributes:
        position: place in topological order.
        name: node name.
        op_type: operator.
        outputs: values it makes.
        origins: where it came from.
    """

    position: int
    name: str
    op_type: str
    outputs: tuple[str, ...]
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Values that may hold what a module returned, in topological order.

    Attributes:
        values: value names.
        certain: whether the nodes that make them stand for nothing but this module (and what ran before it).
        merged_into: module that runs later and whose output the module's own nodes compute, "" when there is none.
        origins: this module's own origins among its nodes, for the source line.
        together_with: modules that ran earlier and are computed by the same nodes.
    """

    values: tuple[str, ...] = ()
    certain: bool = True
    merged_into: str = ""
    origins: tuple[Origin, ...] = ()
    together_with: tuple[str, ...] = ()


@dataclass(slots=True)
class ArtifactGraph:
    """The main graph of an ONNX file, indexed by module and by value."""

    nodes: list[ArtifactNode] = field(default_factory=list)
    users: dict[str, list[int]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    by_module: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, proto: onnx.ModelProto, modules: Mapping[str, str]) -> ArtifactGraph:
        """Index a model; ``modules`` maps every path of a module to the one its calls are recorded under."""
        import onnx_ir as ir

        from graphforge.ir.origin import origins_of
        from graphforge.onnx_io.origins import read_origins

        graph = cls(outputs=tuple(value.name for value in proto.graph.output))
        nodes = list(ir.from_proto(proto).graph)
        for position, (node, twin) in enumerate(zip(proto.graph.node, nodes, strict=True)):
            read_origins(twin)
            origins = tuple(origin for origin in origins_of(twin) if origin.module or origin.file)
            outputs = tuple(name for name in node.output if name)
            graph.nodes.append(ArtifactNode(position, node.name, node.op_type, outputs, origins))
            for name in _read_by(node):
                graph.users.setdefault(name, []).append(position)
            below: dict[str, None] = {}
            for origin in origins:
                path = _known(origin.module, modules)
                below.update(dict.fromkeys(_with_ancestors(path)))
            for path in below:
                graph.by_module.setdefault(path, []).append(position)
        return graph


def candidates_of(
    module: str, calls: Mapping[str, Sequence[ModuleCall]], graph: ArtifactGraph, modules: Mapping[str, str]
) -> Candidates:
    """The values that may hold what ``module`` returned in its calls."""
    positions = graph.by_module.get(module, [])
    inside = set(positions)
    outputs = set(graph.outputs)
    values: list[str] = []
    own: dict[Origin, None] = {}
    earlier: dict[str, None] = {}
    certain, merged_into = True, ""
    for position in positions:
        node = graph.nodes[position]
        own.update(dict.fromkeys(o for o in node.origins if _is_below(_known(o.module, modules), module)))
        leaving = [
            name
            for name in node.outputs
            if name in outputs or any(user not in inside for user in graph.users.get(name, ()))
        ]
        if not leaving:
            continue
        verdicts = {
            _known(origin.module, modules): _relation(_known(origin.module, modules), module, calls)
            for origin in node.origins
        }
        later = [path for path, relation in verdicts.items() if relation == "later"]
        if later:
            merged_into = max(later, key=lambda path: calls[path][-1].finished)
            continue
        if "around" in verdicts.values():
            certain = False
        earlier.update((path, None) for path, relation in verdicts.items() if relation == "earlier")
        values.extend(leaving)
    return Candidates(tuple(values), certain, "" if values else merged_into, tuple(own), tuple(earlier))


def _relation(other: str, module: str, calls: Mapping[str, Sequence[ModuleCall]]) -> str:
    """How another origin of a node stands to the module: ``inside``, ``earlier``, ``later`` or ``around``."""
    if _is_below(other, module):
        return "inside"
    if _is_below(module, other) or other not in calls or module not in calls:
        return "around"
    if calls[other][0].started > calls[module][-1].finished:
        return "later"
    if calls[other][-1].finished < calls[module][0].started:
        return "earlier"
    # Called several times in turn: the k-th call of the one belongs to the k-th call of the other.
    if len(calls[other]) == len(calls[module]):
        pairs = list(zip(calls[other], calls[module], strict=True))
        if all(one.started > two.finished for one, two in pairs):
            return "later"
        if all(one.finished < two.started for one, two in pairs):
            return "earlier"
    return "around"


def _known(path: str, modules: Mapping[str, str]) -> str:
    """The path under which calls are recorded: shared modules have several, and exporters mark repeated calls by @n."""
    plain = re.sub(r"@\d+", "", path)
    return modules.get(plain, plain)


def _with_ancestors(path: str) -> Iterator[str]:
    yield ""
    parts = path.split(".") if path else []
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _is_below(path: str, module: str) -> bool:
    return path == module or not module or path.startswith(module + ".")


def _read_by(node: Any) -> Iterable[str]:
    """Values that a node reads, those that its subgraphs take from outside included."""
    names = dict.fromkeys(name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for inner in graph.node:
                names.update(dict.fromkeys(_read_by(inner)))
            names.update(dict.fromkeys(value.name for value in graph.output))
    return names
