"""Cutting the head off: both parts together are the model, bad cuts are refused, and the bundle of the front works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.ir import Origin
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.spec import ShapeSpec
from graphforge.targets.magicmind import MagicMindTarget
from graphforge.targets.magicmind.cut import cut_model
from graphforge.targets.magicmind.lint import Severity, lint
from graphforge.targets.onnx.naming import assign_names
from tests.targets.magicmind.bundles import OPSET, emit, run_scripts
from tests.targets.models import Sketch, spec

BODY = Origin("body", "torch.nn.Conv2d", "aten.conv2d.default", "net.py", 3)
SMALL = Origin("head.small", "torch.nn.Conv2d", "aten.conv2d.default", "net.py", 7)
LARGE = Origin("head.large", "torch.nn.Conv2d", "aten.conv2d.default", "net.py", 8)
HEAD = Origin("head", "net.Head", "aten.sigmoid.default", "net.py", 9)
SHAPES = spec("x", 1, 3, 8, 8)


def detector() -> ir.Model:
    """A body, two raw heads on it, and decoding that joins them and reads the size of the input."""
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 3, 8, 8])
    features = sketch.op(BODY).Relu(sketch.op(BODY).Conv(x, sketch.weight("body.weight", 4, 3, 3, 3), pads=[1] * 4))
    small = sketch.op(SMALL).Conv(features, sketch.weight("small.weight", 6, 4, 1, 1))
    large = sketch.op(LARGE).Conv(features, sketch.weight("large.weight", 6, 4, 3, 3), pads=[1] * 4)
    op = sketch.op(HEAD)
    boxes = op.Sigmoid(op.Concat(small, large, axis=1))
    size = op.Cast(op.Slice(op.Shape(x), [3], [4]), to=int(ir.DataType.FLOAT))
    model = sketch.model(boxes=op.Mul(boxes, size), best=op.ReduceMax(boxes, axes=[1], keepdims=0))
    assign_names(model)
    return model


FEEDS = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}


def run(model: ir.Model, feeds: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    ir.save(model, file)
    onnx.checker.check_model(str(file), full_check=True)
    runner = OnnxRuntimeRunner(file)
    try:
        return runner.run(feeds)
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("places", "values"),
    [
        (("head.small", "head.large"), ("head.small/Conv", "head.large/Conv")),
        (("head.large/Conv", "head.small/Conv"), ("head.large/Conv", "head.small/Conv")),
        (("body",), ("body/Relu",)),
        (("head/Concat",), ("head/Concat",)),
        (("body/Relu", "body"), ("body/Relu",)),
    ],
)
def test_parts_together_are_the_model(places: tuple[str, ...], values: tuple[str, ...], tmp_path: Path) -> None:
    model = detector()
    before = len(model.graph)
    cut = cut_model(model, places)
    assert cut.values == values
    assert len(model.graph) == before
    assert [value.name for value in cut.tail.graph.outputs] == ["boxes", "best"]
    assert "x" in [value.name for value in cut.tail.graph.inputs]  # the size of the input is read behind the cut
    whole = run(model, FEEDS, tmp_path / "whole.onnx")
    middle = run(cut.front, FEEDS, tmp_path / "front.onnx")
    assert tuple(middle) == values
    joined = run(cut.tail, {**middle, **FEEDS}, tmp_path / "tail.onnx")
    for name, array in whole.items():
        np.testing.assert_array_equal(joined[name], array)


def test_no_node_is_in_both_parts_but_arithmetic_of_sizes() -> None:
    cut = cut_model(detector(), ["head.small", "head.large"])
    front, tail = ({node.op_type for node in part.graph} for part in (cut.front, cut.tail))
    assert front == {"Conv", "Relu"}
    assert "Conv" not in tail
    assert set(cut.front.graph.initializers) == {"body.weight", "small.weight", "large.weight"}
    assert not set(cut.tail.graph.initializers) & set(cut.front.graph.initializers)


def test_cut_with_a_hole_is_refused_with_the_way_that_is_open() -> None:
    with pytest.raises(
        GraphForgeError, match=r"also depend on Relu node 'body/Relu'.*net\.py:3.* does not pass through the cut"
    ):
        cut_model(detector(), ["head.small"])


def test_unknown_place_is_refused_with_what_is_close() -> None:
    with pytest.raises(GraphForgeError, match=r"no value, node or module 'head\.smal' to cut at") as caught:
        cut_model(detector(), ["head.smal"])
    assert any("did you mean head.small" in note for note in caught.value.notes)


def test_output_is_no_place_to_cut_at() -> None:
    with pytest.raises(GraphForgeError, match="'boxes' is an output of the model already"):
        cut_model(detector(), ["boxes"])


def test_bundle_of_the_front_is_whole(tmp_path: Path) -> None:
    result = emit(detector(), tmp_path, SHAPES, cut="head.small,head.large")
    assert set(result.files) == {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    described = json.loads((tmp_path / "bundle.json").read_text())
    assert described["cut"] == {"values": ["head.small/Conv", "head.large/Conv"], "tail": "tail.onnx"}
    assert [entry["name"] for entry in described["outputs"]] == described["cut"]["values"]
    assert any("cut at head.small/Conv, head.large/Conv" in note for note in result.notes)
    assert not [finding for finding in lint(tmp_path) if finding.severity is Severity.ERROR]
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome
    assert "(head.large/Conv)" in outcome.output


def test_runner_of_the_bundle_gives_the_outputs_of_the_model(tmp_path: Path) -> None:
    whole = run(detector(), FEEDS, tmp_path / "whole.onnx")
    folder = tmp_path / "bundle"
    emit(detector(), folder, SHAPES, cut="head.small,head.large")
    runner = MagicMindTarget().runner(folder)
    assert runner is not None
    found = runner.run(FEEDS)
    runner.close()
    assert "not an MLU" in runner.name
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array)


def test_bundle_without_a_cut_says_so(tmp_path: Path) -> None:
    emit(detector(), tmp_path, SHAPES)
    assert json.loads((tmp_path / "bundle.json").read_text())["cut"] is None
    assert not (tmp_path / "tail.onnx").exists()


class Detector(torch.nn.Module):
    """Raw head, then decoding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 4, 3, stride=2)
        self.raw = torch.nn.Conv2d(4, 6, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raw: torch.Tensor = self.raw(self.body(image).relu())
        return raw.sigmoid().flatten(2).transpose(1, 2) * 2


def test_compiled_model_is_verified_through_both_parts(tmp_path: Path) -> None:
    bundle = graphforge.compile(
        Detector().eval(),
        torch.randn(1, 3, 17, 17),
        dynamic_shapes={"image": {0: (1, 3)}},
        target="magicmind",
        target_options={"cut": "raw"},
        output=tmp_path / "bundle",
    )
    verification = bundle.manifest["verification"]
    assert verification["passed"]
    assert verification["artifact"] == "ONNX Runtime on both parts, not an MLU"
    assert bundle.manifest["artifact"]["cut"] == {"values": ["raw/Conv"], "tail": "tail.onnx"}
    assert {node.op_type for node in onnx.load(tmp_path / "bundle" / "model.onnx").graph.node} == {"Conv", "Relu"}


def test_promise_of_shapes_is_about_the_inputs_alone(tmp_path: Path) -> None:
    emit(detector(), tmp_path, ShapeSpec(SHAPES.inputs), cut="body")
    assert [entry["name"] for entry in json.loads((tmp_path / "bundle.json").read_text())["inputs"]] == ["x"]
