"""`graphforge.explain`: where a node comes from and why it is as it is, or what a pass did and what it left alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.errors import GraphForgeError
from graphforge.prepare import ModelLike, Prepared, prepare, to_ir
from graphforge.shown import Shown

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from graphforge.journal import Progress
    from graphforge.targets.target import Target
    from graphforge.transform import Pass, PassRecord, Rewrite
    from graphforge.transform.rewrites import Declined

__all__ = ["ExplainReport", "History", "NodeAccount", "PassAccount", "explain", "history_of"]

_MOST = 20


@dataclass(frozen=True, slots=True)
class NodeAccount:
    """One node.

    Attributes:
        name: as the delivered file calls it.
        line: the node as the printer writes it; "" for one that is gone.
        came_from: its origins, the main one first.
        captured: the nodes that it goes back to, as they were captured.
        rewrites: what passes did to it and to what it goes back to, in order.
        declined: what nearly fired here, and why it did not.
        types: why its results have their element types and shapes.
        gone: what took it out of the graph, "" for one that is delivered.
    """

    name: str
    line: str
    came_from: tuple[str, ...]
    captured: tuple[str, ...]
    rewrites: tuple[Rewrite, ...]
    declined: tuple[Declined, ...]
    types: tuple[str, ...]
    gone: str = ""

    def lines(self) -> Iterable[str]:
        """As text."""
        yield self.line or f"{self.name}: not in the delivered graph"
        if self.gone:
            yield f"  gone: {self.gone}"
        yield from (f"  from {origin}" for origin in self.came_from)
        if self.captured:
            yield "  captured as"
            yield from (f"    {line}" for line in self.captured)
        for rewrite in self.rewrites[:_MOST]:
            yield f"  {rewrite.describe()}"
            yield from rewrite.lines("    ")
        if len(self.rewrites) > _MOST:
            yield f"  and {len(self.rewrites) - _MOST} more rewrites"
        if not self.rewrites:
            yield "  no pass changed it"
        yield from (f"  {line}" for line in self.types)
        for miss in self.declined:
            rule = "" if miss.rule == miss.pass_name else f" ({miss.rule})"
            yield f"  not rewritten by {miss.pass_name}{rule}: {miss.reason}"


@dataclass(frozen=True, slots=True)
class PassAccount:
    """One pass.

    Attributes:
        spec: the pass with its options.
        says: what it does, in its own words.
        place: which of how many it is.
        seconds: how long it took.
        nodes: of the graph, before and after.
        rewrites: what it did, in order.
        declined: what it nearly did.
        notes: what it wants to be known.
    """

    spec: str
    says: str
    place: str
    seconds: float
    nodes: tuple[int, int]
    rewrites: tuple[Rewrite, ...]
    declined: tuple[Declined, ...]
    notes: tuple[str, ...]

    def lines(self) -> Iterable[str]:
        """As text."""
        yield f"{self.spec} ({self.place}): {self.says}"
        before, after = self.nodes
        count = len(self.rewrites)
        yield f"  {count} rewrite{'s' * (count != 1)}, {before} -> {after} nodes, {self.seconds * 1000:.1f} ms"
        yield from (f"  note: {note}" for note in self.notes)
        for rewrite in self.rewrites[:_MOST]:
            yield f"  {rewrite.describe()}"
            yield from rewrite.lines("    ")
        if count > _MOST:
            yield f"  and {count - _MOST} more rewrites"
        for miss in self.declined[:_MOST]:
            rule = "" if miss.rule == miss.pass_name else f" ({miss.rule})"
            yield f"  not at {miss.names[0]}{rule}: {miss.reason}"
        if len(self.declined) > _MOST:
            yield f"  and {len(self.declined) - _MOST} more places"
        if not count and not self.declined:
            yield "  nothing in this graph is like what it looks for"


@dataclass(frozen=True, slots=True, repr=False)
class ExplainReport(Shown):
    """The answer.

    Attributes:
        asked: what was asked about.
        accounts: of the nodes or of the runs of a pass.
    """

    asked: str
    accounts: tuple[NodeAccount | PassAccount, ...]

    def summary(self) -> str:
        """How much was found."""
        return f"{self.asked}: {len(self.accounts)} found"

    def render(self, console: Console) -> None:
        """Print the accounts."""
        from rich.markup import escape

        for account in self.accounts[:_MOST]:
            for line in account.lines():
                console.print(escape(line), highlight=False, soft_wrap=True)
        if len(self.accounts) > _MOST:
            console.print(f"and {len(self.accounts) - _MOST} more")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        from dataclasses import asdict

        return {"asked": self.asked, "found": [asdict(account) for account in self.accounts]}


@dataclass(slots=True)
class History:
    """A model run through its passes, every rewrite written down.

    Attributes:
        captured: line of each captured node, by the names of its values.
        rewrites: what was done, in order.
        declined: what nearly was.
        records: one for each pass.
        passes: the passes.
        model: the delivered graph.
        names: name of each delivered node and value in the file -> what passes called it.
    """

    captured: dict[str, str]
    rewrites: list[Rewrite]
    declined: list[Declined]
    records: list[PassRecord]
    passes: list[Pass]
    model: ir.Model
    names: dict[str, str] = field(default_factory=dict)

    def of(self, names: Iterable[str]) -> tuple[list[Rewrite], set[str]]:
        """The rewrites that led to something of these names, in order, and all the names that it had on the way."""
        known = {name for name in names if name}
        found = []
        for rewrite in reversed(self.rewrites):
            if known & set(rewrite.names):
                found.append(rewrite)
                known |= set(rewrite.names)
        return found[::-1], known


def history_of(prepared: Prepared, planned: Any) -> History:
    """Capture a model and run its passes with every rewrite written down.

    Args:
        prepared: the model.
        planned: its target and passes, from ``graphforge.options.plan``.
    """
    from graphforge.targets.onnx.naming import assign_names
    from graphforge.transform import Pipeline, RewriteLog

    model, _ = to_ir(prepared, target=planned.target.name)
    captured: dict[str, str] = {}
    for node in model.graph.all_nodes():
        line = _line(node)
        captured |= dict.fromkeys(_names(node), line)
    log = RewriteLog()
    passes = [*planned.canonical, *planned.legalising]
    records = Pipeline(passes).run(model, [log])
    before = [
        (node, [node.name or "", *(value.name or "" for value in node.outputs)]) for node in model.graph.all_nodes()
    ]
    assign_names(model)
    names = {}
    for node, earlier in before:
        for new, old in zip([node.name or "", *(value.name or "" for value in node.outputs)], earlier, strict=True):
            names[new] = old
    return History(captured, log.rewrites, list(log.declined), records, passes, model, names)


def explain(
    model: ModelLike,
    what: str,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    passes: Sequence[Pass] = (),
    pipeline: str | Sequence[Pass] | None = None,
    target: str | Target = "onnx",
    opset: int | None = None,
    precision: str | None = None,
    target_options: Mapping[str, Any] | None = None,
    outputs: str | None = None,
    nms: str | None = None,
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> ExplainReport:
    """Tell where a node of the delivered graph comes from, or what a pass did.

    For a node: its source line, what was captured, each rewrite with before and after, what nearly fired there and why
    it did not, and why it has its element type and shape.  For a pass: each rewrite, and each place that it left alone.

    Args:
        model: the model, as ``graphforge.compile`` takes it.
        what: a node or value by the name that the delivered file, or a message, gives it; a module, for all of its
            nodes; or a pass.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        passes, pipeline, target, opset, precision, target_options, outputs, nms: as ``graphforge.compile`` takes them.
        substitutes, custom_ops: your own declarations for this call.
        seed: of random inputs.
        progress: called with the name of each step.

    Raises:
        GraphForgeError: there is neither a node nor a pass of that name.
    """
    from graphforge.onnx_io.blame import blaming
    from graphforge.options import CompileOptions, plan

    with declarations(substitutes, custom_ops), blaming(model):
        planned = plan(
            CompileOptions(
                target=target,
                opset=opset,
                precision=precision,
                target_options=target_options or {},
                outputs=outputs,
                nms=nms,
                passes=passes,
                pipeline=pipeline,
            )
        )
        prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        if progress is not None:
            progress("capture and passes")
        history = history_of(prepared, planned)
    accounts: list[NodeAccount | PassAccount] = [*_of_pass(history, what)]
    accounts = accounts or [*_of_nodes(history, what, prepared)]
    if not accounts:
        known = [item.name for item in history.passes] + [*history.names, *history.captured]
        near = difflib.get_close_matches(what, known, n=3)
        raise GraphForgeError(
            f"there is neither a node, a module nor a pass {what!r} here",
            f"did you mean {', '.join(near)}?" if near else "",
            "names of nodes are those of the delivered file: `graphforge inspect` lists them",
        )
    return ExplainReport(what, tuple(accounts))


def _of_pass(history: History, what: str) -> Iterable[PassAccount]:
    for position, (item, record) in enumerate(zip(history.passes, history.records, strict=True)):
        if what not in (item.name, item.spec()):
            continue
        yield PassAccount(
            item.spec(),
            type(item).summary(),
            f"pass {position + 1} of {len(history.passes)}",
            record.seconds,
            (record.nodes_before, record.nodes_after),
            tuple(rewrite for rewrite in history.rewrites if rewrite.position == position),
            tuple(miss for miss in history.declined if miss.pass_name == item.name),
            record.notes,
        )


def _of_nodes(history: History, what: str, prepared: Prepared) -> Iterable[NodeAccount]:
    from graphforge.ir.origin import origins_of

    def is_meant(node: ir.Node) -> bool:
        names = [node.name or "", *(value.name or "" for value in node.outputs)]
        return what in names or what in [history.names.get(name) for name in names]

    nodes = list(history.model.graph.all_nodes())
    found = [node for node in nodes if is_meant(node)] or [
        node
        for node in nodes
        if any(origin.module == what or origin.module.startswith(f"{what}.") for origin in origins_of(node))
    ]
    for node in found:
        names = _names(node)
        rewrites, ever = history.of(history.names.get(name, name) for name in names)
        yield NodeAccount(
            node.name or names[0],
            _line(node),
            tuple(_origin_line(origin) for origin in origins_of(node)),
            tuple(dict.fromkeys(history.captured[name] for name in history.captured if name in ever))[:_MOST],
            tuple(rewrites),
            tuple(miss for miss in history.declined if ever & set(miss.names)),
            tuple(_types(node, prepared)),
        )
    if not found:
        yield from _gone(history, what)


def _gone(history: History, what: str) -> Iterable[NodeAccount]:
    """A node that was captured, or made by a pass, and that a later one took away."""
    touched = [rewrite for rewrite in history.rewrites if what in rewrite.names]
    if not touched and what not in history.captured:
        return
    last = touched[-1] if touched else None
    yield NodeAccount(
        what,
        "",
        (),
        (history.captured[what],) if what in history.captured else (),
        tuple(touched),
        tuple(miss for miss in history.declined if what in miss.names),
        (),
        "nobody reads it" if last is None else last.describe(),
    )


def _types(node: ir.Node, prepared: Prepared) -> Iterable[str]:
    """Why the results have their element types and shapes."""
    from graphforge.ir.printer import short_type

    read = [f"{value.name or '?'} {short_type(value)}" for value in node.inputs if value is not None]
    dims = {}
    for tensor in prepared.shapes.inputs:
        for axis, dim in tensor.dims.items():
            dims[dim.name] = f"{dim.name} is axis {axis} of input {tensor.name} ({dim.low} to {dim.high})"
    for value in node.outputs:
        if value.type is None:
            continue
        named = [dims[str(dim)] for dim in value.shape or () if not isinstance(dim, int) and str(dim) in dims]
        yield (
            f"{value.name}: {short_type(value)} by ONNX's rule for {node.op_type} of {', '.join(read) or 'nothing'}"
            + (f"; {'; '.join(dict.fromkeys(named))}" if named else "")
        )
    if node.op_type == "Cast" and "to" in node.attributes:
        yield "its element type is what the Cast is to"


def _origin_line(origin: Any) -> str:
    by = f", made by {origin.made_by}" if origin.made_by else ""
    called = f", called from {' < '.join(origin.callers)}" if getattr(origin, "callers", ()) else ""
    return f"{origin.describe()}{by}{called}"


def _names(node: ir.Node) -> list[str]:
    return [name for name in (node.name or "", *(value.name or "" for value in node.outputs)) if name]


def _line(node: ir.Node) -> str:
    from graphforge.ir.printer import Columns, row_of

    row = row_of(node)
    return str(Columns.fitting([row], 160).line(row)).strip()
