"""Opset by opset: is the model legal there, what has to be rewritten to get there, or which nodes stand in the way.

Nothing is guessed: the graph is walked down by the pass that `compile` uses, one opset at a time, and watched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import onnx_ir as ir

from graphforge.ir import HOME_OPSET
from graphforge.ir.describe import node_name, operator_name
from graphforge.ir.names import NameTable
from graphforge.ir.origin import origins_of
from graphforge.ir.versions import versions_of
from graphforge.passes.opset import Obstacle, lower_graph
from graphforge.passes.opset.engine import LOWEST_OPSET
from graphforge.targets.tables import Form
from graphforge.transform import RewriteListener, Rewriter

__all__ = [
    "Cell",
    "Obstruction",
    "OpsetMatrix",
    "Place",
    "Rewrite",
    "State",
    "Used",
    "as_delivered",
    "opset_matrix",
]

# How many nodes are named where all do the same.
_EXAMPLES = 3


class State(Enum):
    """What one opset can do for the model."""

    AS_IT_STANDS = "as it stands"
    LEGALISED = "legalised"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Place:
    """A node and where it came from.

    Attributes:
        node: its name.
        module: path of the module, "" when unknown.
        source: ``file.py:line``, "" when unknown.
    """

    node: str
    module: str
    source: str

    def to_dict(self) -> dict[str, str | None]:
        """JSON-able form."""
        return {"node": self.node, "module": self.module or None, "source": self.source or None}

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.module, self.source) if part)
        return f"{self.node} ({where})" if where else self.node


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a step to an opset does to the nodes of one operator.

    Attributes:
        operator: the operator.
        opset: the opset that the step arrives at.
        how: the operators that take its place, or what changes in its form.
        count: number of nodes.
        places: the first few of them.
    """

    operator: str
    opset: int
    how: str
    count: int
    places: tuple[Place, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "operator": self.operator,
            "opset": self.opset,
            "how": self.how,
            "count": self.count,
            "nodes": [place.to_dict() for place in self.places],
        }


@dataclass(frozen=True, slots=True)
class Obstruction:
    """A node that lower opsets cannot say.

    Attributes:
        place: the node.
        operator: its operator.
        lowest: lowest opset that would do.
        reason: why.
        cure: what to change in the model, "" when nothing is known.
    """

    place: Place
    operator: str
    lowest: int
    reason: str
    cure: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            **self.place.to_dict(),
            "operator": self.operator,
            "lowest": self.lowest,
            "reason": self.reason,
            "cure": self.cure or None,
        }


@dataclass(frozen=True, slots=True)
class Used:
    """An operator as it is used at one opset.

    Attributes:
        version: the version of the operator that the opset means, 0 in another domain.
        count: number of nodes.
        places: the first few of them.
    """

    version: int
    count: int
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One opset.

    Attributes:
        opset: the opset.
        state: what it can do for the model.
        rewrites: what is rewritten on the way to it, the steps at higher opsets included.
        obstructions: the nodes in the way.
        operators: what the model is made of there, by operator (with its domain when it is not ONNX's own).
        forms: of the forms asked about, those that occur there.
    """

    opset: int
    state: State
    rewrites: tuple[Rewrite, ...] = ()
    obstructions: tuple[Obstruction, ...] = ()
    operators: Mapping[str, Used] = field(default_factory=dict)
    forms: Mapping[Form, Used] = field(default_factory=dict)

    @property
    def step(self) -> tuple[Rewrite, ...]:
        """What the last step to this opset rewrites."""
        return tuple(rewrite for rewrite in self.rewrites if rewrite.opset == self.opset)


@dataclass(frozen=True, slots=True)
class OpsetMatrix:
    """Every opset that can be asked for, the newest first."""

    cells: tuple[Cell, ...]

    @property
    def lowest(self) -> int | None:
        """The lowest opset that the model can be delivered in; None when none can."""
        return min((cell.opset for cell in self.cells if cell.state is not State.IMPOSSIBLE), default=None)


def as_delivered(model: ir.Model, *, outputs: str | None = None, nms: str | None = None) -> None:
    """Bring a canonical model to what the ONNX target delivers at the home opset, with the names it gives; in place.

    Args:
        model: the model.
        outputs, nms: as ``compile`` takes them.
    """
    from graphforge.targets import options_for
    from graphforge.targets.onnx import OnnxTarget
    from graphforge.targets.onnx.naming import assign_names
    from graphforge.transform import Pipeline

    target = OnnxTarget()
    options = options_for(target, opset=HOME_OPSET, outputs=outputs, nms=nms)
    Pipeline(target.pipeline(options)).run(model)
    assign_names(model)


def opset_matrix(model: ir.Model, *, as_it_stands: Iterable[int] = (), forms: Collection[Form] = ()) -> OpsetMatrix:
    """Walk a copy of a model down from the home opset.

    Args:
        model: at the home opset, as ``as_delivered`` leaves it; it is not changed.
        as_it_stands: opsets at which the file that the model was read from is legal without a change.
        forms: forms of operators to look for at each opset.
    """
    unchanged = frozenset(as_it_stands)
    # One walk to the bottom finds every node in the way; the graph is good for nothing afterwards if there was one.
    trial = model.clone()
    obstacles = [_obstruction(obstacle) for obstacle in lower_graph(Rewriter(trial), LOWEST_OPSET)]
    floor = max((obstacle.lowest for obstacle in obstacles), default=LOWEST_OPSET)
    walked = model.clone()
    names = NameTable(walked)
    cells = []
    rewrites: list[Rewrite] = []
    for opset in range(HOME_OPSET, LOWEST_OPSET - 1, -1):
        if opset < HOME_OPSET and opset >= floor:
            step, late = _step(walked, opset, names)
            rewrites += step
            if late:  # not legal there for a reason that no rule foresaw
                obstacles += late
                floor = opset + 1
        if opset < floor and opset not in unchanged:
            relevant = tuple(item for item in obstacles if item.lowest > opset)
            cells.append(Cell(opset, State.IMPOSSIBLE, obstructions=relevant))
            continue
        free = not rewrites or opset in unchanged
        state = State.AS_IT_STANDS if free else State.LEGALISED
        there = walked if opset >= floor else model
        operators, found = _operators(there, opset), _forms(there, opset, forms)
        cells.append(Cell(opset, state, () if free else tuple(rewrites), operators=operators, forms=found))
    return OpsetMatrix(tuple(cells))


class _Replacements(RewriteListener):
    """Remembers what replaced what."""

    def __init__(self) -> None:
        self.found: list[tuple[ir.Node, tuple[str, ...]]] = []

    def node_replaced(self, node: ir.Node, made: Sequence[ir.Node]) -> None:
        self.found.append((node, tuple(one.op_type for one in made)))


def _step(model: ir.Model, opset: int, names: NameTable) -> tuple[list[Rewrite], list[Obstruction]]:
    before = {node: (_place(node), _form(node)) for node in model.graph.all_nodes()}
    replacements = _Replacements()
    rewriter = Rewriter(model, pass_name="legalise-opset", names=names, listeners=[replacements])
    obstacles = [_obstruction(obstacle) for obstacle in lower_graph(rewriter, opset)]
    groups: dict[tuple[str, str], list[Place]] = {}
    replaced = set()
    for node, made in replacements.found:
        if node in before and node not in replaced:
            replaced.add(node)
            groups.setdefault((operator_name(node), _as_operators(made)), []).append(before[node][0])
    for node, (place, form) in before.items():
        if node in replaced or node.graph is None:
            continue
        change = _change(form, _form(node))
        if change:
            groups.setdefault((operator_name(node), change), []).append(place)
    rewrites = [
        Rewrite(operator, opset, how, len(places), tuple(places[:_EXAMPLES]))
        for (operator, how), places in sorted(groups.items(), key=lambda item: item[0])
    ]
    return rewrites, obstacles


def _as_operators(made: Sequence[str]) -> str:
    return "written as " + ", ".join(dict.fromkeys(made)) if made else "dropped, it does nothing there"


@dataclass(frozen=True, slots=True)
class _Form:
    """How a node is written: its plain attributes, the names of the others, and how many inputs it has."""

    attributes: Mapping[str, str]
    inputs: int


_PLAIN = (
    ir.AttributeType.INT,
    ir.AttributeType.FLOAT,
    ir.AttributeType.STRING,
    ir.AttributeType.INTS,
    ir.AttributeType.FLOATS,
    ir.AttributeType.STRINGS,
)


def _form(node: ir.Node) -> _Form:
    attributes = {
        name: str(attribute.value) if attribute.type in _PLAIN else "" for name, attribute in node.attributes.items()
    }
    return _Form(attributes, sum(value is not None for value in node.inputs))


def _change(before: _Form, after: _Form) -> str:
    """``axes from input to attribute``: how a node that stayed differs."""
    gained = sorted(set(after.attributes) - set(before.attributes))
    lost = sorted(set(before.attributes) - set(after.attributes))
    if gained and after.inputs < before.inputs:
        return f"{', '.join(gained)} from input to attribute"
    if lost and after.inputs > before.inputs:
        return f"{', '.join(lost)} from attribute to input"
    parts = []
    if gained:
        parts.append(f"states {', '.join(gained)}")
    if lost:
        parts.append(f"leaves out {', '.join(lost)}, which says what the older version does anyway")
    for name, value in after.attributes.items():
        if before.attributes.get(name, value) != value:
            parts.append(f"{name} {before.attributes[name]} becomes {value}")
    if not parts and before.inputs != after.inputs:
        parts.append(f"{before.inputs} inputs become {after.inputs}")
    return "; ".join(parts)


def _forms(model: ir.Model, opset: int, forms: Collection[Form]) -> dict[Form, Used]:
    found: dict[Form, list[ir.Node]] = {}
    for form in forms:
        version = max((one for one in versions_of(form.operator) if one <= opset), default=0)
        if form.holds_at(version):
            found[form] = [node for node in model.graph.all_nodes() if form.means(node)]
    return {
        form: Used(opset, len(nodes), tuple(_place(node) for node in nodes[:_EXAMPLES]))
        for form, nodes in found.items()
        if nodes
    }


def _operators(model: ir.Model, opset: int) -> dict[str, Used]:
    counts: Counter[str] = Counter()
    places: dict[str, list[Place]] = {}
    for node in model.graph.all_nodes():
        operator = operator_name(node)
        counts[operator] += 1
        seen = places.setdefault(operator, [])
        if len(seen) < _EXAMPLES:
            seen.append(_place(node))
    return {
        operator: Used(
            max((version for version in versions_of(operator) if version <= opset), default=0),
            counts[operator],
            tuple(places[operator]),
        )
        for operator in sorted(counts)
    }


def _place(node: ir.Node) -> Place:
    origins = origins_of(node)
    module = next((origin.module for origin in origins if origin.module), "")
    source = next((origin.source for origin in origins if origin.source), "")
    return Place(node_name(node), module, source)


def _obstruction(obstacle: Obstacle) -> Obstruction:
    node = obstacle.node
    return Obstruction(_place(node), operator_name(node), obstacle.opset, obstacle.reason, obstacle.cure)
