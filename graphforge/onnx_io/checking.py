"""Is a file valid ONNX?  ONNX's own full check, on the file as it lies on the disk but for the weights' elements.

The elements say nothing about validity and may be gigabytes: the file is mapped, not read, and only what is not a
weight is parsed.  What the checker would say of a weight (its elements are there, as many as its shape asks for) is
seen to here.
"""

from __future__ import annotations

import itertools
import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.apart import ForeignError, apart
from graphforge.errors import GraphForgeError
from graphforge.last_step import entering

if TYPE_CHECKING:
    import onnx

__all__ = ["Complaint", "check_file", "complaint_about", "load_without_weights"]

# Elements of at most this many bytes are kept: shapes, axes and the like, which shape inference reads.
_KEPT_BYTES = 4096
_SHOWN = 500

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, and the fields of a TensorProto with elements.
_GRAPH, _INITIALIZER = 7, 5
_ELEMENTS = frozenset((4, 5, 6, 7, 9, 10, 11))
# TensorProto.external_data {"location": "left out"} and TensorProto.data_location = EXTERNAL
_LEFT_OUT = "left out"
_ELSEWHERE = b"\x6a\x14\x0a\x08location\x12\x08left out\x70\x01"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What ONNX has against a file.

    Attributes:
        text: in its words, on one line.
        node: the node it is about, "" when it names none.
        where: where that node came from, "" when the file does not say.
        made_by: the pass that made it, "" when none did.
    """

    text: str
    node: str = ""
    where: str = ""
    made_by: str = ""


def check_file(path: Path, *, shapeless: bool = False) -> None:
    """Refuse an ONNX file of ours that is not valid.

    Args:
        path: the file.
        shapeless: it is made of a file from elsewhere, and so outputs may have no shape here either.

    Raises:
        GraphForgeError: it is not; names the node, where it came from and the pass that made it.
    """
    found = complaint_about(path, shapeless=shapeless)
    if found is None:
        return
    raise GraphForgeError(
        f"{path.name} is not a valid ONNX file and is not delivered: {found.text}",
        f"node {found.node!r} came from {found.where}" if found.where else "",
        f"the pass {found.made_by!r} made it" if found.made_by else "",
        "where no pass, substitution or operator of your own had a part in it, this is a bug of graphforge: report it",
    )


def complaint_about(path: Path, *, shapeless: bool = False, theirs: bool = False) -> Complaint | None:
    """What ONNX's full check (checker and strict shape inference) has against a file, None when nothing.

    Args:
        path: the file.
        shapeless: let pass what every runtime does, outputs that state no shape.
        theirs: it is not ours, and the check is kept at arm's length.

    Raises:
        GraphForgeError: ``theirs``, and the check itself died.
    """
    import onnx

    try:
        model = load_without_weights(path)
    except GraphForgeError as error:
        return Complaint(error.message)
    missing = _elements_missing(model, path)
    if missing:
        return Complaint(missing)
    _declare_left_out(model)
    if shapeless:
        stated = [one for one in model.graph.output if one.type.tensor_type.HasField("shape")]
        del model.graph.output[:]
        model.graph.output.extend(stated)

    def check() -> bytes:
        onnx.checker.check_model(model, full_check=True)
        return b""

    def complaint() -> Complaint | None:
        try:
            if theirs:
                apart("onnx", f"check {path.name}", check, file=path)
            else:
                entering("onnx", f"check {path.name}", path)
                check()
        except ForeignError as error:
            return _complaint(model, str(error))
        # what it raises for a message that protobuf refuses, and for an inference that fails, are classes of their own
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
            return _complaint(model, str(error))
        return None

    found = complaint()
    return complaint() if found is not None and _state_defaults(model) else found


def _state_defaults(model: onnx.ModelProto) -> bool:
    """Write down the default attributes of operators that are functions; whether there were any.

    ONNX looks into such an operator and misses there what the node leaves to its default
    (MeanVarianceNormalization without axes).
    """
    import onnx

    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    stated = False
    functions = itertools.chain.from_iterable(_nodes(function) for function in model.functions)
    for node in itertools.chain(_nodes(model.graph), functions):
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            continue
        try:
            schema: Any = onnx.defs.get_schema(node.op_type, version)
        except (onnx.defs.SchemaError, TypeError):  # of a newer opset than the file's, or of no opset at all
            continue
        if not schema.has_function:
            continue
        given = {attribute.name for attribute in node.attribute}
        for name, attribute in schema.attributes.items():
            if name not in given and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
                node.attribute.append(attribute.default_value)
                stated = True
    return stated


def load_without_weights(path: Path) -> onnx.ModelProto:
    """The model of a file, its large initializers without their elements: marked as external, in ``left out``.

    Raises:
        GraphForgeError: it is not an ONNX file.
    """
    import onnx

    model = onnx.ModelProto()
    try:
        # not closed by hand: views of it may be alive in an exception, and it goes when the last one does
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        model.ParseFromString(b"".join(_without_elements(memoryview(content))))
    except OSError as error:
        raise GraphForgeError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # an empty file, bytes of something else, or protobuf's own DecodeError
        raise GraphForgeError(f"{path} is not an ONNX file: {error}") from None
    return model


# -- reading around the weights ----------------------------------------------------------------------------------------


def _without_elements(content: memoryview) -> Iterator[bytes]:
    """The bytes of a ModelProto whose large initializers have no elements."""
    for number, whole, inner in _fields(content):
        if number != _GRAPH:
            yield bytes(whole)
            continue
        parts = []
        for field, entire, tensor in _fields(inner):
            if field == _INITIALIZER and len(tensor) > _KEPT_BYTES:
                header = _header(tensor)
                parts += [b"\x2a", _varint(len(header)), header]
            else:
                parts.append(bytes(entire))
        yield b"\x3a" + _varint(sum(map(len, parts)))
        yield from parts


def _header(tensor: memoryview) -> bytes:
    """A TensorProto without its elements; one that has them in another file stays as it is."""
    fields = list(_fields(tensor))
    kept = b"".join(bytes(whole) for number, whole, inner in fields if number not in _ELEMENTS)
    size = sum(len(inner) for number, _, inner in fields if number == 9)
    count = b"" if size == 0 else b"\x6a" + _entry(b"length", str(size).encode())
    return kept + _ELSEWHERE + count if len(kept) < len(tensor) else kept


def _entry(key: bytes, value: bytes) -> bytes:
    inner = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value
    return _varint(len(inner)) + inner


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The fields of a protobuf message: number, the whole field, and what it holds."""
    position, end = 0, len(content)
    while position < end:
        start = position
        tag, position = _read_varint(content, position)
        kind = tag & 7
        begin = position
        if kind == 0:
            _, position = _read_varint(content, position)
        elif kind == 1:
            position += 8
        elif kind == 2:
            length, begin = _read_varint(content, position)
            position = begin + length
        elif kind == 5:
            position += 4
        else:
            raise ValueError(f"byte {start} does not begin a field")
        if position > end:
            raise ValueError("it is cut off")
        yield tag >> 3, content[start:position], content[begin:position]


def _read_varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


# -- what is said of weights -------------------------------------------------------------------------------------------


def _external(tensor: onnx.TensorProto) -> dict[str, str] | None:
    if tensor.data_location != tensor.EXTERNAL:
        return None
    return {entry.key: entry.value for entry in tensor.external_data}


def _elements_missing(model: onnx.ModelProto, path: Path) -> str:
    """Which weight has fewer or more elements than its shape asks for, "" when none."""
    import onnx_ir

    for tensor in model.graph.initializer:
        stored = _external(tensor)
        if stored is None:
            continue
        kind = onnx_ir.DataType(tensor.data_type)
        wanted = -(-math.prod(tensor.dims) * kind.bitwidth // 8) if kind != onnx_ir.DataType.STRING else 0
        length = int(stored.get("length", wanted))  # elements that are no raw bytes are the checker's own types
        if stored["location"] != _LEFT_OUT:
            file = path.parent / stored["location"]
            if not file.is_file():
                return f"the elements of weight {tensor.name!r} should be in {stored['location']}, which does not exist"
            if int(stored.get("offset", 0)) + length > file.stat().st_size:
                return f"the elements of weight {tensor.name!r} go beyond the end of {stored['location']}"
        if length != wanted:
            return f"weight {tensor.name!r} has {length} bytes of elements, its shape asks for {wanted}"
    return ""


def _declare_left_out(model: onnx.ModelProto) -> None:
    """State the weights without elements as inputs, which is all that the checker and inference need of them."""
    graph = model.graph
    known = {value.name for value in graph.input}
    gone = [tensor for tensor in graph.initializer if _external(tensor) is not None]
    rest = [tensor for tensor in graph.initializer if _external(tensor) is None]
    for tensor in gone:
        if tensor.name not in known:
            kind = graph.input.add(name=tensor.name).type.tensor_type
            kind.elem_type = tensor.data_type
            for size in tensor.dims:
                kind.shape.dim.add(dim_value=size)
            kind.shape.SetInParent()  # a scalar has a shape without dims
    del graph.initializer[:]
    graph.initializer.extend(rest)


# -- telling -----------------------------------------------------------------------------------------------------------

_NAMED = (re.compile(r"node name: ([^)]*)\)"), re.compile(r"[Nn]ame: (.*?) OpType:", re.DOTALL))


def _complaint(model: onnx.ModelProto, text: str) -> Complaint:
    text = " ".join(text.split())
    name = next((found[1].strip() for pattern in _NAMED if (found := pattern.search(text))), "")
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
    node = next((one for one in _nodes(model.graph) if one.name == name), None) if name else None
    if node is None:
        return Complaint(shown, name)
    from graphforge.ir import origins_from_metadata

    origins = origins_from_metadata({entry.key: entry.value for entry in node.metadata_props})
    if not origins:
        return Complaint(shown, name)
    return Complaint(shown, name, origins[0].describe(), next((one.made_by for one in origins if one.made_by), ""))


def _nodes(graph: Any) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)
