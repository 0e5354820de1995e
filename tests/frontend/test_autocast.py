"""Regions of ``torch.autocast``: layers in a row, matrices, convolutions, attention; what is outside stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import graphforge
from graphforge.errors import CaptureError


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


class Idle(nn.Module):
    """Blocks that turn off what is off, as in rotary embeddings and MMDetection's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", enabled=False):
            x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            x = self.second(x).sin()
        return self.third(x)  # type: ignore[no-any-return]


class OffInside(Layers):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.first(x)
            with torch.autocast("cpu", enabled=False):
                z = self.second(y.float())
        return y.float(), z


def test_a_block_that_turns_off_what_is_off_leaves_the_graph_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def apart(*_: Any) -> Any:
        raise AssertionError("the graph was split at a block of autocast")

    monkeypatch.setattr("torch._export.passes.replace_autocast_with_hop_pass._split_autocast", apart)
    entered = torch.amp.autocast_mode.autocast.__enter__
    bundle = graphforge.compile(Idle().eval(), torch.randn(3, 8), output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    assert torch.amp.autocast_mode.autocast.__enter__ is entered
    with pytest.raises(CaptureError) as refused:  # one that does turn something off is in the program
        graphforge.compile(OffInside().eval(), torch.randn(3, 16), output=tmp_path / "inside", capture="export")
    assert "the graph was split" in str(refused.value.notes)


def test_a_block_inside_another_turns_autocast_off(tmp_path: Path) -> None:
    bundle = graphforge.compile(OffInside().eval(), torch.randn(3, 16), output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    products = [node for node in onnx.load(bundle.path / "model.onnx").graph.node if node.op_type in ("Gemm", "MatMul")]
    assert len(products) == 2
