"""The graph for people: one node a line in aligned columns, types short, weights by their shape, origin at the end.

    x0   f32[n,8,16,16] = Conv(x, [8,3,3,3] f32, [8] f32, pads=[1,1,1,1])    stem    net.py:16

Nothing reads it back; the form with every detail that ``from_text`` reads is ``to_text``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.ir.bodies import bodies_of, nodes_of
from graphforge.ir.builder import HOME_OPSET
from graphforge.ir.describe import operator_name
from graphforge.ir.infer import schema_of
from graphforge.ir.origin import Origin, origins_of

__all__ = [
    "FILE_OPSET",
    "Columns",
    "Line",
    "Row",
    "Span",
    "lines_of",
    "print_graph",
    "row_of",
    "short_source",
    "short_type",
]

# Constants of up to this many elements are written with their values, as long as that stays this short: integers are
# shapes and axes, which a reader wants to see; floats are mostly weights, except for round ones.
_INLINE_ELEMENTS = 8
_INTEGER_LETTERS, _FLOAT_LETTERS = 40, 20
# The origins stand in one column up to this width of the operations.
_LONGEST_EXPRESSION = 88
# In a narrow terminal the origin is left out before the operation gets less than this.
_LEAST_EXPRESSION = 28
_ELLIPSIS = ".."
# Key in model.meta: the opset of the file that a graph was read from, where it was raised to the home opset.
FILE_OPSET = "graphforge.file_opset"

# How each kind of text looks on a terminal (SGR codes).
_COLOURS = {"name": "", "type": "36", "operator": "1", "weight": "2", "attribute": "33", "origin": "2;32", "head": "1"}


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line.

    Attributes:
        text: the letters.
        kind: what they are: name, type, operator, weight, attribute, origin, head, or "" for punctuation.
    """

    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line."""

    spans: tuple[Span, ...]

    def __str__(self) -> str:
        return "".join(span.text for span in self.spans).rstrip()

    def coloured(self) -> str:
        """The line with colours for a terminal."""
        return "".join(_coloured(span) for span in self.spans).rstrip()


@dataclass(frozen=True, slots=True)
class Row:
    """One node before it is laid out in columns.

    Attributes:
        depth: how many graphs enclose it.
        names: what its outputs are called.
        types: what they are.
        expression: operator, operands and attributes.
        module: path of the module it comes from, else its own name where that says something.
        source: the Python line it comes from.
        operands: which spans of the expression are the operands, by input position.
        attributes: which spans of the expression are the attributes, by name.
    """

    depth: int
    names: str
    types: str
    expression: tuple[Span, ...]
    module: str = ""
    source: str = ""
    operands: Mapping[int, int] = field(default_factory=dict)
    attributes: Mapping[str, int] = field(default_factory=dict)


def print_graph(model: ir.Model, *, width: int | None = None, colour: bool = False) -> str:
    """The model as text for people.

    Args:
        model: the model.
        width: letters to a line, what is longer is cut; None lets lines be as long as they are.
        colour: put in the colours of a terminal.
    """
    return "".join(f"{line.coloured() if colour else line}\n" for line in lines_of(model, width=width))


def lines_of(model: ir.Model, *, width: int | None = None) -> Iterator[Line]:
    """The lines of ``print_graph``, one after the other."""
    graph = model.graph
    opset = graph.opset_imports.get("", HOME_OPSET)
    rows = list(_rows(graph, 0, opset))
    columns = Columns.fitting([row for row in rows if isinstance(row, Row)], width)
    yield Line((Span(_facts(model), "head"),))
    yield from _signature(graph, width)
    yield Line(())
    for row in rows:
        yield columns.line(row) if isinstance(row, Row) else row
    for function in model.functions.values():
        yield Line(())
        inputs = ", ".join(_name(value) for value in function.inputs)
        outputs = ", ".join(_name(value) for value in function.outputs)
        name = f"{function.domain}::{function.name}" if function.domain else function.name
        yield Line((Span("function "), Span(name, "operator"), Span(f"({inputs}) -> {outputs}")))
        inner = list(_rows(function.graph, 1, opset))
        laid_out = Columns.fitting([row for row in inner if isinstance(row, Row)], width)
        for row in inner:
            yield laid_out.line(row) if isinstance(row, Row) else row


def _facts(model: ir.Model) -> str:
    graph = model.graph
    weights = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    domains = [f"{domain} {version}" for domain, version in graph.opset_imports.items() if domain]
    opset = graph.opset_imports.get("", HOME_OPSET)
    written = model.meta.get(FILE_OPSET, opset)
    parts = [
        f"opset {opset}" + (f" ({written} in the file)" if written != opset else ""),
        *domains,
        _counted(sum(1 for _ in nodes_of(graph)), "node"),
        f"{_counted(len(weights), 'constant')} of {_bytes(sum(weight.nbytes for weight in weights))}"
        if weights
        else "",
    ]
    return f"{graph.name or 'graph'}: {', '.join(filter(None, parts))}"


def _signature(graph: ir.Graph, width: int | None) -> Iterator[Line]:
    """The inputs and outputs, one a line."""
    both = [("in ", value) for value in graph.inputs] + [("out", value) for value in graph.outputs]
    longest = min(max((len(_name(value)) for _, value in both), default=0), 40)
    for word, value in both:
        shown = short_type(value)
        line = Line((Span(f"{word}  "), Span(f"{_name(value):{longest}}", "name"), Span("  "), Span(shown, "type")))
        yield _cut(line, width)


def _rows(graph: ir.Graph | ir.Function, depth: int, opset: int) -> Iterator[Row | Line]:
    indent = "  " * (depth + 1)
    for node in graph:
        yield row_of(node, depth=depth, opset=opset)
        if not bodies_of(node):
            continue
        for name, attribute in node.attributes.items():
            bodies = (
                [attribute.as_graph()]
                if attribute.type == ir.AttributeType.GRAPH
                else attribute.as_graphs()
                if attribute.type == ir.AttributeType.GRAPHS
                else []
            )
            for body in bodies:
                inputs = ", ".join(f"{_name(value)} {short_type(value)}" for value in body.inputs)
                yield Line((Span(indent), Span(name, "attribute"), Span(f"({inputs}):" if inputs else ":")))
                yield from _rows(body, depth + 2, opset)
                outputs = ", ".join(_name(value) for value in body.outputs)
                yield Line((Span(f"{indent}  -> "), Span(outputs, "name")))


def row_of(node: ir.Node, *, depth: int = 0, opset: int = HOME_OPSET, wanted: str | None = None) -> Row:
    """One node, ready to be laid out; the ``wanted`` attribute is shown whatever it says."""
    shown = [value for value in node.outputs if value.name or value.type is not None]
    spans = [Span(operator_name(node), "operator"), Span("(")]
    operands: dict[int, int] = {}
    attributes: dict[str, int] = {}
    for position, value in enumerate(node.inputs):
        if position:
            spans.append(Span(", "))
        operands[position] = len(spans)
        spans.append(_operand(value))
    for name, attribute in node.attributes.items():
        if attribute.type in _BODIES or (name != wanted and _says_nothing(node, attribute, opset)):
            continue  # bodies are printed below
        if len(spans) > 2:
            spans.append(Span(", "))
        attributes[name] = len(spans)
        spans.append(Span(f"{name}={_attribute(attribute)}", "attribute"))
    spans.append(Span(")"))
    origin = next(iter(origins_of(node)), Origin())
    return Row(
        depth,
        ", ".join(_name(value) for value in shown),
        ", ".join(short_type(value) for value in shown),
        tuple(spans),
        origin.module or ("" if origin.source else _own_name(node)),
        short_source(origin),
        operands,
        attributes,
    )


def _own_name(node: ir.Node) -> str:
    """The node's name where neither its output nor its number already says it."""
    name = node.name or ""
    return "" if name.startswith("node_") or any(name == value.name for value in node.outputs) else name


def short_source(origin: Origin) -> str:
    """The source line without the folders that every file of the program shares."""
    if not origin.source:
        return ""
    for folder in ("/site-packages/", "/dist-packages/"):
        if folder in origin.source:
            return origin.source.rpartition(folder)[2]
    return origin.source.replace("\\", "/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Columns:
    """The widths to which the columns are filled up, and the width of a line where there is one."""

    names: int
    types: int
    expression: int
    module: int
    source: int
    width: int | None = None

    @classmethod
    def fitting(cls, rows: Sequence[Row], width: int | None = None) -> Columns:
        """Columns that most of the rows fit into, within the width of a line where there is one."""
        names = _usual(len(row.names) + 2 * row.depth for row in rows)
        types = _usual(len(row.types) for row in rows)
        expression = _usual((_letters(row.expression) for row in rows), spare=24)
        module = max((len(row.module) for row in rows), default=0)
        source = max((len(_short_place(row.source, width)) for row in rows), default=0)
        if width is None:
            return cls(names, types, min(expression, _LONGEST_EXPRESSION), module, source)
        # The operation is what a reader came for: the others give way to it, the module path first.
        names, types = min(names, width // 5), min(types, width // 4)
        free = width - names - types - 5
        wanted = min(expression, _LEAST_EXPRESSION)
        source = source if free - wanted >= source + 2 else 0
        module = min(module, max(free - expression - source - 4, free // 4))
        module = module if source and module >= 8 and free - wanted >= module + source + 4 else 0
        expression = min(expression, free - sum(size + 2 for size in (module, source) if size))
        return cls(names, types, max(expression, 0), module, source, width)

    def line(self, row: Row) -> Line:
        """The row as a line."""
        expression, origin = row.expression, self._origin(row)
        head = self._head(row)
        used = _letters(head)
        if self.width is not None:
            expression = _shortened(expression, self.width - used - (len(origin) + 2 if origin.strip() else 0))
        spans = [*head, *expression]
        if origin.strip():
            fill = self.names + self.types + 5 + self.expression - _letters(spans)
            spans.append(Span(" " * max(fill, 0) + "  "))
            spans.append(Span(origin, "origin"))
        return Line(tuple(spans))

    def start_of_expression(self, row: Row) -> int:
        """The column in which the row's operator begins."""
        return _letters(self._head(row))

    def _head(self, row: Row) -> list[Span]:
        names, types = f"{'  ' * row.depth}{row.names}", row.types
        if self.width is not None:
            types = _keep_start(types, max(self.types, self.width // 4))
            names = _keep_end(names, max(self.names, self.width // 5))
        # names that are too long take from the blanks behind the types, so that the next column stays aligned
        filled = f"{names:{self.names}}"
        types = f"{types:{max(self.types - len(filled) + self.names, 0)}}"
        return [Span(filled, "name"), Span("  "), Span(types, "type"), Span(" = ")]

    def _origin(self, row: Row) -> str:
        if self.width is None:
            return f"{row.module:{self.module}}  {row.source}" if self.module else row.source
        module = f"{_keep_end(row.module, self.module):{self.module}}  " if self.module else ""
        return f"{module}{_short_place(row.source, self.width):{self.source}}" if self.source else ""


def _short_place(source: str, width: int | None) -> str:
    """Where lines have to fit a width, files go by their name alone."""
    return source if width is None else source.rpartition("/")[2]


def _usual(sizes: Iterable[int], *, spare: int = 8) -> int:
    """The width that all rows fit into, or nine in ten where the others would push everything far apart."""
    ordered = sorted(sizes) or [0]
    usual = ordered[math.ceil(0.9 * len(ordered)) - 1]
    return ordered[-1] if ordered[-1] <= usual + spare else usual


def _keep_end(text: str, letters: int) -> str:
    return text if len(text) <= letters else _ELLIPSIS + text[len(text) - letters + len(_ELLIPSIS) :]


def _keep_start(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - len(_ELLIPSIS)] + _ELLIPSIS


def _shortened(spans: tuple[Span, ...], letters: int) -> tuple[Span, ...]:
    if _letters(spans) <= letters:
        return spans
    letters = max(letters, len(_ELLIPSIS))
    kept: list[Span] = []
    room = letters - len(_ELLIPSIS)
    for span in spans:
        kept.append(Span(span.text[:room], span.kind))
        room -= len(kept[-1].text)
        if room <= 0:
            break
    return (*kept, Span(_ELLIPSIS))


def _cut(line: Line, width: int | None) -> Line:
    return line if width is None else Line(_shortened(line.spans, width))


def _letters(spans: Iterable[Span]) -> int:
    return sum(len(span.text) for span in spans)


def _coloured(span: Span) -> str:
    code = _COLOURS.get(span.kind, "")
    return f"\x1b[{code}m{span.text}\x1b[0m" if code and span.text.strip() else span.text


# Values and their types


def short_type(value: ir.Value) -> str:
    """``f32[n,3]``; ``?`` where the type is unknown, ``[...]`` where the number of dims is."""
    kind = value.type
    if kind is None:
        return "?"
    text = _dtype(kind.dtype)
    if value.shape is None:
        text += "[...]"
    else:
        dims = (str(dim) if isinstance(dim, int) else str(dim.value or "?").replace(" ", "") for dim in value.shape)
        text += f"[{','.join(dims)}]"
    if isinstance(kind, ir.SequenceType):
        return f"seq({text})"
    return f"optional({text})" if isinstance(kind, ir.OptionalType) else text


def _dtype(dtype: ir.DataType) -> str:
    special = {ir.DataType.BOOL: "bool", ir.DataType.STRING: "str", ir.DataType.UNDEFINED: "?"}
    return special.get(dtype) or dtype.short_name()


def _name(value: ir.Value | None) -> str:
    return "-" if value is None else value.name or "_"


def _operand(value: ir.Value | None) -> Span:
    if value is None:
        return Span("-", "name")
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.producer() is not None:
        return Span(_name(value), "name")
    return Span(_constant(tensor), "weight")


def _constant(tensor: ir.TensorProtocol) -> str:
    """A few elements by their values, more by the shape.

    Elements of other types than int64, float32 and bool, which need no word about their type, stand in braces, so that
    ``[4,4] i32`` is always a shape.
    """
    kind = _dtype(tensor.dtype)
    if 0 < tensor.size <= _INLINE_ELEMENTS:
        elements = tensor.numpy()
        text = _elements(elements)
        if elements.ndim and tensor.dtype not in (ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.BOOL):
            text = f"{kind}{{{text[1:-1]}}}"
        elif tensor.dtype not in (ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.BOOL):
            text = f"{text} {kind}"
        if len(text) <= (_FLOAT_LETTERS if tensor.dtype.is_floating_point() else _INTEGER_LETTERS):
            return text
    return f"[{','.join(map(str, tensor.shape.numpy()))}] {kind}"


def _elements(array: Any) -> str:
    if isinstance(array, np.ndarray) and array.ndim:
        return f"[{','.join(_elements(item) for item in array)}]"
    item = array.item() if hasattr(array, "item") else array
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, float):
        text = f"{item:.6g}"
        return text if not math.isfinite(item) or set(text) & set(".e") else f"{text}."
    return repr(item.decode(errors="replace")) if isinstance(item, bytes) else str(item)


def _attribute(attribute: ir.Attr) -> str:
    kinds = ir.AttributeType
    if attribute.ref_attr_name:
        return f"@{attribute.ref_attr_name}"
    if attribute.type == kinds.TENSOR:
        return _constant(attribute.as_tensor())
    value = attribute.value
    if attribute.name in _DTYPES and attribute.type == kinds.INT and value:
        text = _dtype(ir.DataType(value))
    elif attribute.type == kinds.STRING:
        text = repr(value)
    elif isinstance(value, list | tuple):
        text = f"[{','.join(_elements(item) for item in value)}]"
    else:
        text = _elements(value)
    return text if len(text) <= _INTEGER_LETTERS else f"{text[:_INTEGER_LETTERS]}{_ELLIPSIS}"


_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
# Attributes whose number is a type.
_DTYPES = frozenset(("to", "dtype", "output_dtype"))
# Attributes that say nothing when all of their elements are this, though their schema declares no default.
_NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}


def _says_nothing(node: ir.Node, attribute: ir.Attr, opset: int) -> bool:
    """Whether leaving the attribute out would mean the same."""
    if attribute.ref_attr_name or node.domain != "":
        return False
    if attribute.name in _NEUTRAL and attribute.type == ir.AttributeType.INTS:
        return all(item == _NEUTRAL[attribute.name] for item in attribute.as_ints())
    if attribute.name == "kernel_shape" and node.op_type in ("Conv", "ConvTranspose"):
        return True  # the weight's shape says it
    known, default = _default(node.op_type, attribute.name, opset)
    return known and bool(default == attribute.value)


@functools.lru_cache(maxsize=4096)
def _default(op_type: str, name: str, opset: int) -> tuple[bool, Any]:
    """Whether the schema has a default for the attribute, and which."""
    schema = schema_of(op_type, "", opset)
    declared = None if schema is None else schema.attributes.get(name)
    if declared is None or declared.default_value.type == onnx.AttributeProto.UNDEFINED:
        return False, None
    value = onnx.helper.get_attribute_value(declared.default_value)
    return True, value.decode() if isinstance(value, bytes) else value


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
