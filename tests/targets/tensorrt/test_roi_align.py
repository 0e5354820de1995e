"""TensorRT for RTX has no RoiAlign: boxes are pooled by plain operators, and a plan is built of them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import graphforge
import graphforge.ops.multi_scale_roi_align  # torch.ops.graphforge.multi_scale_roi_align
from graphforge.errors import GraphForgeError

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install tensorrt-rtx-cu13)")

OPTIONS = {"flavour": "tensorrt_rtx", "compute_capabilities": "8.9", "optimization_level": "0"}


class Head(nn.Module):
    """Boxes pooled from two maps."""

    def __init__(self, sampling_ratio: int) -> None:
        super().__init__()
        self.sampling_ratio = sampling_ratio
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(3, 4, 3, stride=4, padding=1)

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
        levels = (rois[:, 3] - rois[:, 1] > 12).to(torch.int64)
        maps = [self.fine(image), self.coarse(image)]
        pooled: Tensor = torch.ops.graphforge.multi_scale_roi_align(
            maps, rois, levels, [0.5, 0.25], 3, 3, self.sampling_ratio, False
        )
        return pooled


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(8, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + torch.rand(8, 2, generator=generator) * 25], dim=1)
    return torch.rand(1, 3, 32, 32, generator=generator), boxes


def test_a_plan_is_built_and_verified(tmp_path: Path) -> None:
    bundle = graphforge.compile(
        Head(2).eval(), example(), target="tensorrt", output=tmp_path / "out", target_options=OPTIONS
    )
    assert bundle.manifest["verification"]["passed"]
    assert (tmp_path / "out" / "model.plan").stat().st_size > 10_000
    written = {node.op_type for node in ir.load(tmp_path / "out" / "model.onnx").graph}
    assert "Gather" in written
    assert "RoiAlign" not in written


def test_as_many_samples_as_fit_the_box_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="fixed number of samples"):
        graphforge.compile(
            Head(0).eval(), example(), target="tensorrt", output=tmp_path / "out", target_options=OPTIONS
        )
