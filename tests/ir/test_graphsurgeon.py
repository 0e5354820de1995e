"""Interchange with onnx-graphsurgeon keeps the graph and shares the weights."""

from __future__ import annotations

import numpy as np
import onnx_ir

from graphforge.ir import Model, from_graphsurgeon, from_text, to_graphsurgeon, to_text, verify_graph


def model_with_weight(array: np.ndarray) -> Model:
    model = from_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,40] x, bool c) => (float[N,40] y) <float[40] b> {
           h = Relu(x)
           y = If(c) <then_branch = t () => (float[N,40] p) { p = Neg(h) },
                      else_branch = e () => (float[N,40] q) { q = Abs(h) }>
        }"""
    )
    weight = onnx_ir.Value(name="w", const_value=onnx_ir.Tensor(array, name="w"))
    weight.type, weight.shape = onnx_ir.TensorType(onnx_ir.DataType.FLOAT), onnx_ir.Shape(array.shape)
    model.graph.register_initializer(weight)
    node = onnx_ir.Node("", "MatMul", [model.graph.inputs[0], weight])
    model.graph.insert_before(model.graph[0], node)
    model.graph[1].replace_input_with(0, node.outputs[0])
    return model


def test_there_and_back_without_a_copy() -> None:
    array = np.arange(1600, dtype=np.float32).reshape(40, 40)
    model = model_with_weight(array)
    before = to_text(model)
    graph = to_graphsurgeon(model)
    assert to_text(model) == before
    assert np.shares_memory(graph.tensors()["w"].values, array)
    assert [node.op for node in graph.nodes] == ["MatMul", "Relu", "If"]
    back = from_graphsurgeon(graph)
    verify_graph(back)
    tensor = back.graph.initializers["w"].const_value
    assert tensor is not None
    assert np.shares_memory(tensor.numpy(), array)
    assert [node.op_type for node in back.graph.all_nodes()] == ["MatMul", "Relu", "If", "Neg", "Abs"]
    assert back.graph.opset_imports[""] == 21


def test_a_change_made_in_graphsurgeon_arrives() -> None:
    graph = to_graphsurgeon(model_with_weight(np.ones((40, 40), np.float32)))
    graph.nodes[1].op = "Sigmoid"
    assert [node.op_type for node in from_graphsurgeon(graph).graph] == ["MatMul", "Sigmoid", "If"]
