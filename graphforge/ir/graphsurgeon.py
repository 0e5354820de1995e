"""Interchange with onnx-graphsurgeon, for those who have scripts in it; weights are shared where they can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.text import weights_left_out

__all__ = ["from_graphsurgeon", "to_graphsurgeon"]


def to_graphsurgeon(model: ir.Model) -> Any:
    """The model as an ``onnx_graphsurgeon.Graph``; in-memory weights are viewed, those on disk or lazy are loaded.

    Raises:
        GraphForgeError: onnx-graphsurgeon is not installed.
    """
    surgeon = _surgeon()
    heavy = {name: value for name, value in model.graph.initializers.items() if _is_heavy(value)}
    with weights_left_out(heavy.values()):
        proto = ir.to_proto(model)
    graph = surgeon.import_onnx(proto)
    for name, tensor in graph.tensors().items():
        value = heavy.get(name)
        if value is not None and value.const_value is not None:
            tensor.values = value.const_value.numpy()
    return graph


def from_graphsurgeon(graph: Any) -> ir.Model:
    """An ``onnx_graphsurgeon.Graph`` as a model; constants of the main graph that are in memory are viewed.

    Raises:
        GraphForgeError: onnx-graphsurgeon is not installed.
    """
    surgeon = _surgeon()
    heavy: dict[str, tuple[Any, np.ndarray]] = {}
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, surgeon.Constant) and isinstance(tensor.values, np.ndarray):
            values = tensor.values
            # What is to be converted while it is written goes the ordinary way.
            if values.nbytes > _SMALL and tensor.export_dtype == values.dtype:
                heavy[name] = (tensor, values)
    try:
        # Large constants would be copied through protobuf, which fails above 2 GB: an empty one holds their place.
        for tensor, values in heavy.values():
            tensor.values = np.zeros((0,), values.dtype)
        proto = surgeon.export_onnx(graph, do_type_check=False)
    finally:
        for tensor, values in heavy.values():
            tensor.values = values
    model: ir.Model = ir.from_proto(proto)
    for name, (_tensor, values) in heavy.items():
        value = model.graph.initializers.get(name)
        if value is None:
            continue  # nobody reads it
        value.const_value = ir.Tensor(values, name=name)
        value.type = ir.TensorType(value.const_value.dtype)
        value.shape = ir.Shape(values.shape)
    return model


# Constants up to this many bytes travel through protobuf.
_SMALL = 1024


def _surgeon() -> Any:
    try:
        import onnx_graphsurgeon
    except ImportError as error:
        raise GraphForgeError("onnx-graphsurgeon is not installed", "pip install onnx-graphsurgeon") from error
    return onnx_graphsurgeon


def _is_heavy(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.nbytes > _SMALL and tensor.dtype != ir.DataType.STRING
