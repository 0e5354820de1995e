"""The verbs report and bisect, and loosened tolerances, as a user runs them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

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


DETECTOR = """
import torch
import torchvision

class Detector(torch.nn.Module):
    def forward(self, boxes, scores):
        kept = torchvision.ops.nms(boxes * 2, scores, 0.4)
        return boxes[kept] + 1, scores[kept]

def build():
    torch.manual_seed(0)
    corner = torch.rand(30, 2) * 4
    return Detector().eval(), (torch.cat([corner, corner + 1 + torch.rand(30, 2)], 1), torch.rand(30))
"""
BOTH = """
from dataclasses import dataclass
from typing import ClassVar
from graphforge import Pass

@dataclass(frozen=True)
class Wrong(Pass):
    name: ClassVar[str] = "wrong-add"
    by: float = 1.0

    def run(self, graph, rewriter):
        for node in list(graph):
            if node.op_type == "Add":
                rewriter.replace(node, rewriter.builder(node).Sub(*node.inputs))
"""


@pytest.fixture
def detector(folder: Path) -> Path:
    (folder / "detector.py").write_text(DETECTOR)
    (folder / "both.py").write_text(BOTH)
    return folder


@pytest.mark.parametrize("form", [[], ["--outputs", "padded"], ["--nms", "portable"], ["--target", "magicmind"]])
def test_a_detector_is_searched_from_capture_to_target(
    detector: Path, form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bisect", "detector.py:build", "--json", *form]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clean"]
    names = [spec.partition("{")[0] for spec in report["passes"]]
    assert "lower-nms" in names
    assert names.index("eliminate-dead-code") < names.index("lower-nms")
    assert [probe["passes"] for probe in report["probes"]] == [0, len(names)]


def test_passes_are_checked_around_a_detector(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("ragged", "padded"):
        assert run(["compile", "detector.py:build", "--check-passes", "--outputs", form, "-o", form]) == 0
    assert run(["compile", "detector.py:build", "--check-passes", "--pass", "both.py:Wrong", "-o", "bad"]) == 1
    assert "pass wrong-add changes output" in capsys.readouterr().err


def test_an_unsound_pass_of_the_target_is_named_with_its_rewrite_and_can_be_replayed(
    detector: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graphforge.ops import batched_nms

    right = batched_nms.lower_native

    def wrong(op: Any, boxes: Any, *rest: Any, iou_threshold: float, **settings: Any) -> Any:
        return right(op, boxes, *rest, iou_threshold=iou_threshold / 4, **settings)

    monkeypatch.setattr(batched_nms, "lower_native", wrong)
    assert run(["bisect", "detector.py:build", "--json", "-o", "kept"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["guilty"].startswith("lower-nms")
    rewrite = report["rewrite"]
    assert "BatchedNMS" in rewrite["before"][0]
    assert any("NonMaxSuppression" in line for line in rewrite["after"])
    assert "detector.py:7" in rewrite["origin"]
    assert (detector / "kept" / "before.onnx").is_file()

    command = shlex.split(report["replay"])
    assert command[0] == "graphforge"
    assert run([*command[1:], "--json"]) == 1
    again = json.loads(capsys.readouterr().out)
    assert again["passes"] == [report["guilty"]]
    assert again["rewrite"]["after"] == rewrite["after"]


def test_the_replay_of_a_pass_of_the_users_names_its_file(detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bisect", "detector.py:build", "--pass", "both.py:Wrong", "--pipeline", "wrong-add{by=2.0}", "--json"]
    assert run(command) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passes"] == ["wrong-add{by=2.0}"]
    assert "+ 1" not in report["replay"]
    assert run([*shlex.split(report["replay"])[1:], "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["guilty"] == "wrong-add{by=2.0}"


def test_a_graph_with_operators_of_ours_is_a_model_like_any_other(detector: Path) -> None:
    """What bisect keeps can be compiled and verified, although no runtime has kernels for what is in it."""
    assert run(["bisect", "detector.py:build", "--pass", "both.py:Wrong", "-o", "kept"]) == 1
    inputs = ["--input-file", "kept/inputs.npz"]
    assert run(["compile", "kept/before.onnx", *inputs, "-o", "again"]) == 0
