"""Which opset a model needs as it stands, and which nodes say so.

A node may be read at an older opset when the operator's schema there takes it as it is (inputs, attributes, types) and
means the same by it.  The first is in the schemas; the second is not, so the versions that changed a meaning under the
same signature are listed here, each with the question that tells whether a node is touched by the change.  Attributes
set to their default count as absent.  Where a question cannot be answered, the node keeps its newer opset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.describe import node_name, operator_name, origin_text
from graphforge.ir.infer import constant_of, schema_of
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

    from graphforge.onnx_io.checking import load_without_weights
    from graphforge.onnx_io.origins import read_origins

    path = Path(path)
    if not path.is_file():
        raise GraphForgeError(f"no file {path}")
    proto = load_without_weights(path)
    notes = []
    try:
        proto = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except Exception as error:  # ONNX raises plain RuntimeErrors of several C++ kinds
        notes.append(f"types could not be inferred: {str(error).splitlines()[0]}")
    model = ir.from_proto(proto)
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
            reason = conflict.text if conflict is not None else _change_of_meaning(node, versions[-1])
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
        if known is None or not known.default_value.name or name in _KEPT.get(node.op_type, ()):
            continue
        if ir.serde.deserialize_attribute(known.default_value).value == attribute.value:
            stated[name] = node.attributes.pop(name)
    try:
        yield
    finally:
        node.attributes.update(stated)


# -- versions that changed a meaning under the same signature ----------------------------------------------------------

# Attributes whose default changed from one version to another: stating it is what makes the node readable below.
_KEPT: Mapping[str, tuple[str, ...]] = {
    "Softmax": ("axis",),
    "LogSoftmax": ("axis",),
    "Hardmax": ("axis",),
    "GridSample": ("mode",),
    "RoiAlign": ("coordinate_transformation_mode",),
}

Question = Callable[[ir.Node], str]


def _change_of_meaning(node: ir.Node, version: int) -> str:
    """Why the node means something else below ``version``; "" when it means the same."""
    question = _CHANGES.get((node.op_type, version))
    return "" if question is None else question(node)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _last_axis_only(node: ir.Node) -> str:
    """Softmax-13 works along one axis; before, all axes from there on were flattened, and the axis was 1 by default."""
    axis, rank = node.attributes.get("axis"), _rank(node.inputs[0])
    if rank is None:
        return "works along one axis only since opset 13, and the rank here is unknown"
    given = -1 if axis is None else axis.as_int()
    if given % rank != rank - 1:
        return f"works along axis {given} alone since opset 13, before it flattened all axes from there on"
    if axis is None and rank != 2:
        return "leaves out the axis, which is the last one since opset 13 and was 1 before"
    return ""


def _negative_axis(node: ir.Node) -> str:
    axis = node.attributes.get("axis")
    axes = node.attributes.get("axes")
    given = [axis.as_int()] if axis is not None else list(axes.as_ints()) if axes is not None else []
    if axis is None and axes is None:
        schema = schema_of(node.op_type, "", 11)
        known = schema.attributes.get("axis") if schema is not None else None
        if known is not None and known.default_value.name:
            given = [known.default_value.i]
    return "counts an axis from the end, which opset 11 brought" if any(number < 0 for number in given) else ""


def _negative_indices(node: ir.Node) -> str:
    found = _negative_axis(node)
    if found:
        return found
    indices = constant_of(node.inputs[1])
    return "has negative indices, which opset 11 brought" if indices is not None and (indices < 0).any() else ""


def _negative_slice_axes(node: ir.Node) -> str:
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return ""
    axes = constant_of(node.inputs[3])
    if axes is None:
        return "has axes that are not constant, and negative ones came with opset 11"
    return "counts an axis from the end, which opset 11 brought" if (axes < 0).any() else ""


def _value_of(name: str, *values: str, since: int) -> Question:
    """The attribute has one of the values that the version brought."""

    def ask(node: ir.Node) -> str:
        attribute = node.attributes.get(name)
        if attribute is None or attribute.as_string() not in values:
            return ""
        return f"sets {name} to {attribute.as_string()}, which opset {since} brought"

    return ask


def _volumetric_or_renamed(node: ir.Node) -> str:
    """GridSample-20: bilinear and bicubic became linear and cubic, and volumes came in."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() in ("linear", "cubic"):
        return f"calls its mode {mode.as_string()}, which was bi{mode.as_string()} before opset 20"
    rank = _rank(node.inputs[0])
    return "" if rank == 4 else "samples something else than 4-D images, which opset 20 brought"


def _per_channel(node: ir.Node) -> str:
    rank = _rank(node.inputs[1])
    return "" if rank == 0 else "has a scale for each channel, which opset 13 brought"


def _broadcasts(node: ir.Node) -> str:
    shapes = [None if value is None or value.shape is None else tuple(value.shape) for value in node.inputs]
    if None not in shapes and len(set(shapes)) <= 1:
        return ""
    return "broadcasts its inputs, which opset 8 brought"


def _floors_floats(node: ir.Node) -> str:
    """Mod-28: fmod=0 takes floats too; before it was for integers alone, and floats had to say fmod=1."""
    fmod, dividend = node.attributes.get("fmod"), node.inputs[0]
    of_integers = dividend is not None and dividend.dtype is not None and dividend.dtype.is_integer()
    if of_integers or (fmod is not None and fmod.as_int() == 1):
        return ""
    return "has fmod=0, which is for integers alone before opset 28"


def _always(text: str) -> Question:
    return lambda node: text


_NEGATIVE_AXIS_AT_11 = (
    "ArgMax ArgMin Concat Flatten GatherElements OneHot ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax "
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Split Squeeze TopK Unsqueeze Softmax LogSoftmax Hardmax"
).split()

_CHANGES: Mapping[tuple[str, int], Question] = {
    **{(operator, 13): _last_axis_only for operator in ("Softmax", "LogSoftmax", "Hardmax")},
    **{(operator, 11): _negative_axis for operator in _NEGATIVE_AXIS_AT_11},
    **{(operator, 8): _broadcasts for operator in ("Max", "Min", "Mean", "Sum")},
    ("Gather", 11): _negative_indices,
    ("Slice", 11): _negative_slice_axes,
    ("DequantizeLinear", 13): _per_channel,
    ("QuantizeLinear", 13): _per_channel,
    ("GridSample", 20): _volumetric_or_renamed,
    ("GroupNormalization", 21): _always("has scale and bias per channel since opset 21, before it had them per group"),
    ("RoiAlign", 16): _always("takes pixels by their centre or states that it does not, which opset 16 brought"),
    ("Mod", 28): _floors_floats,
    ("Pad", 19): _value_of("mode", "wrap", since=19),
    ("Resize", 19): _value_of("coordinate_transformation_mode", "half_pixel_symmetric", since=19),
    ("Resize", 13): _value_of("coordinate_transformation_mode", "half_pixel_symmetric", since=19),
    ("Resize", 11): _always("maps coordinates by the formula that opset 11 brought"),
    ("ScatterElements", 18): _value_of("reduction", "max", "min", since=18),
    ("ScatterND", 18): _value_of("reduction", "max", "min", since=18),
}
