"""`graphforge optimize`: the table of what it saved, the JSON document, the refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphforge.cli.main import run
from tests.test_optimization import write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.onnx")
    return tmp_path


def test_a_table_of_what_it_saved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", "net.onnx", "-o", "smaller.onnx", "--dynamic", "image:0=1..2"]) == 0
    printed = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:] for line in printed.splitlines() if (cells := line.strip("│┃ ").replace("│", "").split())
    }
    assert rows["BatchNormalization"] == ["1", "0", "-1"]
    assert rows["Relu"] == ["1", "1"]
    assert rows["nodes"] == ["4", "2", "-2"]
    assert rows["opset"] == ["13", "13"]
    assert "inputs tried: image 1x3x6x6 | image 2x3x6x6" in printed
    assert printed.endswith("verified: smaller.onnx\n")
    assert {path.name for path in folder.iterdir()} == {"net.onnx", "smaller.onnx"}


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", "net.onnx", "--opset", "17", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == "net.optimized.onnx"
    assert document["after"]["opset"] == 17
    assert document["before"]["operators"]["Conv"] == 1
    assert document["verification"]["passed"] is True


def test_unverified_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", "net.onnx", "--no-verify"]) == 0
    assert capsys.readouterr().out.endswith("not verified: net.optimized.onnx\n")


def test_a_module_is_sent_to_compile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", "net.py:build"]) == 2
    assert "note: any other model is compiled: graphforge compile net.py:build" in capsys.readouterr().err
