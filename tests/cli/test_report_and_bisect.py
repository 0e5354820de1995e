"""The verbs report and bisect, and loosened tolerances, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import graphforge
from graphforge.cli.main import run

NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) * 2

def build():
    return Net()
"""

WRONG = '''
from dataclasses import dataclass
from typing import ClassVar
from graphforge import Pass

@dataclass(frozen=True)
class Wrong(Pass):
    """Turn every Relu into a Neg."""

    name: ClassVar[str] = "wrong"

    def run(self, graph, rewriter):
        for node in list(graph):
            if node.op_type == "Relu":
                op = rewriter.builder(before=node)
                rewriter.replace(node, [op.Neg(node.inputs[0])])
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_writes_one_page_that_needs_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphforge.compile("net.py:build", torch.randn(2, 3), output="out")
    assert run(["report", "out"]) == 0
    page = (folder / "out" / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "max rel" in page
    capsys.readouterr()


def test_bisect_names_the_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bisect", "net.py:build", "--input", "x:2x3", "--pass", "wrong.py:Wrong", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "wrong" in str(found["guilty"])
    assert run(["bisect", "net.py:build", "--input", "x:2x3"]) == 0


def test_loosened_tolerances_are_on_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "net.py:build", "--input", "x:2x3", "--rtol", "0.5", "-o", "out", "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert any("--rtol 0.5" in note for note in manifest["verification"]["notes"])
