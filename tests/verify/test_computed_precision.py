"""What a runtime computes in fewer digits than the model asks for: honest when captured, said, judged and recorded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.errors import VerificationError
from graphforge.prepare import prepare, to_canonical, to_ir
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.targets.tables import facts_of

NOTE = "compute-where-kernels-are: Erf of float64 is computed in float32"


class Erf(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erf(x.double())


class Both(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.erf(x), torch.exp(x)


@pytest.fixture(autouse=True)
def _doubles_have_no_erf() -> None:
    if facts_of("onnxruntime").kernels.has("Erf", ir.DataType.DOUBLE):
        pytest.skip("this ONNX Runtime has the kernel")


def test_a_captured_graph_says_what_the_model_says() -> None:
    model, facts = to_ir(prepare(Erf().eval(), torch.randn(2, 3)))
    assert [(node.op_type, node.outputs[0].dtype) for node in model.graph] == [
        ("Cast", ir.DataType.DOUBLE),
        ("Erf", ir.DataType.DOUBLE),
    ]
    to_canonical(model)
    assert Counter(node.op_type for node in model.graph)["Erf"] == 1
    assert facts["method"] == "export"


def test_bfloat16_is_captured_as_bfloat16() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + y)

    x = torch.randn(2, 3).bfloat16()
    model, _ = to_ir(prepare(Net().eval(), (x, x)))
    assert [node.op_type for node in model.graph] == ["Add", "Relu"]


def test_compiles_verifies_and_is_on_record(tmp_path: Path) -> None:
    """It failed its own verification: 6 of 6 elements are off by more than 1e-12."""
    bundle = graphforge.compile(Erf().eval(), torch.randn(2, 3), output=tmp_path / "out")
    assert NOTE in bundle.manifest["notes"]
    verification = bundle.manifest["verification"]
    assert verification["passed"]
    assert verification["tolerances"]["computed_in"] == {"output": "float32"}
    (loosened,) = verification["tolerances"]["loosened"]
    assert loosened.endswith("Erf of float64 is computed in float32")
    nodes = onnx.load(bundle.path / "model.onnx").graph.node
    assert [node.op_type for node in nodes] == ["Erf", "Cast"]


def test_only_what_is_computed_more_coarsely_is_judged_so(tmp_path: Path) -> None:
    bundle = graphforge.compile(Both().eval(), torch.randn(4, dtype=torch.float64), output=tmp_path / "out")
    assert list(bundle.manifest["verification"]["tolerances"]["computed_in"]) == ["output_0"]


def test_a_failed_verification_says_what_passes_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note was printed on success only."""
    original = OnnxRuntimeRunner.run
    monkeypatch.setattr(
        OnnxRuntimeRunner, "run", lambda self, feeds: {name: value + 1 for name, value in original(self, feeds).items()}
    )
    with pytest.raises(VerificationError) as caught:
        graphforge.compile(Erf().eval(), torch.randn(2, 3), output=tmp_path / "out")
    assert NOTE in caught.value.notes


def test_passes_are_checked_and_bisected_all_the_same(tmp_path: Path) -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    bundle = graphforge.compile(Both().eval(), x, check_passes=True, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    assert graphforge.bisect(Both().eval(), x).clean


def test_every_opset_is_proven_with_the_same_tolerance() -> None:
    answer = graphforge.opset(Erf().eval(), torch.randn(2, 3), prove=True)
    assert {proof.passed for proof in answer.proofs} == {True}
