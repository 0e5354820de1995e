"""NMSRotated: the IoU against polygons clipped in Python numbers, the lowering against the reference, and compiled."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, Builder
from graphforge.ops.nms_rotated import nms_rotated, rotated_iou
from graphforge.passes.lower_nms import LowerNms
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline, VerifyGraph
from tests.ops.nms_cases import scores_like
from tests.passes.test_bound_dynamic_shapes import check

KINDS = ("random", "grid", "flat", "same", "wrap", "inverted", "far", "chain", "touching")
Point = tuple[float, float]


def boxes_like(random: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """[count, 5] float32 of one kind."""
    centre: np.ndarray = random.uniform(0, 30, (count, 2))
    sides: np.ndarray = random.uniform(2, 20, (count, 2))
    angle: np.ndarray = random.uniform(-math.pi, math.pi, (count, 1))
    if kind == "grid":  # axis-aligned, with common edges and corners, and many equal ones
        centre, sides = random.integers(0, 6, (count, 2)) * 4, random.integers(1, 3, (count, 2)) * 4
        angle = random.integers(-4, 5, (count, 1)) * (math.pi / 2)
    elif kind == "flat":  # a third without area
        sides[random.random((count, 2)) < 0.2] = 0
    elif kind == "same":
        centre, sides, angle = centre[:1].repeat(count, 0), sides[:1].repeat(count, 0), angle[:1].repeat(count, 0)
    elif kind == "wrap":  # the same box, its angle a whole or half turn further, or its sides swapped
        turns = random.integers(-3, 4, (count, 1))
        sides = np.tile(np.array([[9.0, 5.0]]), (count, 1))
        sides[turns[:, 0] % 2 == 1] = (5.0, 9.0)
        centre, angle = random.integers(0, 3, (count, 2)) * 6.0, 0.4 + turns * (math.pi / 2)
    elif kind == "inverted":
        sides *= random.choice([-1, 1], (count, 2))
    elif kind == "far":
        centre += 3000
    elif kind == "chain":  # each suppresses the next
        centre = np.stack([np.arange(count) * 2.0, np.arange(count) * 2.0], axis=1)
        sides, angle = np.tile(np.array([[6.0, 3.0]]), (count, 1)), np.full((count, 1), math.pi / 4)
    elif kind == "touching":  # side by side, along a slanted line
        slant = 0.7
        centre = np.arange(count)[:, None] * 4.0 * np.array([[math.cos(slant), math.sin(slant)]])
        sides, angle = np.tile(np.array([[4.0, 3.0]]), (count, 1)), np.full((count, 1), slant)
    return np.concatenate([centre, sides, angle], axis=1).astype(np.float32)


def corners(box: np.ndarray) -> list[Point]:
    x, y, w, h, t = (float(value) for value in box)
    return [
        (x + math.cos(t) * u * w / 2 - math.sin(t) * v * h / 2, y + math.sin(t) * u * w / 2 + math.cos(t) * v * h / 2)
        for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def clipped(polygon: list[Point], one: Point, two: Point) -> list[Point]:
    """What is left of the line (Sutherland and Hodgman, Reentrant Polygon Clipping, 1974)."""

    def side(point: Point) -> float:
        return (two[0] - one[0]) * (point[1] - one[1]) - (two[1] - one[1]) * (point[0] - one[0])

    made = []
    for here, there in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        first, second = side(here), side(there)
        if first >= 0:
            made.append(here)
        if (first > 0 > second) or (first < 0 < second):
            share = first / (first - second)
            made.append((here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1])))
    return made


def iou_by_clipping(first: np.ndarray, second: np.ndarray) -> float:
    """In double precision; 0 where a box has no area."""
    if min(first[2], first[3], second[2], second[3]) <= 0:
        return 0.0
    polygon, other = corners(first), corners(second)
    for one, two in zip(other, other[1:] + other[:1], strict=True):
        polygon = clipped(polygon, one, two)
    turns = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    shared = sum(a[0] * b[1] - a[1] * b[0] for a, b in turns) / 2
    return shared / (float(first[2]) * float(first[3]) + float(second[2]) * float(second[3]) - shared)


def ious(boxes: np.ndarray) -> np.ndarray:
    local = boxes.astype(np.float64)  # a common shift changes no overlap, and keeps the shoelace exact
    local[:, :2] -= local[:1, :2]
    return np.array([[iou_by_clipping(one, two) for two in local] for one in local]).reshape(len(boxes), len(boxes))


def greedily(overlaps: np.ndarray, scores: np.ndarray, classes: np.ndarray | None, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        rivals = [other for other in kept if classes is None or classes[other] == classes[index]]
        if scores[index] > -math.inf and all(overlaps[other, index] <= threshold for other in rivals):
            kept.append(index)
    return kept


def decided(overlaps: np.ndarray, threshold: float, margin: float) -> bool:
    """No overlap is so near to the threshold that rounding could decide."""
    return bool((np.abs(overlaps - max(threshold, 1e-6)) > margin).all()) or threshold < margin


@pytest.mark.parametrize("kind", KINDS)
def test_iou_is_that_of_the_polygons(kind: str) -> None:
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(6):
        boxes = boxes_like(random, 14, kind)
        found = np.nan_to_num(rotated_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy())
        expected = ious(boxes)
        seen += int((expected > 0.05).sum())
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)
    assert seen > 14


@pytest.mark.parametrize("classes", [None, 2])
def test_reference_is_greedy(classes: int | None) -> None:
    random = np.random.default_rng(1)
    compared = 0
    for kind in KINDS:
        for threshold in (0.0, 0.1, 0.45):
            boxes = boxes_like(random, 30, kind)
            scores = scores_like(random, (1, 30), random.choice(["random", "ties", "equal", "infinite"]))[0]
            ids = None if classes is None else random.integers(0, classes, 30)
            overlaps = ious(boxes)
            if threshold == 0.0:
                overlaps[overlaps < 1e-6] = 0
            if not decided(overlaps, threshold, 5e-6):
                continue
            compared += 1
            given = None if ids is None else torch.from_numpy(ids)
            found = nms_rotated(torch.from_numpy(boxes), torch.from_numpy(scores), given, threshold)
            assert found.tolist() == greedily(overlaps, scores, ids, threshold), (kind, threshold)
    assert compared >= 20


@functools.cache
def session_of(threshold: float, classes: bool, form: str = "portable", depth: int = 0) -> onnxruntime.InferenceSession:
    named = [("boxes", ("N", 5), ir.DataType.FLOAT), ("scores", ("N",), ir.DataType.FLOAT)]
    named += [("class_ids", ("N",), ir.DataType.INT64)] if classes else []
    inputs = [ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(dims)) for name, dims, kind in named]
    graph = ir.Graph(inputs, [], nodes=[], name="g", opset_imports={"": HOME_OPSET, "graphforge": 1})
    made: Any = Builder(graph).node("NMSRotated", inputs, _domain="graphforge", iou_threshold=threshold)
    made.name = "keep"
    graph.outputs.append(made)
    model = ir.Model(graph, ir_version=10)
    Pipeline([LowerNms(form=form, depth=depth)]).run(model, [VerifyGraph()])
    return new_session(model)


@pytest.mark.parametrize("classes", [False, True])
def test_lowering_against_reference(classes: bool) -> None:
    random = np.random.default_rng(2)
    compared = 0
    for number in range(400):
        kind, count = str(random.choice(KINDS)), int(random.choice([0, 1, 2, 12, 50]))
        threshold = float(np.float32(random.choice([0.0, 0.1, 0.5])))
        boxes = boxes_like(random, count, kind) if count else np.zeros((0, 5), np.float32)
        scores = scores_like(random, (1, count), random.choice(["random", "ties", "equal", "infinite"]))[0]
        ids = random.integers(0, 3, count)
        matrix = rotated_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).nan_to_num().numpy()
        if count and np.abs(matrix - max(threshold, 1e-6)).min() < 4e-7:
            continue  # sine and cosine differ in the last bit, and with them what lies on the threshold
        compared += 1
        feeds = {"boxes": boxes, "scores": scores, **({"class_ids": ids} if classes else {})}
        (found,) = session_of(threshold, classes).run(None, feeds)
        given = torch.from_numpy(ids) if classes else None
        expected = nms_rotated(torch.from_numpy(boxes), torch.from_numpy(scores), given, threshold)
        assert found.tolist() == expected.tolist(), (number, kind, count, threshold)
    assert compared > 250


def test_written_out_says_whether_the_rounds_were_enough() -> None:
    boxes, scores = boxes_like(np.random.default_rng(0), 12, "chain"), np.linspace(1, 0.5, 12, dtype=np.float32)
    feeds = {"boxes": boxes, "scores": scores}
    expected = nms_rotated(torch.from_numpy(boxes), torch.from_numpy(scores), None, 0.1).tolist()
    assert 1 < len(expected) < 12
    keep, converged = session_of(0.1, False, depth=16).run(None, feeds)
    assert bool(converged)
    assert keep.tolist() == expected
    assert not session_of(0.1, False, depth=3).run(None, feeds)[1]


def test_native_is_the_same() -> None:
    boxes, scores = boxes_like(np.random.default_rng(3), 40, "random"), np.linspace(1, 0.5, 40, dtype=np.float32)
    feeds = {"boxes": boxes, "scores": scores}
    expected = nms_rotated(torch.from_numpy(boxes), torch.from_numpy(scores), None, 0.3)
    assert session_of(0.3, False, "native").run(None, feeds)[0].tolist() == expected.tolist()


def test_refusals() -> None:
    boxes = torch.zeros(2, 5)
    with pytest.raises(GraphForgeError, match="not a number"):
        nms_rotated(boxes, torch.tensor([0.5, math.nan]), None, 0.5)
    with pytest.raises(GraphForgeError, match="at least 0"):
        nms_rotated(boxes, torch.ones(2), None, -0.1)


@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_compiles_end_to_end(form: str, tmp_path: Path) -> None:
    class Head(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            found = scores > 0.3
            boxes, scores, labels = boxes[found], scores[found], labels[found]
            keep = torch.ops.graphforge.nms_rotated(boxes, scores, labels, 0.2)
            return boxes[keep], scores[keep], labels[keep], keep

    random = np.random.default_rng(4)
    examples = []
    for factor in (1.0, 1.0, 0.0):
        scores = torch.from_numpy((random.permutation(40) / 40 * factor).astype(np.float32))
        labels = torch.from_numpy(random.integers(0, 3, 40))
        examples.append((torch.from_numpy(boxes_like(random, 40, "random")), scores, labels))
    bundle = graphforge.compile(Head(), examples[0], output=tmp_path / "out", outputs=form)
    assert bundle.manifest["verification"]["passed"]
    results, _ = check(Head(), *examples, form=form)
    counts = [len(kept) for *_, kept in results]
    assert 0 == counts[2] < counts[0] < 28
