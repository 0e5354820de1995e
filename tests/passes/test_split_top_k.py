"""split-top-k: the same values, indices and order, by several TopK of fewer elements."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.ir import HOME_OPSET, Builder
from graphforge.passes.split_top_k import SplitTopK
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline


def _model(shape: tuple[int | str, ...], wanted: int, **attributes: int) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}, name="main")
    graph.inputs.append(ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(list(shape))))
    made = Builder(graph).TopK(graph.inputs[0], [wanted], _outputs=2, **attributes)
    for name, value in zip(("values", "indices"), made, strict=True):
        value.name = name
        graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("data", ["random", "equal", "infinite"])
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [((2, 40), {}), ((40,), {}), ((40, 3), {"axis": 0}), ((2, 40), {"largest": 0}), ((2, 40, 3), {"axis": 1})],
    ids=["rows", "one", "columns", "smallest", "middle"],
)
def test_the_same_elements_in_the_same_order(data: str, shape: tuple[int, ...], attributes: dict[str, int]) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal(shape).astype(np.float32)
    if data == "equal":
        x = np.round(x)
    if data == "infinite":
        x[np.abs(x) > 0.5] = -np.inf
    model = _model(shape, 33, **attributes)
    expected = new_session(ir.to_proto(model)).run(None, {"x": x})
    first, second = Pipeline([SplitTopK(limit=10), SplitTopK(limit=10)]).run(model)
    assert first.changes > 0
    assert second.changes == 0
    assert [node.op_type for node in model.graph].count("TopK") == 4
    found = new_session(ir.to_proto(model)).run(None, {"x": x})
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_dynamic_batch_stays_dynamic() -> None:
    model = _model(("batch", 40), 15)
    x = np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)
    expected = new_session(ir.to_proto(model)).run(None, {"x": x})
    Pipeline([SplitTopK(limit=10)]).run(model)
    found = new_session(ir.to_proto(model)).run(None, {"x": x})
    np.testing.assert_array_equal(found[1], expected[1])


def test_few_enough_and_sizes_that_are_not_known_stay() -> None:
    for model in (_model((2, 40), 10), _model((2, "n"), 33)):
        (record,) = Pipeline([SplitTopK(limit=10)]).run(model)
        assert record.changes == 0
