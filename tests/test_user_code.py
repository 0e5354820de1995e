"""An exception in the user's code is told with the exception and the line in their own file, never as a bug of ours."""

from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError, UserCodeError
from graphforge.ir import from_text
from graphforge.transform import Pipeline, load_pass_from_file
from graphforge.user_code import place_of

PASS = """
from dataclasses import dataclass
from typing import ClassVar
from graphforge.transform import Pass, Rule

class ClipToRelu(Rule):
    def pattern(self, op, x):
        return op.Clip(x, 0.0)
    def check(self, m):
        return m
    def rewrite(self, op, m):
        return op.Relu(m.x)

@dataclass(frozen=True)
class UseRelu(Pass):
    name: ClassVar[str] = "use-relu"
    def run(self, graph, rewriter):
        rewriter.apply(ClipToRelu(), graph)
"""
NET = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        return helper(x)
def helper(x):
    return torch.clamp(x, min=0.0) + 1
def build():
    return Net().eval(), torch.ones(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clip() -> ir.Model:
    return from_text(
        '<ir_version: 10, opset_import: ["" : 26]> g (float[3] x) => (float[3] y) <float zero = {0}> '
        "{ a = Clip(x, zero) y = Neg(a) }"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "message", "where"),
    [
        ("op.Clip(x, 0.0)", "op.Clip(x, nothing)", "NameError: name 'nothing'", r"mine.py:8, in pattern: return op"),
        ("        return m\n", "        return m.absent\n", "AttributeError", r"mine.py:10, in check: return m.absent"),
        ("op.Relu(m.x)", "op.Relu(m.x[7])", "TypeError", r"mine.py:12, in rewrite: return op.Relu\(m.x\[7\]\)"),
        ("op.Relu(m.x)", "op.Relu('x', 3j)", "", r"mine.py:12, in rewrite: return op.Relu\('x', 3j\)"),
        ("ClipToRelu(), graph", "3, graph", "", r"mine.py:18, in run: rewriter.apply\(3, graph\)"),
        ("return op.Clip(x, 0.0)", "return x", "InternalError: ClipToRelu: the pattern must end", "mine.py:18, in run"),
    ],
)
def test_a_pass_and_its_rules(folder: Path, right: str, wrong: str, message: str, where: str) -> None:
    assert right in PASS
    Path("mine.py").write_text(PASS.replace(right, wrong))
    with pytest.raises(UserCodeError) as caught:
        Pipeline([load_pass_from_file("mine.py:UseRelu")()]).run(clip())
    assert caught.value.message.startswith(f"the pass 'use-relu' failed: {message}")
    assert re.match(f"raised at {where}", caught.value.notes[0])


def test_a_pass_file_that_does_not_load(folder: Path) -> None:
    Path("mine.py").write_text(PASS + "\nthis_is_missing\n")
    with pytest.raises(UserCodeError, match=r"raised at mine.py:20: this_is_missing"):
        load_pass_from_file("mine.py")
    Path("mine.py").write_text(PASS + "\nclass\n")
    with pytest.raises(UserCodeError, match=r"SyntaxError.*\n.*raised at mine.py:20: class"):
        load_pass_from_file("mine.py")
    Path("mine.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UserCodeError, match=r"it ends the process"):
        load_pass_from_file("mine.py")


def test_a_model_file_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "import torch": ("import torch, absent_package", "ModuleNotFoundError", "net.py:2: import torch, absent"),
        "Net().eval()": ("Net().evil()", "AttributeError", r"net.py:9, in build: return Net\(\).evil"),
        "torch.clamp": ("torch.clomp", "AttributeError", r"net.py:7, in helper: return torch.clomp"),
        "(x, min=0.0)": ("(x, min=0.0).reshape(2, 2)", "RuntimeError", r"net.py:7, in helper: return torch.clamp"),
    }
    for right, (wrong, kind, where) in cases.items():
        Path("net.py").write_text(NET.replace(right, wrong, 1))
        assert run(["compile", "net.py:build", "-o", "out"]) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert kind in said
        assert re.search(f"note: raised at {where}", said), said


def test_a_model_that_fails_on_other_inputs_while_it_is_verified(folder: Path) -> None:
    class Shy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._check(x.shape[0] > 0)
            return x if torch.compiler.is_exporting() else x.view(-1, 2)

    with pytest.raises(GraphForgeError, match=r"raised at .*test_user_code.py:\d+, in forward: return x if"):
        graphforge.compile(Shy().eval(), torch.ones(3, 3), output="out")


def test_frames_of_installed_packages_are_told_when_there_is_nothing_nearer() -> None:
    import json

    def mine() -> None:
        json.loads("{")

    with pytest.raises(json.JSONDecodeError) as caught:
        mine()
    assert re.fullmatch(r"raised at .*test_user_code.py:\d+, in mine: json.loads\(\"\{\"\)", place_of(caught.value))
    with pytest.raises(json.JSONDecodeError) as direct:
        json.loads("{")
    assert direct.tb is not None
    error = direct.value.with_traceback(direct.tb.tb_next)
    assert re.match(r"raised at .*json/decoder.py:\d+, in raw_decode: ", place_of(error))
