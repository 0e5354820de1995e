"""Graphs between capture and target run: our own operators are computed by their references until they are lowered."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from graphforge.ops.batched_nms import batched_nms
from graphforge.ops.multi_scale_roi_align import multi_scale_roi_align
from graphforge.runners.arrays import Array
from graphforge.runners.custom_ops import PiecewiseRunner, runner_before_lowering
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

HEADER = '<ir_version: 10, opset_import: ["" : 20, "graphforge" : 1]>\n'
TOP = """g (float[N, 4] boxes, float[N] scores) => (float[M, 4] best, int64[M] kept) {
    large = Add(boxes, boxes)
    kept = graphforge.BatchedNMS<iou_threshold = 0.5>(large, scores)
    best = Gather(large, kept)
}"""
INSIDE = """g (float[N, 4] boxes, float[N] scores, bool on) => (int64[M] kept) <int64[1] none = {0}> {
    large = Add(boxes, boxes)
    kept = If(on) <
        then_branch = yes () => (int64[K] k) { k = graphforge.BatchedNMS<iou_threshold = 0.5>(large, scores) },
        else_branch = no () => (int64[L] n) { n = Identity(none) }
    >
}"""


def boxes_and_scores() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    corner = random.random((40, 2), np.float32) * 4
    boxes = np.concatenate([corner, corner + 1 + random.random((40, 2), np.float32)], axis=1)
    return boxes, random.random(40, np.float32)


def expected(boxes: Array, scores: Array) -> Array:
    kept = batched_nms(torch.from_numpy(boxes * 2), torch.from_numpy(scores), None, 0.5)
    assert 0 < len(kept) < len(boxes)
    return np.asarray(kept.numpy())


def test_an_operator_of_ours_is_computed_by_its_reference() -> None:
    boxes, scores = boxes_and_scores()
    with runner_before_lowering(ir.from_onnx_text(HEADER + TOP), optimize=False) as runner:
        found = runner.run({"boxes": boxes, "scores": scores})
    assert list(found) == ["best", "kept"]
    np.testing.assert_array_equal(found["kept"], expected(boxes, scores))
    np.testing.assert_array_equal(found["best"], 2 * boxes[found["kept"]])


@pytest.mark.parametrize("on", [True, False])
def test_an_operator_of_ours_in_the_body_of_another(on: bool) -> None:
    boxes, scores = boxes_and_scores()
    with runner_before_lowering(ir.from_onnx_text(HEADER + INSIDE)) as runner:
        found = runner.run({"boxes": boxes, "scores": scores, "on": np.array(on)})
    np.testing.assert_array_equal(found["kept"], expected(boxes, scores) if on else [0])


def test_inputs_are_matched_by_name_where_the_reference_has_another_order() -> None:
    text = """g (float[R, 5] rois, int64[R] levels, float[1, 2, 8, 8] a, float[1, 2, 4, 4] b) => (float[R, 2, 2, 2] y) {
        y = graphforge.MultiScaleRoiAlign<spatial_scales = [1.0, 0.5], output_height = 2, output_width = 2>(
            rois, levels, a, b)
    }"""
    random = np.random.default_rng(0)
    a, b = random.random((1, 2, 8, 8), np.float32), random.random((1, 2, 4, 4), np.float32)
    rois = np.array([[0, 1, 1, 5, 6], [0, 0, 2, 7, 7]], np.float32)
    levels = np.array([0, 1], np.int64)
    with runner_before_lowering(ir.from_onnx_text(HEADER + text)) as runner:
        found = runner.run({"rois": rois, "levels": levels, "a": a, "b": b})
    tensors = [torch.from_numpy(one) for one in (a, b)]
    wanted = multi_scale_roi_align(
        tensors, torch.from_numpy(rois), torch.from_numpy(levels), [1.0, 0.5], 2, 2, 0, False
    )
    np.testing.assert_array_equal(found["y"], wanted.numpy())


def test_a_graph_without_such_operators_is_run_in_one_piece() -> None:
    text = HEADER + "g (float[N] x) => (float[N] y) { y = Relu(x) }"
    assert isinstance(runner_before_lowering(ir.from_onnx_text(text)), OnnxRuntimeRunner)


def test_nothing_is_computed_twice() -> None:
    """What two of the operators and the end read is computed once, in the first piece that needs it."""
    text = """g (float[N, 4] boxes, float[N] scores) => (float[M, 4] y) {
        large = Add(boxes, boxes)
        first = graphforge.BatchedNMS<iou_threshold = 0.5>(large, scores)
        some = Gather(large, first)
        fewer = Gather(scores, first)
        second = graphforge.BatchedNMS<iou_threshold = 0.2>(some, fewer)
        y = Gather(some, second)
    }"""
    boxes, scores = boxes_and_scores()
    runner = runner_before_lowering(ir.from_onnx_text(HEADER + text))
    assert isinstance(runner, PiecewiseRunner)
    runner.run({"boxes": boxes, "scores": scores})
    pieces = [piece.runner.model for piece in runner._pieces if piece.runner is not None]
    assert [[node.op_type for node in model.graph.node] for model in pieces] == [  # type: ignore[union-attr]
        ["Add"],
        ["Gather", "Gather"],
        ["Gather"],
    ]
    runner.close()
