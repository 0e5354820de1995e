"""The graph: onnx_ir's Model, Graph, Node and Value, with origins, a builder, inference, a verifier and a text form."""

from __future__ import annotations

from onnx_ir import DataType, Graph, Model, Node, Shape, SymbolicDim, TensorType, Value

from graphforge.ir.bodies import bodies_of, nodes_of
from graphforge.ir.builder import HOME_OPSET, Builder, Operand
from graphforge.ir.describe import describe, node_name, operator_name, origin_text
from graphforge.ir.graphsurgeon import from_graphsurgeon, to_graphsurgeon
from graphforge.ir.infer import broadcast_dims, constant_of, infer_node, schema_of
from graphforge.ir.levels import Level
from graphforge.ir.origin import Origin, origins_from_metadata, origins_of, set_origins, write_origin_metadata
from graphforge.ir.printer import print_graph
from graphforge.ir.snippet import here, snippet
from graphforge.ir.text import from_text, to_text
from graphforge.ir.verifier import verify_graph

__all__ = [
    "HOME_OPSET",
    "Builder",
    "DataType",
    "Graph",
    "Level",
    "Model",
    "Node",
    "Operand",
    "Origin",
    "Shape",
    "SymbolicDim",
    "TensorType",
    "Value",
    "bodies_of",
    "broadcast_dims",
    "constant_of",
    "describe",
    "from_graphsurgeon",
    "from_text",
    "here",
    "infer_node",
    "node_name",
    "nodes_of",
    "operator_name",
    "origin_text",
    "origins_from_metadata",
    "origins_of",
    "print_graph",
    "schema_of",
    "set_origins",
    "snippet",
    "to_graphsurgeon",
    "to_text",
    "verify_graph",
    "write_origin_metadata",
]
