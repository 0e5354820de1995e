"""What TensorRT makes of a file before a plan is built: findings at their nodes, and plans of what was refused once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.targets.tensorrt.lint import MOST_OF_TOP_K

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install tensorrt-rtx-cu13)")


HOW = {"compute_capabilities": "SM86"}


def saved(path: Path, text: str, opset: int = 20) -> Path:
    """The graph that the text writes, every node named after its operator."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    for node in model.graph.node:
        node.name = f"head/{node.op_type}"
    onnx.save(model, path)
    return path


def found(path: Path) -> list[tuple[str, str, str]]:
    report = graphforge.lint(path, "tensorrt")
    return [(one.rule, one.message, getattr(one.place, "node", "")) for one in report.findings]


def test_a_file_that_it_takes_is_clean(tmp_path: Path) -> None:
    assert found(saved(tmp_path / "a.onnx", "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }")) == []


def test_an_operator_that_it_does_not_know(tmp_path: Path) -> None:
    text = "g (float[4,3,3] x) => (float[4] y) { r = Relu(x) y = Det(r) }"
    assert found(saved(tmp_path / "a.onnx", text)) == [("T2", "it does not support Det", "head/Det")]


def test_a_refusal_that_names_no_node_is_found_out(tmp_path: Path) -> None:
    """Its parser says `Unsupported reduction type` and not where."""
    text = (
        "g (float[4,3] x, int64[2,3] i, float[2,3] u) => (float[4,3] y)"
        ' { r = Relu(x) y = ScatterElements<axis = 0, reduction = "mul">(r, i, u) }'
    )
    path = saved(tmp_path / "a.onnx", text)
    assert found(path) == [("T2", "refused: Unsupported reduction type", "head/ScatterElements")]


def test_an_element_type_that_it_does_not_have(tmp_path: Path) -> None:
    text = "g (float[4] x) => (int16[4] y) { y = Cast<to = 5>(x) }"
    report = graphforge.lint(saved(tmp_path / "a.onnx", text), "tensorrt")
    assert [(one.rule, one.message, one.fix) for one in report.findings] == [
        ("T2", "it has no int16", "compute in int32 or int64 there, in the model")
    ]


def test_what_only_the_builder_refuses(tmp_path: Path) -> None:
    top = "g (float[1,9000] x) => (float[1,5000] v, int64[1,5000] i) <int64[1] k = {5000}> { v, i = TopK(x, k) }"
    assert found(saved(tmp_path / "a.onnx", top)) == [
        ("T5", f"k is 5000, and it takes {MOST_OF_TOP_K} at most", "head/TopK")
    ]
    suppressed = (
        "g (float[1,9,4] b, float[1,1,9] s) => (int64[n,3] y) <int64[1] m = {3}, float[1] t = {0.5}>"
        " { y = NonMaxSuppression(b, s, m, t) }"
    )
    report = graphforge.lint(saved(tmp_path / "b.onnx", suppressed), "tensorrt")
    assert [(one.rule, one.fix) for one in report.findings] == [
        ("T4", "write NMS in plain tensor operators, its portable form")
    ]


def test_a_plan_is_not_linted(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"a plan")
    with pytest.raises(GraphForgeError, match="neither a bundle nor an ONNX file"):
        graphforge.lint(tmp_path / "model.plan", "tensorrt")


class Scattered(torch.nn.Module):
    """Rows added at places that may repeat."""

    def forward(self, x: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return x.index_add(0, places, rows).relu()


class Best(torch.nn.Module):
    """More of the best than one TopK takes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = torch.topk(x * 2, 4000)
        return values, places


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Scattered(), (torch.randn(6, 3), torch.tensor([0, 2, 2]), torch.randn(3, 3))),
        (Best(), (torch.randn(1, 5000),)),
    ],
    ids=["scatter", "top-k"],
)
def test_plans_of_what_it_does_not_take_as_it_is(
    model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], tmp_path: Path
) -> None:
    bundle = graphforge.compile(
        model.eval(),
        inputs,
        target="tensorrt",
        target_options=HOW,
        output=tmp_path / "plan",
    )
    assert bundle.manifest["verification"]["passed"] is True
    assert bundle.manifest["artifact"]["plan"]["bytes"] > 0
    assert found(bundle.path) == []


class Multiplied(torch.nn.Module):
    """A product over a dynamic axis, which has no other form."""

    def forward(self, x: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return x.scatter_reduce(0, places, rows, reduce="prod")


def test_a_scatter_without_another_form_is_refused_with_its_line(tmp_path: Path) -> None:
    inputs = (torch.randn(6, 3), torch.zeros(2, 3, dtype=torch.int64), torch.randn(2, 3))
    with pytest.raises(GraphForgeError, match=r"does not take reductions in it.*ScatterElements node.*test_lint\.py"):
        graphforge.compile(
            Multiplied().eval(),
            inputs,
            dynamic_shapes={"x": {0: (2, 8)}},
            target="tensorrt",
            output=tmp_path / "plan",
        )
