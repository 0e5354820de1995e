"""mmcv's suppression functions compile by their substitutes, and give what mmcv documents.

mmcv itself is not needed: a double stands in for ``mmcv.ops.nms``, with mmcv 2.x's signatures and what its documents
says, in plain Python numbers.  It is stricter than the real thing: unknown arguments and other types are refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.substitution import declared_substitutions
from tests.ops.nms_cases import boxes_like
from tests.passes.test_bound_dynamic_shapes import check

DOUBLE = '''"""A double of mmcv.ops.nms: what its documents say, in plain Python; refuses what they lack."""

import math

import numpy as np
import torch


def _overlap(one, two):
    one, two = np.float32(one), np.float32(two)
    zero = np.float32(0)
    width = max(min(one[2], two[2]) - max(one[0], two[0]), zero)
    height = max(min(one[3], two[3]) - max(one[1], two[1]), zero)
    inter = width * height
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1])
    return inter / (areas - inter) if inter > 0 else zero


def _check(boxes, scores, offset):
    assert type(boxes) is torch.Tensor and boxes.dtype == torch.float32 and boxes.shape[1:] == (4,)
    assert type(scores) is torch.Tensor and scores.shape == boxes.shape[:1]
    assert offset in (0, 1)


def nms(boxes, scores, iou_threshold, offset=0, score_threshold=0, max_num=-1):
    _check(boxes, scores, offset)
    assert offset == 0
    rows, numbers = boxes.numpy(), scores.tolist()
    kept = []
    for index in sorted(range(len(rows)), key=lambda index: (-numbers[index], index)):
        if score_threshold > 0 and not scores[index] > score_threshold:
            continue
        if all(_overlap(rows[other], rows[index]) <= np.float32(iou_threshold) for other in kept):
            kept.append(index)
    inds = torch.tensor(kept[:max_num] if max_num > 0 else kept, dtype=torch.int64)
    return torch.cat([boxes[inds], scores[inds][:, None]], dim=1), inds


def soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, min_score=1e-3, method="linear", offset=0):
    _check(boxes, scores, offset)
    assert offset == 0 and method in ("naive", "linear", "gaussian")
    rows, left = boxes.numpy(), {index: np.float32(score) for index, score in enumerate(scores.tolist())}
    dets, inds = [], []
    while left:
        best = max(left, key=lambda index: (left[index], -index))
        inds.append(best)
        dets.append([*rows[best], left.pop(best)])
        for index in list(left):
            overlap = _overlap(rows[best], rows[index])
            if method == "gaussian":
                left[index] *= np.float32(math.exp(-overlap * overlap / sigma))
            elif overlap >= np.float32(iou_threshold):
                left[index] *= np.float32(1) - overlap if method == "linear" else np.float32(0)
            if left[index] < np.float32(min_score):
                del left[index]
    made = torch.tensor(np.array(dets, dtype=np.float32).reshape(-1, 5))
    return made, torch.tensor(inds, dtype=torch.int64)


def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
    if nms_cfg is None:
        ordered, order = scores.sort(descending=True, stable=True)
        return torch.cat([boxes[order], ordered[:, None]], dim=1), order
    config = dict(nms_cfg)
    agnostic = config.pop("class_agnostic", class_agnostic)
    function = {"nms": nms, "soft_nms": soft_nms}[config.pop("type", "nms")]
    split_thr = config.pop("split_thr", 10000)
    apart = boxes
    if not agnostic and len(boxes):  # of no boxes mmcv fails, on their largest coordinate; heads ask before they call
        apart = boxes + (idxs.to(boxes) * (boxes.max() + 1))[:, None]
    if len(boxes) < split_thr:
        dets, keep = function(apart, scores, **config)
        return torch.cat([boxes[keep], dets[:, 4:]], dim=1), keep
    max_num = config.pop("max_num", -1)
    found = []
    for one in idxs.unique().tolist():
        places = (idxs == one).nonzero()[:, 0]
        dets, keep = function(apart[places], scores[places], **config)
        found.extend(zip(places[keep].tolist(), dets[:, 4].tolist()))
    found.sort(key=lambda pair: (-pair[1], pair[0]))
    found = found[:max_num] if max_num > 0 else found
    keep = torch.tensor([index for index, _ in found], dtype=torch.int64)
    column = torch.tensor([score for _, score in found], dtype=torch.float32)
    return torch.cat([boxes[keep], column[:, None]], dim=1), keep


def nms_match(dets, iou_threshold):
    boxes, groups = dets[:, :4].numpy(), []
    for index in sorted(range(len(boxes)), key=lambda index: (-float(dets[index, 4]), index)):
        for group in groups:
            if _overlap(boxes[group[0]], boxes[index]) > iou_threshold:
                group.append(index)
                break
        else:
            groups.append([index])
    return [torch.tensor(group) for group in groups]
'''


@pytest.fixture
def mmcv_nms() -> Iterator[Any]:
    """The double, in the place where mmcv has the real one; as there, ``mmcv.ops.nms`` is both module and function."""
    assert "mmcv" not in sys.modules
    package, operators, module = ModuleType("mmcv"), ModuleType("mmcv.ops"), ModuleType("mmcv.ops.nms")
    exec(DOUBLE, vars(module))  # a module of the test's own
    for name in ("nms", "soft_nms", "batched_nms", "nms_match"):
        vars(operators)[name] = vars(module)[name]
    vars(package)["ops"] = operators
    made = {"mmcv": package, "mmcv.ops": operators, "mmcv.ops.nms": module}
    sys.modules.update(made)
    yield module
    for name in made:
        del sys.modules[name]


def example(kind: str, count: int, *, classes: int = 3, seed: int = 0, ties: bool = False) -> tuple[Tensor, ...]:
    random = np.random.default_rng(seed)
    boxes = torch.from_numpy(boxes_like(random, count, kind))
    scores = random.integers(1, 6, count) / 8 if ties else random.permutation(count) / max(count, 1)
    return boxes, torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(random.integers(0, classes, count))


def same_number(count: int, **options: Any) -> list[tuple[Tensor, ...]]:
    return [
        example("random", count, **options),
        example("grid", count, seed=1, **options),
        example("same", count, seed=2, **options),
        example("random", count, classes=1, seed=3, **options),
    ]


class Batched(nn.Module):
    """What a head of mmdet does: boxes above a score, suppressed by class, the labels of what is kept."""

    def __init__(
        self, module: Any, nms_cfg: dict[str, Any] | None, above: float = -1.0, agnostic: bool = False
    ) -> None:
        super().__init__()
        self.module, self.nms_cfg, self.above, self.agnostic = [module], nms_cfg, above, agnostic

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        found = scores > self.above
        if self.above >= 0:
            boxes, scores, labels = boxes[found], scores[found], labels[found]
        dets, keep = self.module[0].batched_nms(boxes, scores, labels, self.nms_cfg, self.agnostic)
        return dets, keep, labels[keep]


FORMS = [("ragged", "native"), ("padded", "native"), ("padded", "portable")]


@pytest.mark.parametrize(("form", "nms"), FORMS)
@pytest.mark.parametrize(
    ("nms_cfg", "above"),
    [
        ({"type": "nms", "iou_threshold": 0.5}, -1.0),
        ({"type": "nms", "iou_threshold": 0.1, "max_num": 5}, 0.4),
        ({"iou_threshold": 0.3, "score_threshold": 0.3, "split_thr": 31}, 0.2),
        ({"iou_threshold": 0.3, "split_thr": 15, "max_num": 9}, 0.2),
        ({"iou_threshold": 0.3, "split_thr": 10}, -1.0),
    ],
)
def test_batched_nms(mmcv_nms: Any, nms_cfg: dict[str, Any], above: float, form: str, nms: str) -> None:
    examples = [*same_number(30), *same_number(30, ties=True)]
    results, _ = check(Batched(mmcv_nms, nms_cfg, above), *examples, form=form, nms=nms)
    assert any(1 < len(dets) < 30 for dets, _, _ in results)
    assert all(len(dets) <= nms_cfg.get("max_num", 30) for dets, _, _ in results)


@pytest.mark.parametrize(("form", "nms"), FORMS)
def test_of_no_boxes(mmcv_nms: Any, form: str, nms: str) -> None:
    boxes, scores, labels = example("random", 12)
    results, _ = check(
        Batched(mmcv_nms, {"iou_threshold": 0.5}, 0.5),
        (boxes, scores, labels),
        (boxes, scores * 0, labels),
        form=form,
        nms=nms,
    )
    assert [len(dets) > 0 for dets, _, _ in results] == [True, False]


@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_without_classes_or_without_suppression(mmcv_nms: Any, form: str) -> None:
    check(Batched(mmcv_nms, {"iou_threshold": 0.2}, 0.3, agnostic=True), *same_number(20), form=form)
    check(Batched(mmcv_nms, {"iou_threshold": 0.2, "class_agnostic": True}, 0.3), *same_number(20), form=form)
    check(Batched(mmcv_nms, None), *same_number(20), form=form)


@pytest.mark.parametrize("form", ["ragged", "padded"])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(mmcv_nms: Any, method: str, form: str) -> None:
    config = {"type": "soft_nms", "iou_threshold": 0.3, "min_score": 0.05, "method": method}
    results, _ = check(Batched(mmcv_nms, config, 0.1), *same_number(20)[:2], form=form)
    assert any(len(dets) > 1 for dets, _, _ in results)


@pytest.mark.parametrize(("form", "nms"), FORMS)
def test_nms(mmcv_nms: Any, form: str, nms: str) -> None:
    def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor) -> Any:
        dets, keep = mmcv_nms.nms(boxes, scores, 0.4, max_num=8)
        high, where = mmcv_nms.nms(boxes, scores, iou_threshold=0.4, score_threshold=0.5)
        return dets, labels[keep], high, where

    check(suppressed, *same_number(25), *same_number(25, ties=True), form=form, nms=nms)


def test_bundle_is_verified_and_says_what_was_substituted(mmcv_nms: Any, tmp_path: Path) -> None:
    model = Batched(mmcv_nms, {"iou_threshold": 0.5, "max_num": 6}, 0.3).eval()
    original = mmcv_nms.batched_nms
    bundle = graphforge.compile(model, example("random", 30), output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    substituted = {one["function"]: one["calls"] for one in bundle.manifest["capture"]["substitutions"]}
    assert substituted["mmcv.ops.nms.batched_nms"] == 1
    assert mmcv_nms.batched_nms is original
    paths = {one.path for one in declared_substitutions()}
    assert {f"mmcv.ops.nms.{name}" for name in ("nms", "soft_nms", "batched_nms", "nms_match")} <= paths


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, b, s, i: m.nms(b, s, 0.5, offset=1), r"mmcv's nms with offset=1"),
        (lambda m, b, s, i: m.soft_nms(b, s, offset=1), r"mmcv's soft_nms with offset=1"),
        (lambda m, b, s, i: m.batched_nms(b, s, i, {"iou_threshold": 0.5, "offset": 1}), r"offset=1"),
        (lambda m, b, s, i: m.batched_nms(b, s, i, {"type": "nms_quadri", "iou_threshold": 0.5}), r"nms_quadri"),
        (lambda m, b, s, i: m.batched_nms(b, s, i, {"iou_threshold": 0.5, "top": 1}), r"takes no 'top'"),
        (lambda m, b, s, i: m.batched_nms(b, s, i, {"type": "soft_nms", "split_thr": 5}), r"raise split_thr"),
        (lambda m, b, s, i: m.nms_match(torch.cat([b, s[:, None]], dim=1), 0.5), r"how many groups there are"),
    ],
)
def test_what_has_no_compiled_form_is_refused(mmcv_nms: Any, call: Callable[..., Any], message: str) -> None:
    class Head(nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Any:
            return call(mmcv_nms, boxes, scores, labels)

    with pytest.raises(GraphForgeError) as refused:
        graphforge.compile(Head(), example("random", 12), verify=False)
    assert re.search(message, "\n".join([refused.value.message, *refused.value.notes]))
