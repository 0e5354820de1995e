"""SoftNMS: the reference against a loop over plain numbers, the lowering against the reference."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, Builder
from graphforge.ops.soft_nms import soft_nms
from graphforge.passes.lower_nms import LowerNms
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline, VerifyGraph
from tests.ops.nms_cases import boxes_like, same, scores_like
from tests.passes.test_bound_dynamic_shapes import check

METHODS = ("linear", "gaussian", "naive")


def session_of(**attributes: Any) -> onnxruntime.InferenceSession:
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(dims))
        for name, dims in (("boxes", ("N", 4)), ("scores", ("N",)))
    ]
    graph = ir.Graph(inputs, [], nodes=[], name="g", opset_imports={"": HOME_OPSET, "graphforge": 1})
    made = Builder(graph).node("SoftNMS", inputs, _domain="graphforge", _outputs=2, **attributes)
    for name, value in zip(("dets", "indices"), made, strict=True):
        value.name = name
        graph.outputs.append(value)
    model = ir.Model(graph, ir_version=10)
    Pipeline([LowerNms()]).run(model, [VerifyGraph()])
    return new_session(model)


def by_numbers(boxes: np.ndarray, scores: np.ndarray, method: str) -> tuple[list[int], list[float]]:
    """As the paper has it, in double precision, for boxes with area."""
    left = {index: float(score) for index, score in enumerate(scores)}
    order, reached = [], []
    while left:
        best = max(left, key=lambda index: (left[index], -index))
        order.append(best)
        reached.append(left.pop(best))
        for index in list(left):
            one, two = boxes[best].astype(float), boxes[index].astype(float)
            sides = np.maximum(np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2]), 0)
            inter = sides.prod()
            iou = inter / ((one[2:] - one[:2]).prod() + (two[2:] - two[:2]).prod() - inter)
            if method == "gaussian":
                left[index] *= math.exp(-iou * iou / 0.5)
            elif iou >= 0.3:
                left[index] *= 1 - iou if method == "linear" else 0
            if left[index] < 1e-3:
                del left[index]
    return order, reached


@pytest.mark.parametrize("method", METHODS)
def test_reference_is_the_paper(method: str) -> None:
    random = np.random.default_rng(0)
    for count in (0, 1, 5, 40):
        corner = random.uniform(0, 30, (count, 2))
        boxes = np.concatenate([corner, corner + random.uniform(5, 15, (count, 2))], axis=1).astype(np.float32)
        scores = random.permutation(count).astype(np.float32) / max(count, 1) + np.float32(0.01)
        dets, indices = soft_nms(torch.from_numpy(boxes), torch.from_numpy(scores), method=method)
        order, reached = by_numbers(boxes, scores, method)
        assert indices.tolist() == order
        assert np.allclose(dets[:, 4], reached, rtol=1e-4, atol=0)
        assert torch.equal(dets[:, :4], torch.from_numpy(boxes)[indices])


@pytest.mark.parametrize("method", METHODS)
def test_lowering_against_reference(method: str) -> None:
    session = session_of(method=method, iou_threshold=0.25, sigma=0.4, min_score=0.05)
    random = np.random.default_rng(1)
    for _ in range(60):
        count = int(random.choice([0, 1, 2, 10, 40]))
        boxes = boxes_like(random, count, random.choice(["random", "grid", "flat", "inverted", "chain", "same"]))
        scores = scores_like(random, (1, count), random.choice(["random", "ties", "equal", "infinite"]))[0]
        scores = np.minimum(scores, np.float32(1))
        dets, indices = session.run(None, {"boxes": boxes, "scores": scores})
        expected = soft_nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.25, 0.4, 0.05, method)
        if method == "gaussian":  # exp differs in the last bit, and with it what ties
            assert dets.shape[1] == 5
            if len(set(scores.tolist())) == count:
                assert indices.tolist() == expected[1].tolist()
                np.testing.assert_allclose(dets, expected[0].numpy(), rtol=1e-5)
            continue
        assert same(indices, expected[1].numpy())
        assert same(dets, expected[0].numpy())


def test_boxes_without_area_keep_their_scores() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1]] * 3)
    for method in METHODS:
        dets, indices = soft_nms(boxes, torch.tensor([0.3, 0.9, 0.3]), method=method)
        assert indices.tolist() == [1, 0, 2]
        assert torch.equal(dets[:, 4], torch.tensor([0.9, 0.3, 0.3]))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"method": "cubic"}, "no method 'cubic'"),
        ({"sigma": 0.0}, "must be above 0"),
        ({"min_score": math.nan}, "is not a number"),
    ],
)
def test_refusals(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphForgeError, match=message):
        soft_nms(torch.zeros(1, 4), torch.ones(1), **attributes)


def test_survives_capture_as_one_node() -> None:
    class Head(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(torch.ops.graphforge.soft_nms(boxes, scores, 0.3, 0.5, 0.001, "linear"))

    program = torch.export.export(Head(), (torch.rand(9, 4), torch.rand(9)))
    assert "graphforge.soft_nms.default" in [str(node.target) for node in program.graph.nodes]


class Softened(torch.nn.Module):
    """Boxes above a score, softly suppressed, and what is gathered by the indices."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def forward(self, boxes: torch.Tensor, scores: torch.Tensor, extra: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = scores > 0.2
        boxes, scores, extra = boxes[found], scores[found], extra[found]
        dets, kept = torch.ops.graphforge.soft_nms(boxes, scores, 0.3, 0.5, 0.05, self.method)
        return dets, extra[kept]


@pytest.mark.parametrize("form", ["ragged", "padded"])
@pytest.mark.parametrize("method", METHODS)
def test_compiles_end_to_end(method: str, form: str, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    examples = []
    for spread in (30.0, 3.0, 0.0):  # some overlap; much overlap; no candidate at all
        corner = random.uniform(0, spread, (40, 2))
        boxes = np.concatenate([corner, corner + random.uniform(5, 15, (40, 2))], axis=1).astype(np.float32)
        scores = (random.permutation(40) / 40).astype(np.float32) * np.float32(bool(spread))
        examples.append((torch.from_numpy(boxes), torch.from_numpy(scores), torch.arange(40)))
    model = Softened(method).eval()
    bundle = graphforge.compile(model, examples[0], output=tmp_path / "out", outputs=form)
    assert bundle.manifest["verification"]["passed"]
    results, _ = check(model, *examples, form=form)
    counts = [len(dets) for dets, _ in results]
    assert counts[2] == 0 < counts[1] < counts[0] < 40
