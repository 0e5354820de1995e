"""A file that goes to a lower opset for want of a kernel says so among the notes that the user sees."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import graphforge
from graphforge.frontend.torchvision_fix import ensure_torchvision


class Pooled(torch.nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        boxes = torch.tensor([[0.0, 1.0, 1.0, 6.0, 5.0]])
        pooled: Tensor = torch.ops.torchvision.roi_align(image, boxes, 1.0, 2, 2, 2, False)
        return pooled


def test_a_lower_opset_is_told(tmp_path: Path) -> None:
    ensure_torchvision()
    bundle = graphforge.compile(Pooled(), torch.rand(1, 2, 8, 8), output=tmp_path / "out")
    assert bundle.manifest["artifact"]["opset"] == 21
    assert any("no CPU kernel for RoiAlign" in note for note in bundle.manifest["notes"])
