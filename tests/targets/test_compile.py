"""From a PyTorch module through the whole road to both vendors' targets."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphforge
from graphforge.errors import GraphForgeError, UsageError
from tests.targets.magicmind.bundles import run_scripts

DYNAMIC = {"x": {0: (1, 8), 3: (8, 32, 8)}}


class Net(nn.Module):
    """A convolution, a shifted slice to the end, a normalisation and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.nn.functional.gelu(self.conv(x))[:, :, 1:].mean((2, 3))
        return {"scores": self.head(self.norm(features)).softmax(-1), "features": features}


class Volume(nn.Module):
    """A network with an operator that no target here takes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        volume: torch.Tensor = torch.linalg.det(self.linear(x))
        return volume


def compiled(model: nn.Module, x: torch.Tensor, target: str, folder: Path, **keywords: Any) -> graphforge.Bundle:
    torch.manual_seed(0)
    return graphforge.compile(model.eval(), (x,), target=target, output=folder, **keywords)


def test_plan_of_a_module_with_dynamic_dims(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    bundle = compiled(Net(), torch.randn(2, 3, 8, 16), "tensorrt", tmp_path / "plan", dynamic_shapes=DYNAMIC)
    assert bundle.manifest["verification"]["passed"] is True
    assert bundle.manifest["files"][0] == "model.plan"
    assert bundle.manifest["artifact"]["profiles"] == [
        {"x": {"min": [1, 3, 8, 8], "opt": [2, 3, 8, 16], "max": [8, 3, 8, 32]}}
    ]


def test_bundle_of_a_module_with_dynamic_dims_runs_on_the_stand_in(tmp_path: Path) -> None:
    bundle = compiled(Net(), torch.randn(2, 3, 8, 16), "magicmind", tmp_path / "mm", dynamic_shapes=DYNAMIC)
    assert bundle.manifest["verification"]["passed"] is True
    config = json.loads((bundle.path / "build_config.json").read_text())
    assert config["dim_range"] == {"0": {"min": [1, 3, 8, 8], "max": [8, 3, 8, 32]}}
    outcome = run_scripts(bundle.path)
    assert outcome.is_clean, outcome


def test_recurrent_bundle_is_built_without_fusion(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.lstm(x)[0]
            return found

    bundle = compiled(Recurrent(), torch.randn(2, 5, 4), "magicmind", tmp_path / "mm")
    assert bundle.manifest["artifact"]["config"]["debug_config"] == {"fusion_enable": False}
    assert run_scripts(bundle.path).is_clean


def test_refused_operator_is_traced_to_the_line_of_python(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    lines, start = inspect.getsourcelines(Volume.forward)
    line = start + len(lines) - 2  # the last but one: where det is called
    with pytest.raises(GraphForgeError) as caught:
        compiled(Volume(), torch.randn(2, 3, 3), "tensorrt", tmp_path / "plan")
    assert "does not support Det" in str(caught.value)
    assert f"test_compile.py:{line}" in str(caught.value)
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("target", "keywords", "message"),
    [
        ("magicmind", {"opset": 13}, "MagicMind's importer takes 11"),
        ("magicmind", {"precision": "qint8_mixed_float16"}, "needs calibration data"),
        ("magicmind", {"target_options": {"arch": "mtp_372"}}, "did you mean 'archs'"),
        ("tensorrt", {"target_options": {"flavour": "tensorrt", "compute_capabilities": "SM86"}}, "cannot be chosen"),
    ],
)
def test_impossible_options_are_refused_before_any_work(
    target: str, keywords: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if target == "tensorrt":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    steps: list[str] = []
    with pytest.raises(UsageError) as caught:
        compiled(Net(), torch.randn(2, 3, 8, 16), target, tmp_path / "out", progress=steps.append, **keywords)
    assert message in str(caught.value)
    assert steps == []
