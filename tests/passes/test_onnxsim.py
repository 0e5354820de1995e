"""onnxsim as a pass: it works where it is installed, and says what to do where it is not."""

from __future__ import annotations

import sys

import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import Origin, origins_of, set_origins, verify_graph
from graphforge.passes.onnxsim import Onnxsim
from graphforge.transform import Pipeline, VerifyGraph
from graphforge.verify import NumericCheck
from tests.passes.harness import parse

GRAPH = """g (float[2,3] x) => (float[2,3] y) <float[3] w = {1, 2, 3}, float[3] v = {1, 1, 1}> {
   a = Identity(x) k = Add(w, v) b = Mul(a, k) c = Transpose(b) d = Transpose(c) y = Relu(d)
}"""


def test_it_simplifies_and_keeps_names_and_numbers() -> None:
    pytest.importorskip("onnxsim")
    model = parse(GRAPH)
    model.graph.opset_imports[""] = 21  # the newest that onnxsim's own checks take everywhere
    for node in model.graph:
        set_origins(node, [Origin(module=f"m_{node.op_type}")])
    (record,) = Pipeline([Onnxsim(check_n=1)]).run(model, [VerifyGraph(), NumericCheck()])
    assert record.nodes_after == 2
    assert record.notes == ("onnxsim: 6 nodes became 2",)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    verify_graph(model)
    assert all(isinstance(origins_of(node), tuple) for node in model.graph)


def test_without_the_package_it_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    with pytest.raises(GraphForgeError, match="needs the package onnxsim, which is not installed") as caught:
        Pipeline([Onnxsim()]).run(parse(GRAPH))
    assert "pip install" in str(caught.value)
