"""`--range` is about inputs that are drawn at random: a name that none of them has is refused by every verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphforge.cli.main import run

NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x, lens):
        return x * lens.clamp(max=3).unsqueeze(1)

def build():
    return Net()
"""
INPUTS = ("--input", "x:2x3", "--input", "lens:2:int64")


@pytest.mark.parametrize("verb", ["compile", "inspect", "opset"])
def test_a_range_of_no_input_is_refused(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(NET)
    output = ("-o", str(tmp_path / "out")) if verb == "compile" else ()
    assert run([verb, f"{tmp_path}/net.py:build", *INPUTS, "--range", "lenz=1..3", *output]) == 2
    told = capsys.readouterr().err
    assert "--range names input 'lenz'" in told
    assert "x, lens" in told


def test_a_range_of_an_input_is_taken(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert run(["inspect", f"{tmp_path}/net.py:build", *INPUTS, "--range", "lens=1..3"]) == 0
