"""register-custom-op: nodes of declared operators are typed, others left with a reason, or refused on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import from_text, infer_node, verify_graph
from graphforge.ops.custom_op import TensorFact, custom_op, declared_ops, withdraw
from graphforge.passes.register_custom_op import RegisterCustomOp
from graphforge.transform import Pipeline, VerifyGraph
from tests.ops.acme import declare

HEADER = '<ir_version: 10, opset_import: ["" : 26, "acme" : 1]>\n'
GRAPH = 'g (float[N,3] x, float s) => (float[N,3] y) { a, b = acme.ScaledSort<mode="up">(x, s) c = Neg(a) y = Relu(c) }'
TEXT = """<ir_version: 10, opset_import: ["" : 26]>
g (float[N,3] x) => (float[N,3] y) { a = acme.%s(x) y = Relu(a) }"""


def _same(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [one for one in inputs if one is not None]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    for op in declared_ops():
        if op.domain == "acme":
            withdraw(op)


def declare_twice() -> None:
    custom_op("acme::Twice", inputs=["x"], outputs=["y"], shapes=_same, version=3)


def test_a_declared_operator_is_typed_and_its_domain_imported() -> None:
    declare_twice()
    model = from_text(TEXT % "Twice")
    first, second = Pipeline([RegisterCustomOp(), RegisterCustomOp()]).run(model, [VerifyGraph()])
    assert str(model.graph[0].outputs[0].shape) == "[N,3]"
    assert model.graph.opset_imports["acme"] == 3
    assert first.changes
    assert not second.changes


def test_one_that_is_not_declared_is_left_with_the_reason() -> None:
    declare_twice()
    model = from_text(TEXT % "Other")
    for node in model.graph:
        infer_node(node, 26)
    (record,) = Pipeline([RegisterCustomOp()]).run(model)
    assert not record.changes
    assert [miss.reason for miss in record.near_misses] == ["acme::Other is not declared"]
    with pytest.raises(GraphForgeError, match=r"acme::Other is not declared \(declared: .*acme::Twice"):
        Pipeline([RegisterCustomOp(strict=True)]).run(model)


def test_the_pass_types_nodes_and_imports_the_domain(tmp_path: Path) -> None:
    file = tmp_path / "ops.py"
    file.write_text(
        "from graphforge.ops.custom_op import TensorFact, custom_op\n"
        "custom_op('acme::ScaledSort', inputs=['x', 'scale: float', 'mask: bool?'],\n"
        "          outputs=['sorted', 'order: int64'],\n"
        "          attributes={'axis': -1, 'mode': str}, library='libacme.so',\n"
        "          shapes=lambda inputs, attributes: [inputs[0], TensorFact('int64', inputs[0].shape)])\n"
    )
    model = from_text(HEADER.replace(', "acme" : 1', "") + GRAPH)
    (record,) = Pipeline([RegisterCustomOp(file=str(file))]).run(model)
    assert record.changes > 0
    assert record.notes == ("acme::ScaledSort needs its kernel library in ONNX Runtime: libacme.so",)
    assert str(model.graph[0].outputs[0].shape) == "[N,3]"
    assert model.graph.opset_imports["acme"] == 1
    verify_graph(model)
    assert Pipeline([RegisterCustomOp()]).run(model)[0].changes == 0


def test_the_node_survives_the_default_pipeline_and_the_file(tmp_path: Path) -> None:
    from graphforge.passes import default_pipeline

    declare()
    model = from_text(HEADER + GRAPH)
    Pipeline([RegisterCustomOp(), *default_pipeline()]).run(model)
    onnx_ir.save(model, tmp_path / "model.onnx")
    back = onnx.load(tmp_path / "model.onnx")
    assert ("acme", "ScaledSort") in [(node.domain, node.op_type) for node in back.graph.node]
    onnx.checker.check_model(back, full_check=True)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ('a = acme.ScaledSort<mode="up">(x)', "has 1 inputs, declared are 2 to 3"),
        ('a = acme.ScaledSort<mode="up", size=3>(x, s)', "has attribute 'size', declared are axis, mode"),
        ("a = acme.ScaledSort(x, s)", "lacks attribute 'mode', which has no default"),
        ("a = acme.Other(x, s)", "operator acme::Other is not declared (declared: acme::ScaledSort)"),
    ],
)
def test_nodes_that_do_not_fit_their_declaration(node: str, message: str) -> None:
    declare()
    model = from_text(HEADER + f"g (float[N,3] x, float s) => (float[N,3] y) {{ {node} y = Relu(a) }}")
    with pytest.raises(GraphForgeError) as caught:
        Pipeline([RegisterCustomOp(strict=True)]).run(model)
    assert message in str(caught.value)
    assert "node 'a'" in str(caught.value)


def test_the_file_must_be_there_and_load(tmp_path: Path) -> None:
    model = from_text(HEADER + "g (float[3] x) => (float[3] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="there is no file"):
        Pipeline([RegisterCustomOp(file="absent.py")]).run(model)
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    with pytest.raises(GraphForgeError, match="cannot be loaded: ZeroDivisionError"):
        Pipeline([RegisterCustomOp(file=str(broken))]).run(model)
