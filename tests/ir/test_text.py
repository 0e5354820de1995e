"""The text form goes out and comes back."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import Origin, from_text, set_origins, to_text, verify_graph

TEXT = """<
   ir_version: 10,
   opset_import: ["" : 26, "graphforge" : 1]
>
g (float[B,3] x, bool c) => (float[B,N] y)
   <float[3] w =  {1,2,3}, float[B,3] "a.b/c">
{
   "a.b/c" = Mul (x, w)
   k = graphforge.Thing <limit: float = 0.5> ("a.b/c", "", w)
   y = If (c) <then_branch: graph = t () => (float[B,N] p) {
      p = Relu (k)
   }, else_branch: graph = e () => (float[B,N] q) {
      q = Neg (k)
   }>
}
"""


def test_round_trip_is_exact() -> None:
    model = from_text(TEXT)
    verify_graph(model)
    assert to_text(model) == TEXT
    assert to_text(model) == TEXT  # printing leaves the model as it is


def test_large_weights_are_named_and_come_back() -> None:
    model = from_text('<ir_version: 10, opset_import: ["" : 26]>\ng (float[3] x) => (float[3] y) { y = Relu(x) }')
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    weight = onnx_ir.Value(name="layer.weight", const_value=onnx_ir.Tensor(array, name="layer.weight"))
    weight.type, weight.shape = onnx_ir.TensorType(onnx_ir.DataType.FLOAT), onnx_ir.Shape((20, 3))
    model.graph.register_initializer(weight)
    text = to_text(model)
    assert '# weight "layer.weight" float[20,3]' in text
    assert model.graph.initializers["layer.weight"].const_value is not None
    back = from_text(text, weights={"layer.weight": array})
    found = back.graph.initializers["layer.weight"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), array)
    assert to_text(back) == text
    assert to_text(from_text(text, random_weights=1)) == text


def test_a_weight_without_elements_is_an_error() -> None:
    text = """# weight w float[20]
<ir_version: 10, opset_import: ["" : 26]>
g (float[20] x) => (float[20] y) <float[20] w> { y = Add(x, w) }"""
    with pytest.raises(GraphForgeError, match="names weight 'w'"):
        from_text(text)
    with pytest.raises(GraphForgeError, match=r"has shape \[3\], the text says \[20\]"):
        from_text(text, weights={"w": np.zeros(3)})


def test_text_that_is_no_graph() -> None:
    with pytest.raises(GraphForgeError, match="the text is not an ONNX graph"):
        from_text("hello")


def test_origins_stand_above_their_nodes() -> None:
    model = from_text(TEXT)
    set_origins(model.graph[1], [Origin(module="head", module_class="m.Thing", file="model.py", line=4)])
    lines = to_text(model, origins=True).splitlines()
    assert lines[lines.index("   # head (Thing), model.py:4") + 1].startswith("   k = graphforge.Thing")
    assert to_text(from_text("\n".join(lines))) == TEXT
