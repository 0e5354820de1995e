"""The whole road through the Python API: what goes in, what lies in the bundle, what is left behind on failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError, UsageError, VerificationError
from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from graphforge.user_code import shown_path


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4, 5)
        self.register_buffer("shift", torch.tensor([0.5]))
        torch.nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]
        torch.nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu_(self.norm(self.conv(image)))
        result: torch.Tensor = self.head(features.mean(dim=(2, 3))) + self.shift
        return result


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def _run(bundle: graphforge.Bundle, **feeds: np.ndarray[Any, Any]) -> list[Any]:
    session = ort.InferenceSession(bundle.path / "model.onnx", providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def test_a_module_becomes_a_verified_bundle(net: Net, tmp_path: Path) -> None:
    bundle = graphforge.compile(
        net,
        torch.randn(2, 3, 16, 16),
        dynamic_shapes={"image": {0: (1, 8), 2: (8, 64, 8)}},
        output=tmp_path / "out",
    )
    assert bundle.manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    report = bundle.manifest["verification"]
    assert report["passed"] is True
    tried = {trial["inputs"]["image"][0] for trial in report["trials"]}
    assert len(tried) >= 3
    assert 1 in tried
    image = np.random.default_rng(0).standard_normal((5, 3, 24, 16)).astype(np.float32)
    (output,) = _run(bundle, image=image)
    with torch.no_grad():
        np.testing.assert_allclose(output, net(torch.from_numpy(image)).numpy(), rtol=1e-4, atol=1e-5)


def test_names_and_origins_are_the_modules_own(net: Net, tmp_path: Path) -> None:
    bundle = graphforge.compile(net, torch.randn(2, 3, 8, 8), output=tmp_path / "out")
    graph = onnx.load(bundle.path / "model.onnx").graph
    names = [node.name for node in graph.node]
    assert "conv/Conv" in names
    assert len(set(names)) == len(names)
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["output"]
    conv = next(node for node in graph.node if node.op_type == "Conv")
    properties = {item.key: item.value for item in conv.metadata_props}
    assert "conv" in properties["graphforge.module"].split("\n")
    assert f"{Path(__file__).name}:" in properties["graphforge.source"]


@pytest.mark.parametrize("opset", [17, 18, 20, 23, 26])
def test_the_opset_asked_for_is_the_opset_delivered(net: Net, tmp_path: Path, opset: int) -> None:
    bundle = graphforge.compile(net, torch.randn(2, 3, 8, 8), opset=opset, output=tmp_path / "out")
    model = onnx.load(bundle.path / "model.onnx")
    assert {item.domain: item.version for item in model.opset_import}[""] == opset
    onnx.checker.check_model(model, full_check=True)
    assert bundle.manifest["schema"] == 1
    assert bundle.manifest["artifact"]["opset"] == opset


def test_an_opset_that_cannot_be_delivered_is_refused_before_any_work(net: Net, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset 99 cannot be delivered"):
        graphforge.compile(net, torch.randn(2, 3, 8, 8), opset=99, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shapes_alone_are_enough(net: Net, tmp_path: Path) -> None:
    spec = ShapeSpec((TensorSpec("image", (1, 3, 8, 8), dims={0: DimRange("batch", 1, 4)}),))
    bundle = graphforge.compile(net, spec, output=tmp_path / "out")
    assert bundle.manifest["inputs"][0]["dynamic"] == {"0": {"name": "batch", "low": 1, "high": 4, "step": 1}}


def test_an_exported_program_compiles(net: Net, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes={"image": {0: batch}})
    bundle = graphforge.compile(program, dynamic_shapes={"image": {0: (1, 8)}}, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    with pytest.raises(UsageError, match="fixed at 8"):
        graphforge.compile(program, dynamic_shapes={"image": {2: (4, 8)}}, output=tmp_path / "out2")


def test_a_torchscript_file_compiles(net: Net, tmp_path: Path) -> None:
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    bundle = graphforge.compile(
        tmp_path / "net.pt",
        {"image": torch.randn(2, 3, 8, 8)},
        dynamic_shapes={"image": {0: (1, 4)}},
        output=tmp_path / "out",
    )
    assert bundle.manifest["capture"]["method"] == "trace"
    assert bundle.manifest["verification"]["passed"]


def test_an_onnx_file_compiles_and_is_its_own_reference(net: Net, tmp_path: Path) -> None:
    first = graphforge.compile(
        net, torch.randn(2, 3, 8, 8), dynamic_shapes={"image": {0: (1, 8)}}, output=tmp_path / "first"
    )
    second = graphforge.compile(first.path / "model.onnx", opset=18, output=tmp_path / "second")
    assert second.manifest["verification"]["passed"]
    assert second.manifest["artifact"]["opset"] == 18
    assert second.manifest["nodes"] <= first.manifest["nodes"]


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(8000, 16)
        self.head = torch.nn.Linear(16, 8000, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.embed(ids))
        return result


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    bundle = graphforge.compile(Tied().eval(), torch.tensor([[1, 2, 7999]]), output=tmp_path / "out")
    assert (bundle.path / "model.onnx").stat().st_size < 1.5 * 8000 * 16 * 4


class Wrong(graphforge.Pass):
    name: ClassVar[str] = "wrong"

    def run(self, graph: Any, rewriter: Any) -> None:
        """Turn every Relu into a Neg."""
        for node in list(graph):
            if node.op_type == "Relu":
                op = rewriter.builder(before=node)
                rewriter.replace(node, [op.Neg(node.inputs[0])])


def test_a_wrong_pass_is_caught_and_nothing_is_claimed(net: Net, tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as failure:
        graphforge.compile(net, torch.randn(2, 3, 8, 8), passes=[Wrong()], output=tmp_path / "out")
    assert "output" in str(failure.value)
    assert "first suspect" in str(failure.value)
    assert "check_passes=True names the first pass that changes a result" in failure.value.notes
    assert list(tmp_path.iterdir()) == []


def test_check_passes_names_the_guilty_pass(net: Net, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="wrong") as failure:
        graphforge.compile(net, torch.randn(2, 3, 8, 8), passes=[Wrong()], check_passes=True, output=tmp_path / "out")
    assert f"class Wrong in {shown_path(__file__)}:" in failure.value.notes[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_unverified_artifact_is_kept_only_when_asked_for(net: Net, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="unverified"):
        graphforge.compile(
            net, torch.randn(2, 3, 8, 8), passes=[Wrong()], keep_unverified=True, output=tmp_path / "out"
        )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.unverified.json",
        "model.unverified.onnx",
    ]


def test_no_verify_says_so(net: Net, tmp_path: Path) -> None:
    bundle = graphforge.compile(net, torch.randn(2, 3, 8, 8), verify=False, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"] is None
    assert any("not verified" in note for note in bundle.manifest["notes"])


def test_an_earlier_bundle_is_replaced_and_any_other_folder_is_refused(net: Net, tmp_path: Path) -> None:
    for _ in range(2):
        graphforge.compile(net, torch.randn(2, 3, 8, 8), output=tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(GraphForgeError, match="is not a bundle"):
        graphforge.compile(net, torch.randn(2, 3, 8, 8), output=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_training_mode_is_noted_and_inputs_are_left_alone(tmp_path: Path) -> None:
    net = Net().train()
    image = torch.randn(2, 3, 8, 8)
    before = image.clone()
    bundle = graphforge.compile(net, image, output=tmp_path / "out")
    assert any("training mode" in note for note in bundle.manifest["notes"])
    assert torch.equal(image, before)


class Changing(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: float = 1.0) -> Any:
        return {"a": x * scale, "b": (x, x > 0)}


def test_inputs_returned_as_outputs_and_several_outputs(tmp_path: Path) -> None:
    bundle = graphforge.compile(Changing(), torch.randn(3), kwargs={"scale": 3.0}, output=tmp_path / "out")
    assert [item["name"] for item in bundle.manifest["outputs"]] == ["a", "b_0", "b_1"]
    assert [item["dtype"] for item in bundle.manifest["outputs"]] == ["float32", "float32", "bool"]


def test_a_model_without_inputs_given_says_how_to_give_them() -> None:
    with pytest.raises(UsageError, match="no inputs were given"):
        graphforge.compile(Net().eval())
