"""BatchedNMS: the reference is torchvision's greedy NMS, and both lowerings compute what the reference says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphforge.errors import GraphForgeError
from graphforge.frontend.torchvision_fix import TorchvisionState, ensure_torchvision, torchvision_state
from graphforge.ops.batched_nms import batched_nms, float32_at_most
from graphforge.passes.lower_nms import LowerNms
from tests.ops.nms_cases import NOT_CONVERGED, Batched, batched_case, boxes_like, lowered_operators

NATIVE, PORTABLE = LowerNms(), LowerNms(form="portable")
CHAIN = torch.from_numpy(boxes_like(np.random.default_rng(0), 40, "chain"))


def greedy(boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor | None, threshold: float) -> list[int]:
    """Greedy suppression as textbooks write it, in float32 numbers compared with a double threshold."""

    def area(box: np.ndarray) -> np.float32:
        return np.float32((box[2] - box[0]) * (box[3] - box[1]))

    numbers = boxes.numpy()
    kept: list[int] = []
    for index in sorted(range(len(numbers)), key=lambda place: (-float(scores[place]), place)):
        box = numbers[index]
        for other in kept:
            if classes is not None and classes[other] != classes[index]:
                continue
            better = numbers[other]
            sides = np.maximum(np.minimum(box[2:], better[2:]) - np.maximum(box[:2], better[:2]), np.float32(0))
            inter = sides[0] * sides[1]
            with np.errstate(all="ignore"):
                if float(inter / (area(better) + area(box) - inter)) > threshold:
                    break
        else:
            kept.append(index)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_reference_is_the_textbook(threshold: float) -> None:
    random = np.random.default_rng(int(threshold * 10))
    for _ in range(15):
        boxes, scores, ids = batched_case(random, classes=True)
        if np.abs(boxes).max(initial=0) > 1e10:
            continue
        classes = torch.from_numpy(ids)
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
        assert batched_nms(*tensors, classes, threshold).tolist() == greedy(*tensors, classes, threshold)
        assert batched_nms(*tensors, None, threshold).tolist() == greedy(*tensors, None, threshold)


@pytest.mark.parametrize("count", [0, 1, 300, 999, 1001, 1500])
def test_reference_is_torchvision_on_both_sides_of_its_limit(count: int) -> None:
    if torchvision_state() is TorchvisionState.MISSING:
        pytest.skip("torchvision is not installed")
    ensure_torchvision()
    from torchvision.ops import batched_nms as theirs

    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60], dim=1)
    scores = torch.randperm(count, generator=generator) / max(count, 1)  # no ties: torchvision sorts them at random
    classes = torch.randint(0, 7, (count,), generator=generator)
    expected = theirs(boxes, scores, classes, 0.5)
    assert batched_nms(boxes, scores, classes, 0.5, offset_limit=4000).tolist() == expected.tolist()


def test_the_shift_rounds_as_torchvision_does() -> None:
    """Far from the origin float32 is coarse: shifted by 6e7, small boxes have no area and suppress nothing."""
    boxes = torch.tensor([[0, 0, 1.0, 1.0], [0.45, 0, 1.45, 1.0], [1e6, 1e6, 1e6 + 8, 1e6 + 8]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([60, 60, 0])
    assert batched_nms(boxes, scores, classes, 0.3, 0).tolist() == [0, 2]
    by_shift = batched_nms(boxes, scores, classes, 0.3, 4000).tolist()
    shifted = boxes + (classes * (boxes.max() + 1))[:, None]
    assert by_shift == greedy(shifted, scores, None, 0.3) == [0, 1, 2]


def test_the_shift_is_the_largest_coordinate_plus_one() -> None:
    """Where coordinates are negative, a shifted box may fall upon one of another class: torchvision drops it."""
    boxes = torch.tensor([[6.0, 0, 10, 4], [-5.0, -11, -1, -7]])
    scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    assert batched_nms(boxes, scores, classes, 0.5, 0).tolist() == [0, 1]
    assert batched_nms(boxes, scores, classes, 0.5, 8).tolist() == [0]
    for lowering in (NATIVE, PORTABLE):
        for count in ("N", 2):
            session = Batched(lowering, 0.5, classes=True, offset_limit=8, count=count)
            assert session.differs(boxes.numpy(), scores.numpy(), classes.numpy()) == ""
        session = Batched(lowering, 0.5, classes=True, offset_limit=7)
        assert session.differs(boxes.numpy(), scores.numpy(), classes.numpy()) == ""


def test_threshold_between_two_float32() -> None:
    """IoU 0.1 in float32 is above the double 0.1: torchvision suppresses, a rounded threshold would not."""
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 0.1, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert float(np.float32(0.1)) > 0.1
    assert float32_at_most(0.1) < 0.1
    assert batched_nms(boxes, scores, None, 0.1).tolist() == [0]
    assert batched_nms(boxes, scores, None, float(np.float32(0.1))).tolist() == [0, 1]
    for lowering in (NATIVE, PORTABLE):
        session = Batched(lowering, float32_at_most(0.1), classes=False)
        assert session.differs(boxes.numpy(), scores.numpy(), None) == ""


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 1e-60, 1e300, 3.5e38])
def test_float32_at_most(value: float) -> None:
    below = float32_at_most(value)
    assert below <= value
    with np.errstate(over="ignore"):
        assert float(np.nextafter(np.float32(below), np.float32(np.inf))) > value


def test_ties_go_by_index() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [5.0, 5, 6, 6], [0.0, 0, 1, 1]])
    assert batched_nms(boxes, torch.tensor([0.5, 0.5, 0.5]), None, 0.5).tolist() == [0, 1]
    assert batched_nms(boxes, torch.tensor([0.5, 0.9, 0.5]), None, 0.5).tolist() == [1, 0]
    assert batched_nms(boxes, torch.tensor([0.0, 0.0, -0.0]), None, 0.5).tolist() == [0, 1]


def test_boxes_without_area_or_with_swapped_corners_suppress_nothing() -> None:
    """ONNX's operator would unswap the second box, and suppress it."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [4.0, 4, 0, 0], [0.0, 0, 4, 4], [1.0, 1, 1, 3], [4.0, 0, 0, 4]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    assert batched_nms(boxes, scores, None, 0.0).tolist() == [0, 1, 3, 4]
    for lowering in (NATIVE, PORTABLE):
        assert Batched(lowering, 0.0, classes=False).differs(boxes.numpy(), scores.numpy(), None) == ""


def test_chain_keeps_every_other_box() -> None:
    scores = torch.linspace(1, 0.1, len(CHAIN))
    assert batched_nms(CHAIN, scores, None, 0.5).tolist() == list(range(0, len(CHAIN), 2))


@pytest.mark.parametrize(
    ("scores", "threshold", "message"),
    [
        ([0.5, float("nan")], 0.5, "not a number"),
        ([0.5, 0.4], -0.1, "must be at least 0, got -0.1"),
        ([0.5, 0.4], float("nan"), "must be at least 0, got nan"),
    ],
)
def test_refusals(scores: list[float], threshold: float, message: str) -> None:
    with pytest.raises(GraphForgeError) as caught:
        batched_nms(torch.zeros(2, 4), torch.tensor(scores), None, threshold)
    assert message in str(caught.value)


@pytest.mark.parametrize("lowering", [NATIVE, PORTABLE, LowerNms(form="portable", depth=100)], ids=LowerNms.spec)
@pytest.mark.parametrize(("classes", "offset_limit"), [(False, 0), (True, 0), (True, 200)])
def test_lowering_against_reference(lowering: LowerNms, classes: bool, offset_limit: int) -> None:
    random = np.random.default_rng(offset_limit + classes)
    session = Batched(lowering, 0.5, classes, offset_limit)
    for _ in range(100):
        assert session.differs(*batched_case(random, classes)) == ""


@pytest.mark.parametrize("lowering", [NATIVE, PORTABLE], ids=LowerNms.spec)
@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"count": 30}, {"count": 30, "offset_limit": 119}])
def test_lowering_of_halves_and_of_a_known_count(lowering: LowerNms, options: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    session = Batched(lowering, 0.5, classes=True, **options)
    for _ in range(40):
        scores, ids = random.integers(0, 8, 30) / np.float32(8), random.integers(0, 3, 30)
        assert session.differs(boxes_like(random, 30, "random"), scores, ids) == ""


def test_too_small_a_depth_is_reported() -> None:
    """Half of the chain is right after half of the rounds; the output says so."""
    session = Batched(LowerNms(form="portable", depth=5), 0.5, classes=False)
    scores = np.linspace(1, 0.1, len(CHAIN), dtype=np.float32)
    assert session.differs(CHAIN.numpy(), scores, None) == NOT_CONVERGED
    assert session.differs(CHAIN.numpy()[:4], scores[:4], None) == ""
    assert session.session.get_outputs()[1].name == "nms_converged"


def test_one_class_is_six_nodes() -> None:
    operators = lowered_operators("BatchedNMS", {"boxes": ("float", ("N", 4)), "scores": ("float", ("N",))}, NATIVE)
    assert sorted(operators) == ["Gather", "Gather", "Max", "NonMaxSuppression", "Unsqueeze", "Unsqueeze"]


def test_survives_capture_as_one_node() -> None:
    class Head(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            mask = scores > 0.3
            return boxes[mask][torch.ops.graphforge.batched_nms(boxes[mask], scores[mask], ids[mask], 0.5, 4000)]

    arguments = (torch.rand(30, 4), torch.rand(30), torch.arange(30) % 3)
    count = torch.export.Dim("count", min=2, max=1000)
    program = torch.export.export(Head(), arguments, dynamic_shapes=({0: count},) * 3)
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("graphforge.batched_nms.default") == 1
    more = (torch.rand(50, 4), torch.rand(50), torch.arange(50) % 3)
    assert torch.equal(program.module()(*more), Head()(*more))


def test_torch_checks_the_operator() -> None:
    torch.library.opcheck(
        torch.ops.graphforge.batched_nms.default,
        (torch.rand(20, 4), torch.rand(20), torch.arange(20) % 3, 0.5, 0),
        test_utils=("test_schema", "test_faketensor"),
    )
