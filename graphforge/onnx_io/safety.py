"""Reading an ONNX file that nobody vouches for: a clear refusal instead of a crash, an escape or a flood of memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from graphforge.errors import GraphForgeError
from graphforge.limiting import check_limit

__all__ = ["check_texts", "nodes_of_proto", "read_model_proto", "tensors_of_proto"]

# Protobuf's own limit for one message; larger models keep their weights in external data.
_MAX_FILE = 2**31 - 1


def read_model_proto(path: Path) -> onnx.ModelProto:
    """Read and check the file; external data is checked (place, size) but not read.

    Raises:
        GraphForgeError: there is no such file, it is truncated or no ONNX model, a tensor's data does not fit its
            shape, or external data lies outside the model's folder or ends too early.
    """
    proto = _parse(path)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise GraphForgeError(f"{path} is not an ONNX model: it contains no graph", "is the file truncated?")
    if not proto.opset_import:
        raise GraphForgeError(f"{path} names no opset, so its operators have no meaning", "is the file truncated?")
    folder = path.resolve().parent
    checker = _TensorChecker(path, folder)
    for graph in [proto.graph, *proto.functions]:
        _densify(graph, path)
        for tensor in _tensors(graph):
            checker.check(tensor)
    for graph in _graphs(proto.graph):
        _check_names(graph, path)
    check_texts(proto, path)
    for node in nodes_of_proto(proto):
        if node.domain == "ai.onnx":
            node.domain = ""
    return proto


def _parse(path: Path) -> onnx.ModelProto:
    try:
        exists = path.exists()
    except OSError as error:  # a name that is too long
        raise GraphForgeError(f"cannot read {str(path)[:200]}: {error.strerror}") from None
    if not exists:
        raise GraphForgeError(f"no file {path}")
    if not path.is_file():
        raise GraphForgeError(f"{path} is not a file", "give the path of the .onnx file itself")
    try:
        size = path.stat().st_size
        if size > _MAX_FILE:
            raise GraphForgeError(
                f"{path} has {size} bytes; an ONNX file ends at {_MAX_FILE}",
                "save the model with its weights as external data",
            )
        data = path.read_bytes()
    except OSError as error:
        raise GraphForgeError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise GraphForgeError(f"{path} is empty")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise GraphForgeError(
            f"{path} is not an ONNX model, or it is truncated ({error})", "fetch or export the file again"
        ) from error
    return proto


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from _graphs(body)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def nodes_of_proto(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph, of its bodies and of the functions."""
    for root in [proto.graph, *proto.functions]:
        pending: list[onnx.GraphProto | onnx.FunctionProto] = [root]
        while pending:
            for node in pending.pop().node:
                yield node
                pending.extend(_bodies(node))


def tensors_of_proto(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors of the graph, of its bodies and of the functions: initializers and attributes."""
    for graph in [proto.graph, *proto.functions]:
        yield from _tensors(graph)


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.TENSORS:
                yield from attribute.tensors
        for body in _bodies(node):
            yield from _tensors(body)


def _check_names(graph: onnx.GraphProto, path: Path) -> None:
    for what, names in (
        ("input", [value.name for value in graph.input]),
        ("initializer", [tensor.name for tensor in graph.initializer]),
    ):
        double = _first_double(names)
        if not all(isinstance(name, str) for name in names):
            raise GraphForgeError(f"{path}: an {what} has a name that is not text", "is the file damaged?")
        if double is not None:
            raise GraphForgeError(f"{path}: {what} {double!r} is there twice")
        if "" in names:
            raise GraphForgeError(f"{path}: an {what} has no name")


def check_texts(proto: onnx.ModelProto, path: Path) -> None:
    """Protobuf hands out bytes for text that is not UTF-8; nothing after this expects any.

    Names are refused; what only describes (documentation, metadata) is decoded as far as it goes.
    """
    _decode(proto, "doc_string", "producer_name", "producer_version", "domain")
    _decode_properties(proto.metadata_props)
    imports = [entry.domain for one in (proto, *proto.functions) for entry in one.opset_import]
    names = [
        name for one in proto.functions for name in (one.name, one.domain, *one.input, *one.output, *one.attribute)
    ]
    _see_text(path, "the model", (*imports, *names))
    for function in proto.functions:
        _decode(function, "doc_string")
        _decode_properties(function.metadata_props)
        _check_values(function.value_info, path)
    for graph in _all_graphs(proto):
        _decode(graph, "doc_string")
        _decode_properties(graph.metadata_props)
        _see_text(path, "a graph", (graph.name,))
        for values in (graph.input, graph.output, graph.value_info):
            _check_values(values, path)
        for annotation in graph.quantization_annotation:
            entries = [text for entry in annotation.quant_parameter_tensor_names for text in (entry.key, entry.value)]
            _see_text(path, "a quantization annotation", (annotation.tensor_name, *entries))
    for tensor in tensors_of_proto(proto):
        _decode(tensor, "doc_string")
        _see_text(path, "a tensor", (tensor.name, *(entry.value for entry in tensor.external_data)))
    for node in nodes_of_proto(proto):
        _decode(node, "doc_string")
        _decode_properties(node.metadata_props)
        _see_text(path, "a node", (node.op_type, node.domain, node.overload, node.name, *node.input, *node.output))
        for attribute in node.attribute:
            _decode(attribute, "doc_string")
            _see_text(path, f"a node ({node.op_type!r})", (attribute.name, attribute.ref_attr_name))


def _all_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield from _graphs(proto.graph)
    for function in proto.functions:
        for node in function.node:
            for body in _bodies(node):
                yield from _graphs(body)


def _check_values(values: Iterable[onnx.ValueInfoProto], path: Path) -> None:
    for value in values:
        _decode(value, "doc_string")
        _decode_properties(value.metadata_props)
        dims = value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ()
        _see_text(path, "a value", (value.name, *(dim.dim_param for dim in dims)))
        negative = next((dim.dim_value for dim in dims if dim.dim_value < 0), None)
        if negative is not None:
            raise GraphForgeError(
                f"{path}: value {value.name!r} has a negative size: {negative}", "is the file damaged?"
            )


def _see_text(path: Path, what: str, texts: Iterable[str]) -> None:
    if not all(isinstance(text, str) for text in texts):
        raise GraphForgeError(f"{path}: {what} has a name that is not text", "is the file damaged?")


def _decode(message: Message, *fields: str) -> None:
    for field in fields:
        text = getattr(message, field)
        if not isinstance(text, str):
            setattr(message, field, text.decode(errors="replace"))


def _decode_properties(entries: Iterable[onnx.StringStringEntryProto]) -> None:
    for entry in entries:
        _decode(entry, "key", "value")


def _first_double(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# Field of TensorProto that holds the elements when raw_data does not, and how many entries one element takes.
_TYPED_FIELDS: dict[str, tuple[str, int]] = {
    **dict.fromkeys(("FLOAT",), ("float_data", 1)),
    "COMPLEX64": ("float_data", 2),
    "DOUBLE": ("double_data", 1),
    "COMPLEX128": ("double_data", 2),
    "INT64": ("int64_data", 1),
    **dict.fromkeys(("UINT32", "UINT64"), ("uint64_data", 1)),
    "STRING": ("string_data", 1),
}


class _TensorChecker:
    """Whether a tensor holds what its type and shape say, where it may."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.sizes: dict[str, int] = {}

    def check(self, tensor: onnx.TensorProto) -> None:
        label = f"{self.path}: tensor {tensor.name!r}"
        try:
            dtype = ir.DataType(tensor.data_type)
        except ValueError:
            raise GraphForgeError(f"{label} has an unknown element type ({tensor.data_type})") from None
        if dtype == ir.DataType.UNDEFINED:
            raise GraphForgeError(f"{label} has no element type")
        if any(dim < 0 for dim in tensor.dims):
            raise GraphForgeError(f"{label} has a negative dim: {list(tensor.dims)}")
        if tensor.HasField("segment"):
            raise GraphForgeError(f"{label} is stored in segments, which nothing supports")
        count = math.prod(tensor.dims)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self._check_external(tensor, label, _byte_count(dtype, count))
            return
        if dtype == ir.DataType.STRING:
            given, wanted = len(tensor.string_data), count
            try:
                b"".join(tensor.string_data).decode()
            except UnicodeDecodeError:
                raise GraphForgeError(f"{label} holds text that is not UTF-8", "is the file damaged?") from None
        elif tensor.HasField("raw_data"):
            given, wanted = len(tensor.raw_data), _byte_count(dtype, count)
        else:
            field, entries = _TYPED_FIELDS.get(dtype.name, ("int32_data", 1))
            given = len(getattr(tensor, field))
            # Types below a byte are packed: one entry of int32_data is one byte.
            wanted = _byte_count(dtype, count) if dtype.bitwidth < 8 else count * entries
        if given != wanted:
            unit = "bytes" if tensor.HasField("raw_data") else "entries"
            raise GraphForgeError(
                f"{label} holds {given} {unit}, its shape {list(tensor.dims)} and type {dtype.name} need {wanted}"
            )

    def _check_external(self, tensor: onnx.TensorProto, label: str, wanted: int) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if tensor.data_type == onnx.TensorProto.STRING:
            raise GraphForgeError(f"{label} keeps strings in external data, which ONNX does not allow")
        if not location or "\0" in location:
            raise GraphForgeError(f"{label} keeps its data in a file without a name")
        size = self._size_of(location, label)
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(wanted)))
        except ValueError:
            raise GraphForgeError(f"{label}: offset and length of its external data are no numbers") from None
        if length != wanted:
            raise GraphForgeError(
                f"{label} has {length} bytes of external data, its shape {list(tensor.dims)} needs {wanted}"
            )
        if offset < 0 or offset + length > size:
            raise GraphForgeError(
                f"{label} has its data at bytes {offset} to {offset + length} of {location}, which ends at {size}",
                "is the data file truncated, or that of another model?",
            )

    def _size_of(self, location: str, label: str) -> int:
        known = self.sizes.get(location)
        if known is not None:
            return known
        # Both spellings of a path out of the folder are refused on every system: the file may come from another one.
        parts = location.replace("\\", "/").split("/")
        windows_absolute = len(location) > 1 and location[1] == ":"
        if location.startswith(("/", "\\")) or windows_absolute or ".." in parts:
            raise GraphForgeError(
                f"{label} wants its data from {location!r}, outside the model's folder",
                "external data must lie beside the model; this file may be malicious",
            )
        target = (self.folder / location).resolve()
        if not target.is_relative_to(self.folder):
            raise GraphForgeError(
                f"{label} wants its data from {location!r}, a link to {target} outside the model's folder",
                "external data must lie beside the model; this file may be malicious",
            )
        if not target.is_file():
            raise GraphForgeError(
                f"{label} keeps its data in {location!r}, which is not there",
                f"put it beside the model, in {self.folder}",
            )
        stat = target.stat()
        if stat.st_nlink > 1:
            raise GraphForgeError(
                f"{label} keeps its data in {location!r}, a file with {stat.st_nlink} hard links",
                "a hard link can reach outside the model's folder; copy the file instead",
            )
        self.sizes[location] = stat.st_size
        return stat.st_size


def _byte_count(dtype: ir.DataType, count: int) -> int:
    return 0 if dtype == ir.DataType.STRING else -(-count * dtype.bitwidth // 8)


def _densify(graph: onnx.GraphProto | onnx.FunctionProto, path: Path) -> None:
    """Write sparse initializers and constants out in full: nothing after this knows sparse tensors."""
    if isinstance(graph, onnx.GraphProto) and graph.sparse_initializer:
        dense = [_dense(sparse, sparse.values.name, path) for sparse in graph.sparse_initializer]
        del graph.sparse_initializer[:]
        graph.initializer.extend(dense)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                tensor = _dense(attribute.sparse_tensor, attribute.sparse_tensor.values.name, path)
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
        for body in _bodies(node):
            _densify(body, path)


def _dense(sparse: onnx.SparseTensorProto, name: str, path: Path) -> onnx.TensorProto:
    label = f"{path}: sparse tensor {name!r}"
    for tensor in (sparse.values, sparse.indices):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise GraphForgeError(f"{label} keeps its data in another file, which is not supported")
        _TensorChecker(path, path.parent).check(tensor)
    dims = list(sparse.dims)
    values = onnx.numpy_helper.to_array(sparse.values).reshape(-1)
    if any(dim < 0 for dim in dims):
        raise GraphForgeError(f"{label} has a negative dim: {dims}")
    size = math.prod(dims) * max(values.itemsize, 1)
    check_limit("constant_bytes", size, f"{label} of shape {dims}: bytes, written out in full")
    indices = onnx.numpy_helper.to_array(sparse.indices).astype(np.int64)
    if indices.ndim == 2 and indices.shape[1] == len(dims):
        bounds = np.array(dims)
        if ((indices < 0) | (indices >= bounds)).any():
            raise GraphForgeError(f"{label} has an index outside its shape {dims}")
        flat = np.ravel_multi_index(tuple(indices.T), tuple(dims)) if len(indices) else indices.reshape(-1)
    else:
        flat = indices.reshape(-1)
    if len(flat) != len(values) or ((flat < 0) | (flat >= math.prod(dims))).any():
        raise GraphForgeError(f"{label}: its indices do not fit its shape {dims} and its {len(values)} values")
    dense = np.zeros(math.prod(dims), dtype=values.dtype)
    dense[flat] = values
    return onnx.numpy_helper.from_array(dense.reshape(dims), name)
