"""What modules cost: parameters, arithmetic, memory against numbers worked out by hand; time as the runtime has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graphforge
from graphforge.cli.main import run
from graphforge.verify.times import node_seconds

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 2, 2, stride=2)
        self.head = nn.Linear(2, 5)

    def forward(self, x):
        return self.head(self.up(self.body(x)).mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Net().eval()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "net.py").write_text(NET)
    graphforge.compile(f"{folder}/net.py:build", "x:2x3x16x16", output=folder / "out", dynamic_shapes="x:0=1..4")
    return folder


def test_costs_by_module_are_those_of_arithmetic(folder: Path) -> None:
    found = graphforge.inspect(f"{folder}/net.py:build", "x:2x3x16x16").costs()
    rows = {row.module: row for row in found.rows}
    assert rows["body.0"].parameters == 8 * 3 * 9 + 8
    assert rows["body.0"].flops == 2 * (2 * 8 * 16 * 16) * (3 * 9)
    assert rows["body.0"].kind == "Conv2d"
    assert rows["body.0"].result_bytes == 4 * 2 * 8 * 16 * 16
    assert rows["up"].flops == 2 * (2 * 8 * 16 * 16) * (2 * 2 * 2)
    assert rows["head"].parameters == 2 * 5 + 5
    assert rows["head"].flops == 2 * (2 * 5) * 2
    assert found.total.parameters == sum(row.parameters for row in found.rows)
    assert found.notes == ()


def test_modules_are_cut_to_a_depth_and_named_dims_take_their_sizes(folder: Path) -> None:
    inspected = graphforge.inspect(f"{folder}/net.py:build", "x:2x3x16x16", dynamic_shapes="x:0=1..4")
    one, two = (inspected.costs(depth=1, sizes={"x_0": size}) for size in (1, 2))
    assert [row.module for row in two.rows][:2] == ["body", "up"]
    assert two.total.flops is not None
    assert one.total.flops is not None
    assert two.total.flops == 2 * one.total.flops
    assert two.total.parameters == one.total.parameters


def test_what_cannot_be_counted_is_told() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0] * 2

    found = graphforge.inspect(Net(), torch.randn(8)).costs()
    assert "hang on the data" in found.notes[0]
    assert "count as 1: u0" in found.notes[0]


def test_the_runtimes_profile_is_lined_up_with_modules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", str(folder / "out"), "--layers", "--runs", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    timed = {row["module"]: row["seconds"] for row in report["modules"]}
    assert report["total"]["seconds"] > 0
    assert timed["up"] > 0
    assert sum(timed.values()) + report["unplaced_seconds"] == pytest.approx(report["total"]["seconds"])


def test_what_the_runtime_makes_of_a_node_counts_as_that_node(folder: Path) -> None:
    found = node_seconds(folder / "out" / "model.onnx", {"x": np.zeros((2, 3, 16, 16), np.float32)}, runs=2, warmup=1)
    assert all(not name.endswith("_nchwc") for name in found)


def test_options_that_belong_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"{folder}/net.py:build"
    assert run(["profile", str(folder / "out"), "--depth", "1"]) == 2
    assert run(["profile", str(folder / "out"), model, "--layers"]) == 2
    assert run(["inspect", model, "--input", "x:1x3x16x16", "--depth", "1"]) == 2
    capsys.readouterr()
    assert run(["inspect", model, "--input", "x:2x3x16x16", "--dynamic", "x:0=1..4", "--summary", "--depth", "1"]) == 0
    assert "x_0=2" in capsys.readouterr().out
