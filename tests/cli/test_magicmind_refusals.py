"""What the MagicMind target refuses, asked of the installed command: the message, the way out, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.command import run_command

NET = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())

class Product(torch.nn.Module):
    def forward(self, left, right):
        return left * right

def product():
    return Product()

class Wide(torch.nn.Module):
    def forward(self, ids):
        return ids + 2**40

def wide():
    return Wide()
"""
CUSTOM = """
<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
g (float[2] x) => (float[2] y) { r = Relu(x) y = mine.Sparkle(r) }
"""
IMAGE = ("net.py:build", "--input", "input:1x3x8x8")
INT8 = ("--precision", "qint8_mixed_float16")
CASES = {
    "qint_without_calibration": (
        (*IMAGE, *INT8),
        "precision qint8_mixed_float16 needs calibration data, and none is given",
        "give normalised inputs, --calibration calib.npz",
        2,
    ),
    "calibration_of_another_shape": (
        (*IMAGE, *INT8, "--option", "calibration=wider.npz"),
        "calibration sample 0 of input 'input' has size 9 on axis 2, expected 8",
        "calibration data lie as the ONNX file wants them",
        1,
    ),
    "calibration_without_a_stream": (
        ("net.py:product", "--input", "left:1x4", "--input", "right:1x4", *INT8, "--option", "calibration=left.npz"),
        "calibration data is missing for input right",
        "one stream is needed for every input",
        1,
    ),
    "calibration_that_is_not_there": (
        (*IMAGE, *INT8, "--option", "calibration=gone.npz"),
        "calibration data 'gone.npz' does not exist",
        "give a folder or an .npz file",
        1,
    ),
    "opset_13": (
        (*IMAGE, "--opset", "13"),
        "opset 13 was asked for, but MagicMind's importer takes 11",
        "leave --opset out: the model is lowered to 11",
        2,
    ),
    "custom_domain": (
        ("custom.onnx",),
        "not ready for MagicMind, 1 error: operator mine::Sparkle: nothing public maps custom domains to plugins",
        r"error G2 \[I\].*node .*Sparkle.*; decompose it into ONNX operators",
        1,
    ),
    "constant_beyond_int32": (
        ("net.py:wide", "--input", "ids:3:int64"),
        r"not ready for MagicMind, 1 error: constant '.*' has values beyond int32 \(1099511627776..1099511627776\).*",
        r"error G6 .*aten\.add\.Tensor, .*net\.py:17\); keep the values within int32",
        1,
    ),
    "cut_at_nowhere": (
        (*IMAGE, "--option", "cut=head"),
        "there is no value, node or module 'head' to cut at",
        "modules: 0, 1",
        1,
    ),
    "cut_behind_the_end": (
        (*IMAGE, "--option", "cut=1"),
        "'output' is an output of the model already, so nothing is behind it to cut off",
        "cut before the head",
        1,
    ),
    "unknown_precision": (
        (*IMAGE, "--precision", "int8"),
        "target 'magicmind' has no precision 'int8'",
        "qint8_mixed_float16: convolutions and products in int8",
        2,
    ),
    "unknown_arch": (
        (*IMAGE, "--option", "archs=mtp_37"),
        "target 'magicmind', option 'archs': unknown arch 'mtp_37'",
        "did you mean 'mtp_372'",
        2,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    onnx.save(onnx.parser.parse_model(CUSTOM), tmp_path / "custom.onnx")
    np.savez(tmp_path / "wider.npz", input=np.zeros((8, 3, 9, 9), np.float32))
    np.savez(tmp_path / "left.npz", left=np.zeros((8, 4), np.float32))
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_refusal_is_clear_and_leaves_nothing(name: str, folder: Path) -> None:
    arguments, message, note, code = CASES[name]
    before = {path.name for path in folder.iterdir()}
    outcome = run_command("compile", *arguments, "--target", "magicmind", "-o", "out/bundle", cwd=folder)
    assert outcome.code == code, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert re.fullmatch(message, outcome.error), outcome.stderr
    assert any(re.match(note, line) for line in outcome.notes), outcome.stderr
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before
