"""Small tensors that a file keeps in external data, brought into the file: ONNX Runtime wants shapes and axes there."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir as ir

from graphforge.onnx_io.safety import read_model_proto, tensors_of_proto

__all__ = ["with_small_data"]

# What shape inference reads (shapes, axes, steps) is small; weights stay where they are.
_SMALL_BYTES = 4096


def with_small_data(path: Path, proto: onnx.ModelProto | None = None) -> bytes | None:
    """The model with its small external tensors inside; None where it has none of them.

    Args:
        path: the file.
        proto: what is in it, where it has been read already; it is edited.

    Raises:
        GraphForgeError: as ``read_model_proto``.
    """
    proto = read_model_proto(path) if proto is None else proto
    found = False
    for tensor in tensors_of_proto(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        # a tensor that does not say its length ends where its shape says, which the checks have seen to
        length = int(entries.get("length", str(_byte_count(tensor))))
        if length > _SMALL_BYTES:
            continue
        with open(path.resolve().parent / entries["location"], "rb") as file:
            file.seek(int(entries.get("offset", "0")))
            tensor.raw_data = file.read(length)
        tensor.ClearField("data_location")
        del tensor.external_data[:]
        found = True
    return bytes(proto.SerializeToString()) if found else None


def _byte_count(tensor: onnx.TensorProto) -> int:
    bits: int = math.prod(tensor.dims) * int(ir.DataType(tensor.data_type).bitwidth)
    return -(-bits // 8)
