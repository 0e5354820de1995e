"""The graph: onnx_ir's Model, Graph, Node and Value, with origins, a builder, inference, a verifier and a text form."""

from __future__ import annotations

from onnx_ir import DataType, Graph, Model, Node, Shape, SymbolicDim, TensorType, Value

from graphforge.ir.builder import HOME_OPSET, Builder, Operand, home_opset
from graphforge.ir.infer import broadcast_dims, constant_of, infer_node, schema_of
from graphforge.ir.origin import Origin, origins_from_metadata, origins_of, set_origins, write_origin_metadata

__all__ = [
    "HOME_OPSET",
    "Builder",
    "DataType",
    "Graph",
    "Model",
    "Node",
    "Operand",
    "Origin",
    "Shape",
    "SymbolicDim",
    "TensorType",
    "Value",
    "broadcast_dims",
    "constant_of",
    "home_opset",
    "infer_node",
    "origins_from_metadata",
    "origins_of",
    "schema_of",
    "set_origins",
    "write_origin_metadata",
]
