"""`diff` of any two: modules, exported programs, bundles and files of whatever exporter, with weights first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import graphforge
from graphforge.errors import GraphForgeError
from tests.diagnosis.test_diagnose import cause_of, change_constant, node_of, says, set_attribute

INPUT = "input:2x3x12x12"


def network() -> nn.Module:
    torch.manual_seed(3)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Softmax(1)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network as a bundle, a .pt2, the stock exporter's file and that without metadata; each file spoiled too."""
    folder = tmp_path_factory.mktemp("any")
    model, inputs = network(), (torch.randn(2, 3, 12, 12),)
    graphforge.compile(model, inputs, verify=False, output=folder / "bundle")
    program = torch.export.export(model, inputs)
    torch.export.save(program, folder / "net.pt2")
    torch.onnx.export(model, inputs, str(folder / "stock.onnx"), dynamo=True, verbose=False, external_data=False)
    proto = onnx.load(folder / "stock.onnx")
    for node in proto.graph.node:
        del node.metadata_props[:]
    onnx.save(proto, folder / "bare.onnx")
    for name in ("bundle/model", "stock", "bare"):
        proto = onnx.load(folder / f"{name}.onnx")
        set_attribute(node_of(proto, "Softmax"), "axis", 2)
        onnx.save(proto, folder / f"{name.replace('/', '_')}_bad.onnx")
    return folder


REFERENCES = ("net.pt2", "bundle", "stock.onnx", "bare.onnx")


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("against", ["bundle", "stock.onnx", "bare.onnx"])
def test_two_forms_of_one_network_agree(reference: str, against: str, folder: Path) -> None:
    report = graphforge.diff(folder / reference, folder / against, None if reference == "net.pt2" else INPUT)
    assert report.agrees, report.summary()
    assert not report.causes
    assert sum(row.status == "equal" for row in report.rows) >= 3


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("against", ["bundle_model_bad.onnx", "stock_bad.onnx", "bare_bad.onnx"])
def test_the_node_that_differs_is_named(reference: str, against: str, folder: Path) -> None:
    report = graphforge.diff(folder / reference, folder / against, None if reference == "net.pt2" else INPUT)
    cause = cause_of(report)
    assert cause.node.startswith("Softmax node")
    assert cause.entry is not None
    assert "oftmax" in cause.entry.operator
    assert [row.entry for row in report.rows if row.status == "wrong here"] == [cause.entry]


def test_the_constant_that_differs_is_named_first(folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "bundle/model.onnx")
    name = node_of(proto, "Conv", 1).input[1]
    change_constant(proto, name, lambda weight: weight * np.float32(1.2))
    onnx.save(proto, tmp_path / "bad.onnx")
    report = graphforge.diff(folder / "net.pt2", tmp_path / "bad.onnx")
    assert report.weights == (f"weights differ in 1 of 4 tensors: {name}",)
    assert cause_of(report).node.startswith("Conv node")


class Gated(nn.Module):
    """Two layers with a choice of what stands between them, and a clamp that may be there."""

    def __init__(self, gate: nn.Module, *, clamped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.gate, self.second = nn.Linear(6, 8), gate, nn.Linear(8, 5)
        self.clamped = clamped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.gate(self.first(x)) * 2
        if self.clamped:
            y = y.clamp(max=0.3)
        out: torch.Tensor = self.second(y) + 1
        return out


def test_an_output_that_the_reference_lacks_is_told() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x.sum()

    class First(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    report = graphforge.diff(First(), Two(), (torch.randn(3),))
    assert report.agrees
    assert any("2 outputs" in note and "compared with nothing" in note for note in report.notes)


def test_another_model_in_pytorch_is_held_against_it() -> None:
    model, x = Gated(nn.SiLU()), (torch.randn(3, 6),)
    same = graphforge.diff(model, Gated(nn.SiLU()), x)
    assert same.agrees
    assert {row.status for row in same.rows} <= {"equal", "merged"}
    assert "in PyTorch" in says(same)
    (measured,) = same.measured
    assert measured is not None
    assert measured.top1 == 1.0
    assert measured.top5 is None  # of five, all are among the five largest

    other = cause_of(graphforge.diff(model, Gated(nn.GELU()), x))
    assert other.entry is not None
    assert (other.entry.call.path, other.shown) == ("gate", True)

    longer = graphforge.diff(model, Gated(nn.SiLU(), clamped=True), x)
    assert longer.verdict == "departs"
    assert all(cause.entry is None or cause.entry.call.path not in ("first", "gate") for cause in longer.causes)

    heavier = Gated(nn.SiLU())
    with torch.no_grad():
        heavier.second.weight.mul_(1.5)
    report = graphforge.diff(model, heavier, x)
    assert report.weights == ("weights differ in 1 of 4 tensors: second.weight",)
    assert cause_of(report).note.startswith("there it is ") or "; there it is " in cause_of(report).note
    measured = report.measured[0]
    assert measured is not None
    assert measured.snr < 60


def test_inputs_that_do_not_fit_the_file_are_told_in_our_words(folder: Path) -> None:
    with pytest.raises(GraphForgeError) as failure:
        graphforge.diff(network(), folder / "bundle", (torch.randn(2, 3, 14, 12),))
    assert failure.value.message == "input 'input': the file takes 2x3x12x12, and 2x3x14x12 is given"
    with pytest.raises(GraphForgeError, match="the file takes float32, and float64 is given"):
        graphforge.diff(network().double(), folder / "bundle", (torch.randn(2, 3, 12, 12, dtype=torch.float64),))


DRAWN = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()
"""


def test_a_model_whose_weights_are_drawn_anew_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "drawn.py").write_text(DRAWN)
    model = f"{tmp_path}/drawn.py:build"
    bundle = graphforge.compile(model, INPUT, verify=False, output=tmp_path / "bundle")
    report = graphforge.diff(model, bundle, INPUT)
    assert report.verdict == "departs"
    assert not report.causes
    assert "weights differ in 4 of 4 tensors" in says(report)
    assert "draws its weights anew each time it is built" in says(report)
