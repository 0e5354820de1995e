"""The suppression that ultralytics writes as a loop is one operator; a double stands in for the package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import graphforge


class _TorchNMS:
    """Box after box from the best on: those that overlap it are dropped."""

    @staticmethod
    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        order = scores.argsort(descending=True)
        kept = []
        while order.numel() > 0:
            first, rest = order[0], order[1:]
            kept.append(int(first))
            low = torch.maximum(boxes[first, :2], boxes[rest, :2])
            high = torch.minimum(boxes[first, 2:], boxes[rest, 2:])
            inter = (high - low).clamp(min=0).prod(1)
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
            order = rest[inter / (areas[first] + areas[rest] - inter) <= iou_threshold]
        return torch.tensor(kept, dtype=torch.int64)


class _Detector(torch.nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        from ultralytics.utils.nms import TorchNMS  # type: ignore[import-not-found]

        found: Tensor = boxes[TorchNMS.nms(boxes, scores, 0.5)[:10]]
        return found


def test_a_loop_over_boxes_is_one_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ultralytics", "ultralytics.utils", "ultralytics.utils.nms"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["ultralytics"].utils = sys.modules["ultralytics.utils"]  # type: ignore[attr-defined]
    sys.modules["ultralytics.utils"].nms = sys.modules["ultralytics.utils.nms"]  # type: ignore[attr-defined]
    sys.modules["ultralytics.utils.nms"].TorchNMS = _TorchNMS  # type: ignore[attr-defined]
    torch.manual_seed(0)
    corners = torch.rand(40, 2) * 20
    boxes = torch.cat([corners, corners + 4 + 6 * torch.rand(40, 2)], 1)
    bundle = graphforge.compile(_Detector(), (boxes, torch.rand(40)), output=tmp_path / "b")
    assert bundle.manifest["verification"]["passed"]
    assert any("TorchNMS.nms" in str(one) for one in bundle.manifest["capture"]["substitutions"])
