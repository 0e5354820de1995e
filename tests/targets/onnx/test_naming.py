"""Names in the artifact: module paths, unique, stable."""

from __future__ import annotations

import onnx_ir as ir

from graphforge.ir import Builder, Origin
from graphforge.targets.onnx.naming import assign_names


def _graph() -> tuple[ir.Model, Builder]:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="main")
    return ir.Model(graph, ir_version=9), Builder(graph, opset=20)


def test_nodes_bear_their_module_path_and_values_their_node() -> None:
    model, op = _graph()
    op.origins = (Origin(module="layer1.0.relu"),)
    first = op.Relu(model.graph.inputs[0])
    second = op.Relu(first)
    op.origins = ()
    last = op.Neg(second)
    last.name = "y"
    model.graph.outputs.append(last)
    assign_names(model)
    assert [node.name for node in model.graph] == ["layer1.0.relu/Relu", "layer1.0.relu/Relu_1", "Neg"]
    assert [node.outputs[0].name for node in model.graph] == ["layer1.0.relu/Relu", "layer1.0.relu/Relu_1", "y"]


def test_further_outputs_are_numbered() -> None:
    model, op = _graph()
    first, second = op.Split(model.graph.inputs[0], axis=0, num_outputs=2, _outputs=2)
    model.graph.outputs.extend([op.Neg(first), op.Neg(second)])
    for index, value in enumerate(model.graph.outputs):
        value.name = f"y{index}"
    assign_names(model)
    assert (first.name, second.name) == ("Split", "Split:1")


def test_a_value_never_takes_the_name_of_an_input_weight_or_output() -> None:
    model, op = _graph()
    model.graph.inputs[0].name = "Relu"
    value = op.Relu(model.graph.inputs[0])
    output = op.Neg(value)
    output.name = "Relu_1"
    model.graph.outputs.append(output)
    assign_names(model)
    assert value.name == "Relu_2"


def test_naming_twice_gives_the_same_names() -> None:
    model, op = _graph()
    value = model.graph.inputs[0]
    for _ in range(4):
        value = op.Relu(value)
    value.name = "y"
    model.graph.outputs.append(value)
    assign_names(model)
    before = [node.name for node in model.graph]
    assign_names(model)
    assert [node.name for node in model.graph] == before
