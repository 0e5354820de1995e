"""MulticlassNMS: what it means, corner by corner, and that both lowerings compute just that."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder
from graphforge.ops.batched_nms import batched_nms
from graphforge.ops.multiclass_nms import multiclass_nms
from graphforge.passes.lower_nms import LowerNms
from tests.ops.nms_cases import FORMS, NOT_CONVERGED, SETTINGS, Multiclass, boxes_like, lowered_operators, scores_like

NATIVE, PORTABLE = LowerNms(), LowerNms(form="portable")
FIXED = LowerNms(form="portable", fixed_shapes=True)
BOTH = pytest.mark.parametrize("lowering", [NATIVE, PORTABLE], ids=LowerNms.spec)


def apart(count: int) -> np.ndarray:
    """[1, count, 4] boxes that do not touch."""
    corner = np.arange(count, dtype=np.float32)[:, None] * 10 + np.zeros((1, 2), np.float32)
    return np.concatenate([corner, corner + 5], axis=1)[None]


def run(lowering: LowerNms | None, boxes: np.ndarray, scores: np.ndarray, **options: Any) -> list[np.ndarray]:
    """The four outputs; the reference's where there is no lowering."""
    attributes = {"iou_threshold": 0.5, **options.pop("attributes", {})}
    ids, valid = options.pop("ids", None), options.pop("valid", None)
    if lowering is None:
        made = multiclass_nms(
            torch.from_numpy(boxes),
            torch.from_numpy(scores),
            None if ids is None else torch.from_numpy(ids),
            None if valid is None else torch.from_numpy(valid),
            **attributes,
        )
        return [tensor.numpy() for tensor in made]
    session = Multiclass(lowering, attributes, scores.ndim == 3, ids is not None, valid is not None, **options)
    assert session.differs(boxes, scores, ids, valid) == ""
    feeds = {"boxes": boxes, "scores": scores, "class_ids": ids, "valid": valid}
    return list(session.session.run(None, {name: array for name, array in feeds.items() if array is not None}))


ALL = pytest.mark.parametrize("lowering", [None, NATIVE, PORTABLE], ids=lambda one: one.spec() if one else "reference")


# The meaning


@ALL
def test_rows_are_sorted_and_padding_is_told(lowering: LowerNms | None) -> None:
    scores = np.array([[0.2, 0.9, 0.05, 0.9]], np.float32)
    options = {"attributes": {"score_threshold": 0.1}}
    dets, labels, indices, count = run(lowering, apart(4), scores, **options)
    assert indices.tolist() == [[1, 3, 0, -1]]
    assert labels.tolist() == [[0, 0, 0, -1]]
    assert count.tolist() == [3]
    assert dets[0, :, 4].tolist() == [np.float32(0.9), np.float32(0.9), np.float32(0.2), 0]
    assert dets[0, 0, :4].tolist() == [10, 10, 15, 15]
    assert not dets[0, 3].any()


@ALL
def test_score_threshold_is_strict_and_minus_infinity_never_a_candidate(lowering: LowerNms | None) -> None:
    scores = np.array([[0.5, -np.inf, 0.25, 0.75]], np.float32)
    assert run(lowering, apart(4), scores, attributes={"score_threshold": 0.5})[2].tolist() == [[3, -1, -1, -1]]
    assert run(lowering, apart(4), scores)[3].tolist() == [3]
    assert run(lowering, apart(4), scores, attributes={"score_threshold": -np.inf})[3].tolist() == [3]


@ALL
def test_one_box_may_be_detected_once_for_each_class(lowering: LowerNms | None) -> None:
    scores = np.array([[[0.5, 0.9], [0.9, 0.5]]], np.float32)
    _, labels, indices, _ = run(lowering, apart(2), scores)
    assert indices.tolist() == [[0, 1, 0, 1]]
    assert labels.tolist() == [[1, 0, 0, 1]]


@ALL
def test_pre_top_k_comes_before_and_max_per_class_after_suppression(lowering: LowerNms | None) -> None:
    boxes = np.concatenate([apart(1), apart(1), apart(3)], axis=1)  # 0, 1 and 2 are the same box
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]], np.float32)
    assert run(lowering, boxes, scores, attributes={"pre_top_k": 3})[2].tolist() == [[0, -1, -1]]
    assert run(lowering, boxes, scores, attributes={"max_per_class": 2})[2].tolist() == [[0, 3, -1, -1, -1]]


# The cases in which the other toolkits differ from one another, each by its name


@ALL
def test_top_k_larger_than_the_number_of_candidates(lowering: LowerNms | None) -> None:
    attributes = {"pre_top_k": 4000, "keep_top_k": 300}
    dets, labels, indices, count = run(
        lowering, apart(3), np.array([[0.1, 0.3, 0.2]], np.float32), attributes=attributes
    )
    assert (dets.shape, labels.shape, count.tolist()) == ((1, 3, 5), (1, 3), [3])
    assert indices.tolist() == [[1, 2, 0]]


@ALL
@pytest.mark.parametrize("attributes", [{}, {"pre_top_k": 2, "keep_top_k": 1}, {"offset_limit": 4000}])
def test_no_detection_at_all(lowering: LowerNms | None, attributes: dict[str, Any]) -> None:
    scores = np.full((2, 3, 4), 0.25, np.float32)
    made = run(lowering, np.repeat(apart(3), 2, axis=0), scores, attributes={"score_threshold": 0.5, **attributes})
    assert made[3].tolist() == [0, 0]
    assert not made[0].any()
    assert (made[1] == -1).all()
    assert (made[2] == -1).all()


@ALL
def test_no_box_at_all(lowering: LowerNms | None) -> None:
    made = run(lowering, np.zeros((2, 0, 4), np.float32), np.zeros((2, 0, 3), np.float32))
    assert [part.shape for part in made] == [(2, 0, 5), (2, 0), (2, 0), (2,)]


@ALL
def test_all_scores_equal(lowering: LowerNms | None) -> None:
    made = run(lowering, apart(5), np.full((1, 5, 2), 0.5, np.float32), attributes={"keep_top_k": 7})
    assert made[2].tolist() == [[0, 0, 1, 1, 2, 2, 3]]
    assert made[1].tolist() == [[0, 1, 0, 1, 0, 1, 0]]


@ALL
def test_keep_top_k_larger_than_the_number_of_boxes(lowering: LowerNms | None) -> None:
    made = run(lowering, apart(2), np.full((1, 2, 3), 0.5, np.float32), attributes={"keep_top_k": 100})
    assert made[0].shape == (1, 6, 5)


@ALL
def test_two_images_with_unequal_counts_do_not_mix(lowering: LowerNms | None) -> None:
    """Rows of another image must neither be counted nor push out rows of this one."""
    boxes = np.repeat(apart(4), 2, axis=0)
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.1, 0.95, 0.1]], np.float32)
    made = run(lowering, boxes, scores, attributes={"score_threshold": 0.5, "keep_top_k": 3})
    assert made[2].tolist() == [[0, 1, 2], [2, -1, -1]]
    assert made[3].tolist() == [3, 1]


@ALL
def test_indices_are_box_indices_without_pre_top_k(lowering: LowerNms | None) -> None:
    """The first index bug: without pre_top_k, places among the operator's rows were returned for box indices."""
    scores = np.array([[0.2, 0.4, 0.1, 0.9]] * 2, np.float32)
    boxes = np.repeat(apart(4), 2, axis=0)
    assert run(lowering, boxes, scores)[2].tolist() == [[3, 1, 0, 2]] * 2


@ALL
def test_indices_are_box_indices_and_in_the_order_of_the_rows_with_pre_top_k(lowering: LowerNms | None) -> None:
    """The second one: sorted detections beside indices that were not sorted with them."""
    scores = np.array([[0.2, 0.4, 0.1, 0.9, 0.3]], np.float32)
    made = run(lowering, apart(5), scores, attributes={"pre_top_k": 3})
    assert made[2].tolist() == [[3, 1, 4]]
    assert np.array_equal(made[0][0, :, :4], apart(5)[0, [3, 1, 4]])


@ALL
def test_padding_does_not_come_back_when_rows_are_gathered_by_index(lowering: LowerNms | None) -> None:
    """Index -1 is no box: a gather of keypoints by index needs the count, or meets the last box."""
    keypoints = torch.arange(4.0)
    made = run(lowering, apart(4), np.array([[0.9, 0.1, 0.1, 0.8]], np.float32), attributes={"score_threshold": 0.5})
    indices, count = torch.from_numpy(made[2]), torch.from_numpy(made[3])
    real = torch.arange(indices.shape[1]) < count[:, None]
    assert torch.equal(real, indices >= 0)
    assert keypoints[indices[real]].tolist() == [0, 3]


@ALL
def test_max_per_class_does_not_cap_the_total(lowering: LowerNms | None) -> None:
    scores = np.full((1, 6, 3), 0.5, np.float32)
    assert run(lowering, apart(6), scores, attributes={"max_per_class": 2, "keep_top_k": 100})[3].tolist() == [6]


@ALL
def test_invalid_boxes_are_nowhere(lowering: LowerNms | None) -> None:
    boxes = np.concatenate([apart(2), apart(2)], axis=1)
    boxes[0, 0] = np.nan
    scores = np.array([[np.nan, 0.5, 0.4, 0.3]], np.float32)
    valid = np.array([[False, True, True, True]])
    attributes = {"pre_top_k": 3, "offset_limit": 4000}
    assert run(lowering, boxes, scores, valid=valid, attributes=attributes)[2].tolist() == [[1, 2, -1]]


@ALL
def test_the_shift_counts_candidates_of_each_image(lowering: LowerNms | None) -> None:
    """One candidate more and the classes are told apart exactly; the shift of these boxes leaves them no area."""
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 1], [3e7, 3e7, 3e7, 3e7]]] * 2, np.float32)
    ids = np.array([[9, 9, 0]] * 2)
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.1]], np.float32)
    attributes = {"score_threshold": 0.5, "offset_limit": 8}
    made = run(lowering, boxes, scores, ids=ids, attributes=attributes)
    assert made[2].tolist() == [[0, 2, -1], [0, -1, -1]]
    made = run(lowering, boxes, scores, ids=ids, attributes={**attributes, "offset_limit": 12})
    assert made[2].tolist() == [[0, 1, 2], [0, -1, -1]]


@ALL
def test_the_shift_uses_the_largest_coordinate_of_the_candidates_only(lowering: LowerNms | None) -> None:
    """The third box is far out, but no candidate: shifted by 10 + 1 the second one falls upon the first."""
    boxes = np.array([[[6, 0, 10, 4], [-5, -11, -1, -7], [900, 900, 950, 950]]], np.float32)
    scores, ids = np.array([[0.9, 0.8, 0.1]], np.float32), np.array([[0, 1, 0]])
    for options, expected in (({"score_threshold": 0.5}, [[0, -1, -1]]), ({}, [[0, 1, 2]])):
        made = run(lowering, boxes, scores, ids=ids, attributes={"offset_limit": 4000, **options})
        assert made[2].tolist() == expected


def test_nan_scores_are_refused() -> None:
    with pytest.raises(GraphForgeError, match="not a number"):
        multiclass_nms(torch.zeros(1, 2, 4), torch.tensor([[0.5, torch.nan]]), None, None, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iou_threshold": -0.5}, "must be at least 0"),
        ({"keep_top_k": -1}, "keep_top_k of an NMS must be at least 0, got -1"),
        ({"score_threshold": float("nan")}, "the score threshold of an NMS is not a number"),
        ({"boxes": torch.zeros(2, 4)}, "have shape (2, 4), expected [B, N, 4]"),
        ({"scores": torch.zeros(2)}, "have 1 dims"),
        (
            {"scores": torch.zeros(1, 2, 3), "class_ids": torch.zeros(1, 2, dtype=torch.int64)},
            "with scores [B, N] only",
        ),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    arguments = {"boxes": torch.zeros(1, 2, 4), "scores": torch.zeros(1, 2), "class_ids": None, "valid": None}
    with pytest.raises(GraphForgeError) as caught:
        multiclass_nms(**{**arguments, "iou_threshold": 0.5, **changes})
    assert message in str(caught.value)


def test_one_image_with_ids_is_batched_nms() -> None:
    random = np.random.default_rng(0)
    boxes, scores = (
        torch.from_numpy(boxes_like(random, 200, "random")),
        torch.from_numpy(scores_like(random, (200,), "ties")),
    )
    ids = torch.from_numpy(random.integers(0, 5, 200))
    for limit in (0, 4000):
        made = multiclass_nms(boxes[None], scores[None], ids[None], None, 0.3, offset_limit=limit)
        assert made[2][0, : int(made[3])].tolist() == batched_nms(boxes, scores, ids, 0.3, limit).tolist()


# Both lowerings against the reference


@pytest.mark.parametrize("lowering", [NATIVE, PORTABLE, LowerNms(form="portable", depth=40)], ids=LowerNms.spec)
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("valid", [False, True])
def test_lowering_against_reference(lowering: LowerNms, form: dict[str, Any], valid: bool) -> None:
    random = np.random.default_rng(7)
    compared = 0
    for attributes in SETTINGS:
        session = Multiclass(lowering, attributes, valid=valid, **form)
        for _ in range(6):
            difference = session.differs(*session.case(random))
            compared += difference != NOT_CONVERGED
            assert difference in ("", NOT_CONVERGED) if lowering.depth else difference == ""
    assert compared > 50


@pytest.mark.parametrize("lowering", [NATIVE, PORTABLE, FIXED], ids=LowerNms.spec)
@pytest.mark.parametrize(
    "options",
    [
        {"dims": (2, 20, 3)},
        {"dims": (2, 20, 3), "dtype": "float16"},
        {"dims": ("B", 20, 3), "per_class": False, "ids": True, "dtype": "float16"},
        {"dims": (1, "N", 1)},
        {"dims": (1, 4, 1203)},
        {"dims": (1, 700, 1), "per_class": False, "ids": True},
        {"dims": (1, 12, 80), "valid": True},
    ],
    ids=str,
)
def test_lowering_with_known_sizes(lowering: LowerNms, options: dict[str, Any]) -> None:
    random = np.random.default_rng(8)
    if lowering is FIXED and "N" in options["dims"]:
        options = {**options, "dims": (1, 15, 1)}
    for attributes in SETTINGS[2:7]:
        session = Multiclass(lowering, attributes, **options)
        for _ in range(4 if options["dims"][2] < 1000 else 1):
            boxes, scores, ids, valid = session.case(random)
            if options.get("dtype") == "float16":
                boxes, scores = boxes.clip(-6e4, 6e4), scores.clip(-6e4, 6e4)
            assert session.differs(boxes, scores, ids, valid) == ""


@pytest.mark.parametrize(
    ("lowering", "count"), [(NATIVE, "N"), (PORTABLE, "N"), (PORTABLE, 150), (FIXED, 150)], ids=str
)
def test_chains_of_suppression(lowering: LowerNms, count: int | str) -> None:
    """The worst case of the iteration: as many rounds as boxes."""
    random = np.random.default_rng(9)
    boxes = np.stack([boxes_like(random, 150, "chain"), boxes_like(random, 150, "chain")[::-1]])
    scores = scores_like(random, (2, 150), "falling")
    made = run(lowering, boxes, scores, dims=(2, count, 1))
    assert made[3].tolist() == [75, 75]
    assert made[2][0, :75].tolist() == list(range(0, 150, 2))


def test_too_small_a_depth_is_reported() -> None:
    session = Multiclass(LowerNms(form="portable", depth=4), {"iou_threshold": 0.5}, per_class=False)
    random = np.random.default_rng(9)
    chain, scores = boxes_like(random, 20, "chain")[None], scores_like(random, (1, 20), "falling")
    assert session.differs(chain, scores, None, None) == NOT_CONVERGED
    assert session.differs(chain[:, :3], scores[:, :3], None, None) == ""


# The graph


def test_native_is_one_nms_for_all_images_and_classes() -> None:
    inputs = {"boxes": ("float", ("B", 100, 4)), "scores": ("float", ("B", 100, 80))}
    operators = lowered_operators("MulticlassNMS", inputs, NATIVE)
    assert operators.count("NonMaxSuppression") == operators.count("TopK") == 1
    assert len(operators) <= 26


def test_portable_has_no_operator_that_depends_on_data_for_its_size() -> None:
    inputs = {"boxes": ("float", (2, 100, 4)), "scores": ("float", (2, 100))}
    operators = set(lowered_operators("MulticlassNMS", inputs, FIXED))
    assert not operators & {"NonMaxSuppression", "NonZero", "Compress", "Unique", "Shape", "Range"}


@pytest.mark.parametrize(
    ("boxes", "scores", "attributes", "expected"),
    [
        ((2, 10, 4), (2, 10, 3), {}, "[2,30]"),
        ((2, 10, 4), (2, 10, 3), {"keep_top_k": 7}, "[2,7]"),
        ((2, 10, 4), (2, 10), {"keep_top_k": 70, "pre_top_k": 20}, "[2,10]"),
        (("B", "N", 4), ("B", "N"), {}, "[B,N]"),
        (("B", "N", 4), ("B", "N", 3), {"keep_top_k": 7}, "[B,?]"),
    ],
)
def test_shape_rule(boxes: Any, scores: Any, attributes: dict[str, Any], expected: str) -> None:
    graph = ir.Graph([], [], nodes=[], name="g")
    values = [ir.Value(type=ir.TensorType(ir.DataType.FLOAT16), shape=ir.Shape(dims)) for dims in (boxes, scores)]
    op = Builder(graph)
    made = op.node("MulticlassNMS", values, _domain="graphforge", _outputs=4, iou_threshold=0.5, **attributes)
    assert str(made[1].shape).replace("None", "?") == expected
    assert made[0].dtype == ir.DataType.FLOAT16
    assert [value.dtype for value in made[1:]] == [ir.DataType.INT64] * 3
    assert len(made[3].shape) == 1


def test_survives_capture_as_one_node() -> None:
    class Head(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(torch.ops.graphforge.multiclass_nms(boxes, scores, None, None, 0.5, 0.1, 0, 0, 20))

    count = torch.export.Dim("count", min=2, max=1000)
    arguments = (torch.rand(2, 30, 4), torch.rand(2, 30, 3))
    program = torch.export.export(Head(), arguments, dynamic_shapes=({1: count}, {1: count}))
    assert [str(node.target) for node in program.graph.nodes].count("graphforge.multiclass_nms.default") == 1
    few = (torch.rand(2, 4, 4), torch.rand(2, 4, 3))
    for made, expected in zip(program.module()(*few), Head()(*few), strict=True):
        assert torch.equal(made, expected)


def test_torch_checks_the_operator() -> None:
    torch.library.opcheck(
        torch.ops.graphforge.multiclass_nms.default,
        (torch.rand(2, 9, 4), torch.rand(2, 9), torch.zeros(2, 9, dtype=torch.int64), None, 0.5, 0.1, 0, 5, 3, 0),
        test_utils=("test_schema", "test_faketensor"),
    )
