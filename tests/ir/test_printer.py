"""The printed graph: what a reader sees, in columns, and within the width of a terminal."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.ir import Origin, from_text, print_graph, set_origins
from graphforge.ir.printer import short_source, short_type

TEXT = """<ir_version: 10, opset_import: ["" : 26, "graphforge" : 1]>
main (float[n,8,6,6] x, bool c) => (float[n,4] y)
   <int64[2] shape = {-1,288}, int32[2] pair = {3,4}, double half = {0.5}>
{
   flat = Reshape (x, shape)
   dense = Gemm <transB: int = 0, alpha: float = 1.0> (flat, kernel)
   whole = Cast <to: int = 7> (dense)
   odd = graphforge.Thing <limit: float = 0.5, mode: string = "a"> (whole, "", pair, half)
   y = If (c) <then_branch: graph = t () => (float[n,4] p) {
      p = Relu (dense)
   }, else_branch: graph = e () => (float[n,4] q) {
      q = Identity (odd)
   }>
}
"""


@pytest.fixture
def model() -> ir.Model:
    made = from_text("# weight kernel float[288,4]\n" + TEXT, random_weights=0)
    values = {value.name: value for node in made.graph for value in node.outputs}
    for name, dtype, shape in (
        ("flat", ir.DataType.FLOAT, ("n", 288)),
        ("dense", ir.DataType.FLOAT, ("n", 4)),
        ("whole", ir.DataType.INT64, ("n", 4)),
    ):
        values[name].type, values[name].shape = ir.TensorType(dtype), ir.Shape(shape)
    set_origins(made.graph[1], [Origin(module="head.fc", file="/some/where/net.py", line=12)])
    return made


def test_one_node_a_line_in_columns(model: ir.Model) -> None:
    assert print_graph(model) == (
        """\
main: opset 26, graphforge 1, 7 nodes, 4 constants of 4.64 kB
in   x  f32[n,8,6,6]
in   c  bool[]
out  y  f32[n,4]

flat   f32[n,288] = Reshape(x, [-1,288])
dense  f32[n,4]   = Gemm(flat, [288,4] f32)                                              head.fc  net.py:12
whole  i64[n,4]   = Cast(dense, to=i64)
odd    ?          = graphforge::Thing(whole, -, i32{3,4}, 0.5 f64, limit=0.5, mode='a')
y      f32[n,4]   = If(c)
  then_branch:
    p  f32[n,4]   = Relu(dense)
    -> p
  else_branch:
    q  f32[n,4]   = Identity(odd)
    -> q
"""
    )


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 160])
def test_lines_keep_to_the_width(model: ir.Model, width: int) -> None:
    lines = print_graph(model, width=width).splitlines()
    assert max(map(len, lines[1:])) <= width
    assert len(lines) == len(print_graph(model).splitlines())
    assert any("= Gemm(" in line for line in lines)


def test_the_operation_is_kept_before_the_origin(model: ir.Model) -> None:
    assert "net.py:12" in print_graph(model, width=100)
    assert "net.py:12" not in print_graph(model, width=48)


def test_one_long_row_does_not_push_the_others_apart(model: ir.Model) -> None:
    many = from_text(
        '<ir_version: 10, opset_import: ["" : 26]>\nmain (float[4] x) => (float[4] z) {\n'
        + "".join(f"v{step + 1} = Relu ({'x' if step == 0 else f'v{step}'})\n" for step in range(12))
        + "a_name_that_is_much_longer_than_that_of_any_other = Relu (v12)\n"
        + "z = Relu (a_name_that_is_much_longer_than_that_of_any_other)\n}"
    )
    lines = print_graph(many).splitlines()
    assert "v1   ?      = Relu(x)" in lines
    assert "a_name_that_is_much_longer_than_that_of_any_other  ? = Relu(v12)" in lines


def test_colours_are_only_there_when_asked_for(model: ir.Model) -> None:
    assert "\x1b[" not in print_graph(model)
    assert "\x1b[1mGemm\x1b[0m" in print_graph(model, colour=True)


def test_printing_leaves_the_model_as_it_is(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    print_graph(model, width=70, colour=True)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("kind", "shape", "text"),
    [
        (None, None, "?"),
        (ir.TensorType(ir.DataType.BOOL), None, "bool[...]"),
        (ir.TensorType(ir.DataType.DOUBLE), ir.Shape([2, "batch", None]), "f64[2,batch,?]"),
        (ir.SequenceType(ir.TensorType(ir.DataType.STRING)), ir.Shape([]), "seq(str[])"),
        (ir.OptionalType(ir.TensorType(ir.DataType.INT4)), ir.Shape([3]), "optional(i4[3])"),
    ],
)
def test_short_types(kind: ir.TypeProtocol | None, shape: ir.Shape | None, text: str) -> None:
    assert short_type(ir.Value(name="v", type=kind, shape=shape)) == text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("/a/lib/python3.11/site-packages/torchvision/models/resnet.py", "torchvision/models/resnet.py:7"),
        ("/home/me/net.py", "net.py:7"),
        ("C:\\work\\net.py", "net.py:7"),
        ("", ""),
    ],
)
def test_sources_without_the_folders_around(file: str, text: str) -> None:
    assert short_source(Origin(file=file, line=7)) == text


def test_a_large_graph_prints_in_time_that_grows_with_it() -> None:
    graph = ir.Graph([], [], nodes=[], name="large", opset_imports={"": 26})
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4]))
    graph.inputs.append(value)
    for step in range(20_000):
        node = ir.node("Relu", [value])
        value = node.outputs[0]
        value.name = f"v{step}"
        graph.append(node)
    graph.outputs.append(value)
    text = print_graph(ir.Model(graph, ir_version=10))
    assert text.count("\n") == 20_000 + 4


def test_weights_are_never_read(model: ir.Model) -> None:
    class Unreadable(ir.Tensor[np.ndarray]):
        def numpy(self) -> np.ndarray:
            raise AssertionError("a weight was read to be printed")

    kernel = model.graph.initializers["kernel"]
    kernel.const_value = Unreadable(np.zeros((288, 4), np.float32), name="kernel")
    assert "Gemm(flat, [288,4] f32)" in print_graph(model)
