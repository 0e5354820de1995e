"""clamp-nms-limit: a limit beyond 32 bits becomes the largest of 32 bits, which keeps as many boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.ir import HOME_OPSET, Builder, constant_of
from graphforge.passes.clamp_nms_limit import ClampNmsLimit
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.transform import Pipeline


def model_with(limit: int | None) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}, name="main")
    for name, shape in (("boxes", [1, 6, 4]), ("scores", [1, 1, 6])):
        graph.inputs.append(ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape)))
    boxes, scores = graph.inputs
    limits = [] if limit is None else [np.array([limit]), np.array([0.5], np.float32)]
    kept = Builder(graph).NonMaxSuppression(boxes, scores, *limits)
    kept.name = "kept"
    graph.outputs.append(kept)
    return ir.Model(graph, ir_version=10)


def limit_of(model: ir.Model) -> int:
    (node,) = [node for node in model.graph if node.op_type == "NonMaxSuppression"]
    found = constant_of(node.inputs[2])
    assert found is not None
    return int(found[0])


def test_limit_beyond_int32_is_clamped() -> None:
    model = model_with(2**63 - 1)
    (record,) = Pipeline([ClampNmsLimit()]).run(model)
    assert record.changes == 2  # the constant and who reads it
    assert limit_of(model) == 2**31 - 1


@pytest.mark.parametrize("limit", [0, 3, 2**31 - 1])
def test_limit_that_fits_stays(limit: int) -> None:
    model = model_with(limit)
    (record,) = Pipeline([ClampNmsLimit()]).run(model)
    assert record.changes == 0
    assert limit_of(model) == limit


def test_no_limit_stays_none() -> None:
    (record,) = Pipeline([ClampNmsLimit()]).run(model_with(None))
    assert record.changes == 0


def test_limit_that_is_computed_stays() -> None:
    model = model_with(2**63 - 1)
    (node,) = model.graph
    given = ir.Value(name="limit", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    model.graph.inputs.append(given)
    node.replace_input_with(2, given)
    (record,) = Pipeline([ClampNmsLimit()]).run(model)
    assert record.changes == 0


def test_running_twice_changes_nothing_more() -> None:
    first, second = Pipeline([ClampNmsLimit(), ClampNmsLimit()]).run(model_with(2**40))
    assert (first.changes, second.changes) == (2, 0)


def test_as_many_boxes_are_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 40, (1, 6, 2))
    boxes = np.concatenate([low, low + random.uniform(5, 20, (1, 6, 2))], axis=2).astype(np.float32)
    feeds = {"boxes": boxes, "scores": random.uniform(size=(1, 1, 6)).astype(np.float32)}
    kept = []
    for number, passes in enumerate(([], [ClampNmsLimit()])):
        model = model_with(2**63 - 1)
        Pipeline(passes).run(model)
        ir.save(model, tmp_path / f"{number}.onnx")
        runner = OnnxRuntimeRunner(tmp_path / f"{number}.onnx")
        kept.append(runner.run(feeds)["kept"])
        runner.close()
    assert len(kept[0]) > 1
    np.testing.assert_array_equal(kept[0], kept[1])
