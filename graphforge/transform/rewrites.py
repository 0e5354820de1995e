"""Every rewrite that passes make, one by one: which rule fired where, the nodes before it and after it.

``RewriteLog`` is an instrument and a listener: ``Pipeline.run(model, instruments=[log])``.  It can also end a run
behind any of the edits (``RewriteLog(stop_after=n)`` under ``stopped_early``): a pass is replayed up to that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphforge.ir import HOME_OPSET, describe
from graphforge.ir.describe import node_name, origin_text
from graphforge.ir.printer import Columns, row_of
from graphforge.transform.listener import RewriteListener

if TYPE_CHECKING:
    from graphforge.transform.base import Pass
    from graphforge.transform.pipeline import PassRecord

__all__ = ["Declined", "Rewrite", "RewriteLog", "stopped_early"]

_WIDTH = 140
# A lowering can make thousands of nodes of one; a reader wants the first ones.
_MOST_LINES = 24


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewrite: a rule that fired, a node that was replaced, or an edit for itself.

    Attributes:
        pass_name: the pass.
        position: place of the pass in its pipeline, from 0.
        number: which rewrite of the pass it was, from 1.
        rule: the rule that fired; "" where the pass did it itself.
        what: what was done: ``replaced``, or the kind of edit (``attribute alpha``, ``input 1``, ``outputs``).
        node: the node it was about, as it was called before.
        origin: where that node came from.
        before: the lines of the nodes that were matched or replaced.
        after: the lines of the nodes that were made or edited.
        names: the nodes and values concerned, by name, before and after.
        first, last: the edits that it consists of, counted over the whole run of the pass from 1.
    """

    pass_name: str
    position: int
    number: int
    rule: str
    what: str
    node: str
    origin: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    names: tuple[str, ...]
    first: int
    last: int

    def describe(self) -> str:
        """``rewrite 3 of fuse-gelu (FuseGelu) at Mul node 'act' (blocks.0.act, model.py:12)``."""
        by = f" ({self.rule})" if self.rule and self.rule != self.pass_name else ""
        what = "" if self.what == "replaced" else f", {self.what},"
        return f"rewrite {self.number} of {self.pass_name}{by}{what} at {self.node}"

    def lines(self, indent: str = "  ") -> list[str]:
        """Before and after as text."""
        return [
            *(f"{indent}- {line}" for line in self.before),
            *(f"{indent}+ {line}" for line in self.after),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Declined:
    """What nearly fired at a node and did not.

    Attributes:
        pass_name: the pass.
        rule: the rule.
        reason: why not.
        names: the node and its values, by name.
    """

    pass_name: str
    rule: str
    reason: str
    names: tuple[str, ...]


class _Stop(BaseException):
    """Ends a pass in its middle; not an ``Exception``, which would be told as a failure of the pass."""


@contextmanager
def stopped_early() -> Iterator[None]:
    """The end that a ``RewriteLog`` with ``stop_after`` puts to a run."""
    try:
        yield
    except _Stop:
        return


@dataclass
class _Unit:
    """What is known of the rewrite that is going on."""

    first: int
    rule: str = ""
    node: str = ""
    origin: str = ""
    before: tuple[str, ...] = ()
    names: list[str] = field(default_factory=list)
    made: dict[ir.Node, None] = field(default_factory=dict)


class RewriteLog(RewriteListener):
    """Writes down every rewrite.

    Args:
        stop_after: end the run behind so many edits of one pass; see ``stopped_early``.
        texts: write down before and after.

    Attributes:
        rewrites: what was done, in order.
        declined: what nearly was, each once.
    """

    def __init__(self, *, stop_after: int | None = None, texts: bool = True) -> None:
        self.rewrites: list[Rewrite] = []
        self.declined: dict[Declined, None] = {}
        self.stop_after = stop_after
        self.texts = texts
        self._pass = ""
        self._position = -1
        self._edits = 0
        self._number = 0
        self._unit: _Unit | None = None
        self._in_rule = False
        self._was: dict[ir.Node, tuple[str, ...]] = {}

    # An instrument

    def before(self, pass_: Pass, model: ir.Model) -> None:
        """A pass begins."""
        self._pass = pass_.name
        self._position += 1
        self._edits = self._number = 0
        self._unit = None
        self._was.clear()

    def after(self, pass_: Pass, model: ir.Model, record: PassRecord) -> None:
        """A pass ends; what it built and put in nobody's place is told too."""
        self._close_loose()

    # A listener

    def rule_starts(self, rule: str, nodes: Sequence[ir.Node]) -> None:
        """A rewrite begins."""
        self._close_loose()
        self._in_rule = True
        self._unit = self._about(nodes, rule)

    def rule_ends(self, fired: bool) -> None:
        """A rewrite is over."""
        self._in_rule = False
        unit, self._unit = self._unit, None
        if fired and unit is not None:
            self._write(unit, "replaced")

    def node_replacing(self, nodes: Sequence[ir.Node]) -> None:
        """A replacement begins that may be no rule's."""
        if self._in_rule:
            return
        made = {} if self._unit is None else self._unit.made
        first = self._edits + 1 if self._unit is None else self._unit.first
        self._unit = self._about(nodes, "")
        self._unit.made, self._unit.first = made, first

    def node_editing(self, node: ir.Node) -> None:
        """What an edit of its own begins with; of a longer rewrite the first counts."""
        if self.texts and self._unit is None:
            self._was[node] = _lines([node])

    def node_replaced(self, node: ir.Node, made: Sequence[ir.Node]) -> None:
        """A replacement is over."""
        self._edit()
        if not self._in_rule and self._unit is not None:
            unit, self._unit = self._unit, None
            self._write(unit, "replaced")

    def node_created(self, node: ir.Node) -> None:
        """Part of a rewrite."""
        if self._unit is None:
            self._unit = _Unit(self._edits + 1)
        self._unit.made[node] = None
        self._edit()

    def node_erased(self, node: ir.Node) -> None:
        """Part of a rewrite, or one of its own."""
        if self._unit is None:
            unit = self._alone(node)
            self._edit()
            self._write(unit, "erased")
            return
        self._edit()

    def input_changed(self, node: ir.Node, index: int) -> None:
        """Part of a rewrite, or one of its own."""
        self._edited(node, f"input {index}")

    def attribute_changed(self, node: ir.Node, name: str) -> None:
        """Part of a rewrite, or one of its own."""
        self._edited(node, f"attribute {name}")

    def value_changed(self, value: ir.Value) -> None:
        """Part of a rewrite, or one of its own."""
        producer = value.producer()
        if producer is not None:
            self._edited(producer, "type or shape")
        elif self._unit is None:
            unit = _Unit(self._edits + 1, node=f"constant {value.name!r}", names=[value.name or ""])
            self._edit()
            self._write(unit, "data")
        else:
            self._edit()

    def rewrite_declined(self, rule: str, reason: str, node: ir.Node | None) -> None:
        """Written down too."""
        if node is not None and self.texts:
            names = tuple(dict.fromkeys(name for name in _names(node) if name))
            self.declined[Declined(self._pass, rule, reason, names)] = None

    def graph_changed(self, graph: ir.Graph, what: str) -> None:
        """Part of a rewrite, or one of its own."""
        if self._unit is not None or what == "constants":  # a constant alone does nothing until a node reads it
            self._edit()
            return
        unit = _Unit(self._edits + 1, node="the graph")
        self._edit()
        self._write(unit, what)

    def _edited(self, node: ir.Node, what: str) -> None:
        if self._unit is not None:
            self._edit()
            return
        unit = self._alone(node)
        unit.made[node] = None
        self._edit()
        self._write(unit, what)

    def _alone(self, node: ir.Node) -> _Unit:
        """A rewrite that is this one edit."""
        before = self._was.pop(node, ())
        return _Unit(self._edits + 1, "", describe(node), origin_text(node), before, _names(node))

    def _edit(self) -> None:
        self._edits += 1
        if self.stop_after is not None and self._edits >= self.stop_after and not self._in_rule:
            raise _Stop

    def _about(self, nodes: Sequence[ir.Node], rule: str) -> _Unit:
        root = nodes[0]
        return _Unit(
            self._edits + 1,
            rule,
            describe(root),
            origin_text(root),
            _lines(list(reversed(nodes))) if self.texts else (),
            [name for node in nodes for name in _names(node)],
        )

    def _close_loose(self) -> None:
        """What was built outside of rules and has replaced nothing."""
        unit, self._unit = self._unit, None
        if unit is not None and unit.made and not self._in_rule:
            first = next(iter(unit.made))
            unit.node, unit.origin = describe(first), origin_text(first)
            self._write(unit, "created")

    def _write(self, unit: _Unit, what: str) -> None:
        made = [node for node in unit.made if node.graph is not None]
        self._number += 1
        names = dict.fromkeys([*unit.names, *(name for node in made for name in _names(node))])
        self.rewrites.append(
            Rewrite(
                self._pass,
                self._position,
                self._number,
                unit.rule,
                what,
                unit.node,
                unit.origin,
                unit.before,
                _lines(made) if self.texts else (),
                tuple(name for name in names if name),
                unit.first,
                self._edits,
            )
        )
        if self.stop_after is not None and self._edits >= self.stop_after:
            raise _Stop


def _names(node: ir.Node) -> list[str]:
    return [node_name(node), node.name or "", *(value.name or "" for value in node.outputs)]


def _lines(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """The nodes as the printer writes them."""
    shown = nodes[:_MOST_LINES]
    rows = [row_of(node, opset=_opset(node)) for node in shown]
    columns = Columns.fitting(rows, _WIDTH)
    lines = [str(columns.line(row)).rstrip() for row in rows]
    if len(nodes) > len(shown):
        lines.append(f"and {len(nodes) - len(shown)} more nodes")
    return tuple(lines)


def _opset(node: ir.Node) -> int:
    graph = node.graph
    return HOME_OPSET if graph is None else graph.opset_imports.get("", HOME_OPSET)
