"""Files that compute in fewer digits are held to what those digits explain, and where they do not, to no less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

import graphforge
from graphforge.prepare import example_feeds, prepare, reference_runner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify import verify
from graphforge.verify.rounding import _of_equal_terms
from graphforge.verify.tolerance import for_model


class _BoxesAndScores(torch.nn.Module):
    """Pixels beside scores: a share of the largest magnitude says nothing of the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.scores = torch.nn.Linear(24, 4), torch.nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.boxes(x) * 300, self.scores(x).sigmoid()], 1)


class _SmallAndLarge(torch.nn.Module):
    """Its first output does not fit into float16, so that nothing on the way to it is computed so."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = torch.nn.Linear(24, 40), torch.nn.Linear(24, 40)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.large(x) * 1e6, self.small(x).relu()


@pytest.mark.parametrize(
    ("module", "precision", "factors"),
    [
        (_BoxesAndScores(), "fp16", [1.0] * 4 + [1.1] * 2),
        (_BoxesAndScores(), "bf16", [1.0] * 4 + [1.3] * 2),
        (_SmallAndLarge(), "fp16", [1.0005]),
    ],
)
def test_a_wrong_factor_fails(module: torch.nn.Module, precision: str, factors: list[float], tmp_path: Path) -> None:
    torch.manual_seed(7)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = (torch.randn(40, 24),)
    graphforge.compile(module, inputs, precision=precision, output=tmp_path / "bundle")
    proto = onnx.load(tmp_path / "bundle/model.onnx")
    assert _verdict(module, inputs, proto) == "passed"
    _scale(proto, factors)
    assert _verdict(module, inputs, proto) == "failed"


def _verdict(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], proto: onnx.ModelProto) -> str:
    prepared = prepare(module, inputs)
    allowed = for_model(None, ir.from_proto(proto))
    assert "float16" in str(allowed.computed)
    with OnnxRuntimeRunner(proto, threads=1) as artifact:
        return verify(
            reference_runner(prepared), artifact, prepared.shapes, example_feeds(prepared), tolerances=allowed
        ).verdict


def _scale(proto: onnx.ModelProto, factors: list[float]) -> None:
    name = proto.graph.output[0].name
    for node in proto.graph.node:
        node.output[:] = [f"{name}_before" if one == name else one for one in node.output]
        node.input[:] = [f"{name}_before" if one == name else one for one in node.input]
    proto.graph.initializer.append(helper.make_tensor("wrong_factor", TensorProto.FLOAT, [len(factors)], factors))
    proto.graph.node.append(helper.make_node("Mul", [f"{name}_before", "wrong_factor"], [name]))


class _SumsOfEqualNumbers(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[-1]
        for _ in range(24):
            x = torch.tanh(x @ (torch.ones(n, n) / 600))
        return x


@pytest.mark.parametrize("shape", [(2, 768), (4, 600)])
def test_sums_of_equal_numbers_round_all_the_same_way(shape: tuple[int, int], tmp_path: Path) -> None:
    """A coin for each element would cancel in the next sum, where the runtime's rounding adds up."""
    torch.manual_seed(0)
    bundle = graphforge.compile(_SumsOfEqualNumbers(), (torch.randn(shape),), output=tmp_path / "bundle")
    assert bundle.manifest["verification"]["verdict"] == "passed"


class _MeanOfEachRow(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[-1]
        return torch.tanh(x @ torch.ones(n, n) / 600)


def test_rows_of_equal_numbers_that_differ_from_row_to_row(tmp_path: Path) -> None:
    """Of the tensor as a whole hardly any number stands twice."""
    rows = torch.randn(600, 1, generator=torch.Generator().manual_seed(0)).expand(600, 600).contiguous()
    bundle = graphforge.compile(_MeanOfEachRow(), (rows,), output=tmp_path / "bundle")
    assert bundle.manifest["verification"]["verdict"] == "passed"


def test_equal_numbers_are_looked_for_along_the_sum() -> None:
    ramp, same = torch.rand(80, 1).expand(80, 128), torch.ones(128, 80)
    assert _of_equal_terms("mm", [ramp, same])
    assert _of_equal_terms("bmm", [ramp.expand(3, 80, 128), same.expand(3, 128, 80)])
    assert _of_equal_terms("linear", [ramp, same.T])
    assert not _of_equal_terms("mm", [torch.rand(80, 128), same])
    assert not _of_equal_terms("mm", [ramp, torch.rand(128, 80)])


class _Loud(torch.nn.Module):
    """Squares that do not fit float16 for inputs louder than those that ranges were measured on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(x / (x * x).sum(-1, keepdim=True).sqrt())
        return result


def test_what_overflows_fails_where_a_cpu_computes_it_in_full(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    (tmp_path / "quiet" / "x").mkdir(parents=True)
    for number in range(2):
        np.save(tmp_path / "quiet" / "x" / f"{number:04}.npy", draw.standard_normal((4, 64)).astype(np.float32))
    loud = torch.from_numpy(draw.standard_normal((4, 64)).astype(np.float32)) * 200
    torch.manual_seed(0)
    with pytest.raises(graphforge.GraphForgeError, match="each result rounded to float16 does not agree") as caught:
        graphforge.compile(
            _Loud().eval(), (loud,), precision="fp16", calibration=tmp_path / "quiet", output=tmp_path / "b"
        )
    assert any("pins" in note for note in caught.value.notes)
    assert not (tmp_path / "b").exists()
