"""register-custom-op: nodes of declared operators are typed, others left with a reason, or refused on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import from_text, infer_node
from graphforge.ops.custom_op import TensorFact, custom_op, withdraw
from graphforge.passes.register_custom_op import RegisterCustomOp
from graphforge.transform import Pipeline, VerifyGraph

TEXT = """<ir_version: 10, opset_import: ["" : 26]>
g (float[N,3] x) => (float[N,3] y) { a = acme.%s(x) y = Relu(a) }"""


def _same(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [one for one in inputs if one is not None]


@pytest.fixture(autouse=True)
def _twice() -> Iterator[None]:
    op = custom_op("acme::Twice", inputs=["x"], outputs=["y"], shapes=_same, version=3)
    yield
    withdraw(op)


def test_a_declared_operator_is_typed_and_its_domain_imported() -> None:
    model = from_text(TEXT % "Twice")
    first, second = Pipeline([RegisterCustomOp(), RegisterCustomOp()]).run(model, [VerifyGraph()])
    assert str(model.graph[0].outputs[0].shape) == "[N,3]"
    assert model.graph.opset_imports["acme"] == 3
    assert first.changes
    assert not second.changes


def test_one_that_is_not_declared_is_left_with_the_reason() -> None:
    model = from_text(TEXT % "Other")
    for node in model.graph:
        infer_node(node, 26)
    (record,) = Pipeline([RegisterCustomOp()]).run(model)
    assert not record.changes
    assert [miss.reason for miss in record.near_misses] == ["acme::Other is not declared"]
    with pytest.raises(GraphForgeError, match=r"acme::Other is not declared \(declared: .*acme::Twice"):
        Pipeline([RegisterCustomOp(strict=True)]).run(model)
