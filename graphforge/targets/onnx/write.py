"""Write an ONNX file whose weights are streamed from where they lie; nothing is copied, nothing half-written stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError, InternalError, argument
from graphforge.ir import write_origin_metadata

__all__ = ["EXTERNAL_DATA_BYTES", "write_onnx"]

# protobuf refuses messages of 2 GiB; above this the weights go to a file beside the model.
EXTERNAL_DATA_BYTES = 1_900_000_000
# Initializers above this are streamed after the graph; smaller ones travel inside the serialised graph.
_STREAMED_BYTES = 4096
# Wire tags (field number << 3 | 2, length-delimited) of ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
_GRAPH, _INITIALIZER, _RAW_DATA = bytes([7 << 3 | 2]), bytes([5 << 3 | 2]), bytes([9 << 3 | 2])


def write_onnx(
    model: ir.Model, path: Path, *, external_bytes: int = EXTERNAL_DATA_BYTES, origins: bool = True
) -> list[str]:
    """Write ``model`` to ``path``; returns the file names written (the model first, then its external data).

    Args:
        model: names assigned, opset and IR version set.
        path: file to write; written aside and renamed when complete.
        external_bytes: weights above this go to ``<name>.data`` beside the model.
        origins: write the origin of each node into its metadata.

    Raises:
        GraphForgeError: the disk is full or the folder cannot be written.
    """
    if origins:
        for node in model.graph.all_nodes():
            write_origin_metadata(node)
    try:
        total = sum(
            value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
        )
        if total > external_bytes:
            data = f"{path.name}.data"
            ir.save(model, path, external_data=data, size_threshold_bytes=_STREAMED_BYTES, max_workers=1)
            return [path.name, data]
        partial = path.with_name(path.name + ".part")
        try:
            with open(partial, "wb") as file:
                _stream(model, file)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise GraphForgeError(
            f"cannot write {path}: {error.strerror or error}",
            f"free space or choose another folder: {argument('output', 'DIR')}",
        ) from None
    return [path.name]


def _stream(model: ir.Model, file: BinaryIO) -> None:
    """Serialise graph and weights as one ordinary ModelProto without ever holding the weights as a message."""
    graph = model.graph
    streamed: list[ir.Value] = []
    order = list(graph.initializers.values())
    for value in order:
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _STREAMED_BYTES and tensor.dtype != ir.DataType.STRING:
            streamed.append(value)
    for value in streamed:
        graph.initializers.pop(str(value.name))
    try:
        proto = ir.serde.serialize_model(model)
    finally:
        for value in order:  # re-registering all of them keeps their order
            graph.initializers.pop(str(value.name), None)
        for value in order:
            graph.register_initializer(value)
    graph_bytes = proto.graph.SerializeToString()
    proto.ClearField("graph")
    headers = [_header(value) for value in streamed]
    size = len(graph_bytes) + sum(
        len(_INITIALIZER) + len(_varint(length)) + length
        for length in (len(header) + nbytes for header, nbytes in headers)
    )
    file.write(proto.SerializeToString())
    file.write(_GRAPH + _varint(size))
    file.write(graph_bytes)
    for value, (header, nbytes) in zip(streamed, headers, strict=True):
        file.write(_INITIALIZER + _varint(len(header) + nbytes))
        file.write(header)
        _write_tensor(value, nbytes, file)


def _header(value: ir.Value) -> tuple[bytes, int]:
    """Everything of a TensorProto before its raw bytes, and the number of these."""
    tensor = value.const_value
    assert tensor is not None
    proto = onnx.TensorProto(name=value.name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    return proto.SerializeToString() + _RAW_DATA + _varint(tensor.nbytes), tensor.nbytes


def _write_tensor(value: ir.Value, nbytes: int, file: BinaryIO) -> None:
    tensor = value.const_value
    assert tensor is not None
    start = file.tell()
    if hasattr(tensor, "tofile"):
        tensor.tofile(file)
        file.flush()
    else:
        file.write(tensor.tobytes())
    if file.tell() - start != nbytes:
        raise InternalError(f"weight {value.name!r}: wrote {file.tell() - start} bytes, expected {nbytes}")


def _varint(number: int) -> bytes:
    parts: list[int] = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
