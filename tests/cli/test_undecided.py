"""`graphforge compile` of a model that nothing decides: what is kept, what is said, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import run_command

CHAOS = """
import torch

class Chaos(torch.nn.Module):
    def forward(self, x):
        for _ in range(25):
            x = torch.sin(40 * x)
        return x

def build():
    return Chaos().eval(), (torch.rand(64, generator=torch.Generator().manual_seed(0)),)
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "chaos.py").write_text(CHAOS)
    return "chaos.py:build"


def test_the_bundle_is_kept_and_the_exit_code_is_1(model: str, tmp_path: Path) -> None:
    done = run_command("compile", model, "-o", "b", cwd=tmp_path)
    assert done.code == 1
    assert "is undecided" in done.stderr
    assert "--accept-undecided" in done.stderr
    assert "does not agree" not in done.stderr
    assert "suspect" not in done.stderr
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["verification"]["verdict"] == "undecided"
    assert (tmp_path / "b" / "model.onnx").is_file()


def test_it_can_be_accepted(model: str, tmp_path: Path) -> None:
    done = run_command("compile", model, "-o", "b", "--accept-undecided", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "undecided" in done.stdout
    assert "[green]" not in done.stdout
    assert "verified: " not in done.stdout
