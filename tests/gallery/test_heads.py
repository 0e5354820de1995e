"""Heads of the gallery in every form of results and suppression, against eager; all of them: scripts/bench heads."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from graphforge.frontend.torchvision_fix import TorchvisionState, torchvision_state

if torchvision_state() is TorchvisionState.MISSING:
    pytest.skip("torchvision is not installed: its NMS is called", allow_module_level=True)
pytest.importorskip("sklearn")

from scripts.bench_heads import FORMS, HEADS, Head, rows_of
from scripts.gallery import mtcnn

_COUNTS = {"yolo": "70, 63, 11", "yolo_offset": "70, 63, 11", "yolox_pose": "51, 55, 13"}


def _head(name: str, batch: str) -> Head:
    return next(head for head in HEADS if (head.name, head.batch) == (name, batch))


@pytest.mark.parametrize("name", _COUNTS)
def test_heads_in_user_form_at_batch_3(name: str) -> None:
    """Unequal counts, one of them the cap: eager's, and the rows behind them, in all four forms."""
    rows = list(rows_of(_head(name, "3")))
    assert [(row.outputs, row.nms) for row in rows] == FORMS
    for row in rows:
        assert row.verified == "yes"
        assert row.detections == _COUNTS[name]
        if row.nms == "native":
            assert "NonMaxSuppression" in row.suppression
        else:
            assert "NonMaxSuppression" not in row.suppression
    padded = rows[2]
    assert padded.suppression == "1 NonMaxSuppression"  # three images, one node


def test_ssd_at_batch_3() -> None:
    """torchvision's head with a loop over classes, in the two forms that differ most."""
    rows = list(rows_of(_head("ssd", "3"), [("ragged", "native"), ("padded", "portable")]))
    assert [row.verified for row in rows] == ["yes", "yes"]
    assert rows[0].detections == rows[1].detections
    assert len(set(rows[0].detections.split(", "))) > 1


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("facenet_pytorch", "skimage")),
    reason="facenet-pytorch or scikit-image is not installed",
)
@pytest.mark.parametrize(("name", "batch"), [("mtcnn r_stage", "153 crops"), ("mtcnn o_stage", "9 crops")])
def test_mtcnn_stages_with_their_crops(name: str, batch: str) -> None:
    for row in rows_of(_head(name, batch)):
        assert row.verified == "yes"
        assert row.detections == ("9" if "r_stage" in name else "1")


def test_suppression_by_the_smaller_box_is_the_same_in_a_loop_and_by_iteration() -> None:
    """The substitute iterates to the fixed point; chains, in which each box covers the next, take it longest."""
    generator = torch.Generator().manual_seed(0)
    suppressed = 0
    for trial in range(12):
        if trial % 3 == 0:  # a chain
            place = torch.arange(30.0)[:, None].expand(30, 2)
            boxes = torch.cat([place * 2, place * 2 + 12], dim=1)
        else:
            corner = torch.rand(30, 2, generator=generator) * 40
            boxes = torch.cat([corner, corner + torch.rand(30, 2, generator=generator) * 40], dim=1)
        candidates = torch.rand(30, generator=generator) > 0.2
        kept = mtcnn.kept_by_smaller(boxes, candidates, 0.5)
        by_iteration = mtcnn._kept_by_smaller(boxes, candidates, 0.5)
        assert torch.equal(kept, by_iteration)
        suppressed += int(candidates.sum() - kept.sum())
    assert suppressed > 50
