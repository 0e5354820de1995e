"""Which opset a model needs as it stands, and which nodes say so.

A node may be read at an older opset when the operator's schema there takes it as it is (inputs, attributes, types) and
means the same by it.  The first is in the schemas; the second is not, so ``graphforge.ir.meaning_changes`` lists the
versions that changed a meaning under the same signature, each with the question that tells whether a node is touched.
Attributes set to their default count as absent.  Where a question cannot be answered, the node keeps its newer opset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.describe import node_name, operator_name, origin_text
from graphforge.ir.infer import schema_of
from graphforge.ir.meaning_changes import spoken_defaults, why_it_differs
from graphforge.ir.versions import conflict_of, versions_of

if TYPE_CHECKING:
    from rich.console import Console


__all__ = [
    "LOWEST",
    "NodeNeed",
    "OperatorNeed",
    "OpsetReport",
    "opset_report",
    "opset_report_of_file",
]

# Nothing asks for less: opset 7 (2017) is the oldest that ONNX Runtime promises to run.
LOWEST = 7

# What a table of nodes shows; the JSON has all of them.
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class NodeNeed:
    """A node and the lowest opset it can be read at.

    Attributes:
        node: name of the node.
        operator: operator.
        lowest: lowest opset.
        reason: what keeps it from the version below, "" when it stands at the bottom.
        origin: where it comes from.
    """

    node: str
    operator: str
    lowest: int
    reason: str
    origin: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "node": self.node,
            "operator": self.operator,
            "lowest": self.lowest,
            "reason": self.reason,
            "origin": self.origin,
        }


@dataclass(frozen=True, slots=True)
class OperatorNeed:
    """All nodes of one operator.

    Attributes:
        operator: operator, with its domain when it is not ONNX's own.
        count: number of nodes.
        since: version of the operator that the model's opset means.
        lowest: lowest opset that reads all of them.
        reason: that of the node that needs most.
    """

    operator: str
    count: int
    since: int
    lowest: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "operator": self.operator,
            "count": self.count,
            "since": self.since,
            "lowest": self.lowest,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class OpsetReport:
    """The answer.

    Attributes:
        opset: opset the model is written in.
        lowest: lowest opset it could be read at as it stands.
        deciding: the nodes that need ``lowest``, in graph order; empty when nothing needs more than the floor.
        operators: one row per operator, by name.
        domains: other domains it imports, with their versions.
        invalid: nodes that are not legal even at ``opset``, with the reason.
        notes: what limits the answer.
    """

    opset: int
    lowest: int
    deciding: tuple[NodeNeed, ...] = ()
    operators: tuple[OperatorNeed, ...] = ()
    domains: Mapping[str, int] = field(default_factory=dict)
    invalid: tuple[NodeNeed, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, in a stable order."""
        return {
            "opset": self.opset,
            "lowest": self.lowest,
            "deciding": [need.to_dict() for need in self.deciding],
            "operators": [need.to_dict() for need in self.operators],
            "domains": dict(sorted(self.domains.items())),
            "invalid": [need.to_dict() for need in self.invalid],
            "notes": list(self.notes),
        }

    def render(self, console: Console) -> None:
        """Print the answer, the nodes that decide it, and the table of operators."""
        from rich.markup import escape
        from rich.table import Table

        console.print(f"written in opset {self.opset}; needs opset [bold]{self.lowest}[/bold] as it stands")
        for need in self.deciding[:_SHOWN]:
            where = f" ({need.origin})" if need.origin else ""
            console.print(escape(f"  {need.operator} {need.node}{where}: {need.reason}"), highlight=False)
        if len(self.deciding) > _SHOWN:
            console.print(f"  and {len(self.deciding) - _SHOWN} more")
        table = Table(title="operators", title_justify="left")
        for name in ("operator", "nodes", "version", "lowest opset", "because"):
            table.add_column(name, overflow="fold")
        for row in sorted(self.operators, key=lambda row: (-row.lowest, row.operator)):
            table.add_row(row.operator, str(row.count), str(row.since), str(row.lowest), escape(row.reason))
        console.print(table)
        for domain, version in sorted(self.domains.items()):
            console.print(f"also imports {domain} version {version}: readable only where that domain is known")
        for need in self.invalid:
            console.print(escape(f"not legal at opset {self.opset}: {need.operator} {need.node}: {need.reason}"))
        for note in self.notes:
            console.print(escape(f"note: {note}"))


def opset_report(model: ir.Model) -> OpsetReport:
    """The lowest opset that reads the model as it stands.

    Raises:
        GraphForgeError: the model imports no opset of ONNX's own domain though it uses its operators.
    """
    opset = _default_opset(model)
    needs: list[NodeNeed] = []
    invalid: list[NodeNeed] = []
    counts: Counter[str] = Counter()
    untyped = 0
    for node in _all_nodes(model):
        counts[operator_name(node)] += 1
        if node.domain not in ("", "ai.onnx"):
            continue
        untyped += any(value.type is None for value in (*node.inputs, *node.outputs) if value is not None)
        conflict = conflict_of(node, opset)
        if conflict is not None:
            invalid.append(_need(node, opset, conflict.text))
            continue
        needs.append(_lowest_of(node, opset))
    lowest = max((need.lowest for need in needs), default=LOWEST)
    notes = []
    if untyped:
        notes.append(f"{untyped} nodes have values of unknown type; an unusual type there could need a newer opset")
    deciding = tuple(need for need in needs if need.lowest == lowest and need.reason)
    operators = []
    for operator in sorted(counts):
        of_operator = [need for need in needs if need.operator == operator]
        most = max(of_operator, key=lambda need: need.lowest, default=None)
        since = max((v for v in versions_of(operator) if v <= opset), default=0)
        operators.append(
            OperatorNeed(
                operator,
                counts[operator],
                since,
                most.lowest if most is not None else 0,
                most.reason if most is not None else "",
            )
        )
    domains = {name: version for name, version in model.opset_imports.items() if name not in ("", "ai.onnx")}
    return OpsetReport(opset, lowest, deciding, tuple(operators), domains, tuple(invalid), tuple(notes))


def opset_report_of_file(path: Path | str) -> OpsetReport:
    """The answer for an ONNX file; types that the file leaves out are inferred, the weights are not read.

    Raises:
        GraphForgeError: there is no such file, or it is not an ONNX model.
    """
    import onnx

    from graphforge.apart import ForeignError, apart
    from graphforge.onnx_io.checking import load_without_weights
    from graphforge.onnx_io.expansion import count_expansion
    from graphforge.onnx_io.importing import deserialized
    from graphforge.onnx_io.origins import read_origins
    from graphforge.onnx_io.safety import check_texts

    path = Path(path)
    if not path.is_file():
        raise GraphForgeError(f"no file {path}")
    proto = load_without_weights(path)
    check_texts(proto, path)
    model = deserialized(proto, str(path))
    count_expansion(model, str(path))
    notes = []

    def infer() -> bytes:
        found = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
        return bytes(found.SerializeToString())

    try:
        content = apart("onnx", f"infer the shapes of {path.name}", infer, file=path, always=True)
        model = deserialized(onnx.ModelProto.FromString(content), str(path))
    except (ForeignError, GraphForgeError) as error:
        notes.append(f"types could not be inferred: {str(error).splitlines()[0]}")
    for node in _all_nodes(model):
        read_origins(node)
    report = opset_report(model)
    return OpsetReport(
        report.opset,
        report.lowest,
        report.deciding,
        report.operators,
        report.domains,
        report.invalid,
        (*report.notes, *notes),
    )


def _default_opset(model: ir.Model) -> int:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is not None:
        return opset
    if any(node.domain in ("", "ai.onnx") for node in model.graph.all_nodes()):
        raise GraphForgeError("the model uses ONNX's own operators, but imports no opset for them")
    return LOWEST


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _need(node: ir.Node, lowest: int, reason: str) -> NodeNeed:
    return NodeNeed(node_name(node), operator_name(node), lowest, reason, origin_text(node))


def _lowest_of(node: ir.Node, opset: int) -> NodeNeed:
    """Go down version by version until the node is not legal or means something else."""
    versions = [version for version in versions_of(node.op_type) if version <= opset]
    reason = ""
    with _without_defaults(node, opset):
        while len(versions) > 1 and versions[-1] > LOWEST:
            below = versions[-1] - 1
            conflict = conflict_of(node, below)
            reason = conflict.text if conflict is not None else why_it_differs(node, versions[-1])
            if reason:
                break
            versions.pop()
    lowest = versions[-1]
    if not reason and lowest > LOWEST:
        reason = f"{node.op_type} came with opset {lowest}"
    return _need(node, max(lowest, LOWEST), reason)


@contextmanager
def _without_defaults(node: ir.Node, opset: int) -> Iterator[None]:
    """The node without the attributes that say what leaving them out would say as well."""
    schema = schema_of(node.op_type, "", opset)
    stated = {}
    for name, attribute in list(node.attributes.items()):
        known = schema.attributes.get(name) if schema is not None else None
        if known is None or not known.default_value.name or name in spoken_defaults(node.op_type):
            continue
        if ir.serde.deserialize_attribute(known.default_value).value == attribute.value:
            stated[name] = node.attributes.pop(name)
    try:
        yield
    finally:
        node.attributes.update(stated)
