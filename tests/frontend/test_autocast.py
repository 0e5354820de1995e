"""Regions of ``torch.autocast``: layers in a row, matrices, convolutions, attention; what is outside stays as it is."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import graphforge


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.second(F.gelu(self.first(x)))
        return y.float(), self.first(x)


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y: torch.Tensor = self.second(F.relu(self.norm(self.first(x)))).mean((2, 3))
        return y.float().softmax(-1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            q, k, v = self.qkv(x).chunk(3, -1)
            y: torch.Tensor = (q @ k.transpose(1, 2) / 4).softmax(-1) @ v
        return y.float()


@pytest.mark.parametrize(
    ("model", "x"),
    [(Layers(), torch.randn(3, 16)), (Images(), torch.randn(2, 3, 12, 12)), (Attention(), torch.randn(2, 5, 16))],
)
def test_layers_in_a_row_compile_and_agree(model: nn.Module, x: torch.Tensor, tmp_path: Path) -> None:
    """The second layer met a bfloat16 operand with float32 weights."""
    bundle = graphforge.compile(model.eval(), x, output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    casts = [node for node in onnx.load(bundle.path / "model.onnx").graph.node if node.op_type == "Cast"]
    assert casts
