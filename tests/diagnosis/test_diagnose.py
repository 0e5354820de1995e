"""`diff` names the node, the module and the line of one fault, and blames nothing that is right."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import graphforge
from graphforge.diagnosis import Cause, Diagnosis
from graphforge.errors import UsageError

Edit = Callable[[onnx.ModelProto], None]


def line_of(text: str) -> str:
    """``test_diagnose.py:41``, the only line of this file with that text in a model."""
    lines = Path(__file__).read_text().split("\n")
    (number,) = [at for at, line in enumerate(lines, 1) if f"  # {text}" in line]
    return f"{Path(__file__).name}:{number}"


def node_of(proto: onnx.ModelProto, operator: str, number: int = 0) -> onnx.NodeProto:
    found: onnx.NodeProto = [node for node in proto.graph.node if node.op_type == operator][number]
    return found


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def change_constant(proto: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    (tensor,) = [one for one in proto.graph.initializer if one.name == name]
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(array), array.dtype), name))


def sabotaged(
    model: nn.Module, inputs: tuple[Any, ...], folder: Path, edit: Edit | None = None, **options: Any
) -> Diagnosis:
    """The diagnosis of a compiled model after one edit of its file."""
    bundle = graphforge.compile(model, inputs, verify=False, output=folder / "bundle", **options)
    proto = onnx.load(bundle.path / "model.onnx")
    if edit is not None:
        edit(proto)
        onnx.save(proto, bundle.path / "model.onnx")
    return graphforge.diff(model, bundle, inputs)


def cause_of(report: Diagnosis) -> Cause:
    (cause,) = report.causes
    assert report.verdict == "departs"
    assert cause.shown
    return cause


def says(report: Diagnosis) -> str:
    text = io.StringIO()
    report.render(Console(file=text, width=200))
    return text.getvalue()


def _weighed(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return x * weights.softmax(-1)  # in a helper


class Functional(nn.Module):
    """No module but itself: a softmax, a concatenation, an interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = _weighed(x, x @ self.weight)  # weighed
        y = torch.cat([y, x], 1)  # two halves
        y = F.interpolate(y[None], scale_factor=2, mode="bilinear", align_corners=False)  # made larger
        return y.tanh() - y.mean()


FUNCTIONAL: dict[str, tuple[Edit, str, str]] = {
    "axis": (lambda p: set_attribute(node_of(p, "Softmax"), "axis", 1), "in a helper", "Softmax"),
    "order": (lambda p: node_of(p, "Concat").input.reverse(), "two halves", "Concat"),
    "corners": (
        lambda p: set_attribute(node_of(p, "Resize"), "coordinate_transformation_mode", "align_corners"),
        "made larger",
        "Resize",
    ),
}


@pytest.mark.parametrize("fault", FUNCTIONAL)
def test_code_in_forward_has_its_line_and_node(fault: str, tmp_path: Path) -> None:
    edit, marker, operator = FUNCTIONAL[fault]
    torch.manual_seed(0)
    report = sabotaged(Functional().eval(), (torch.randn(2, 8, 8),), tmp_path, edit)
    cause = cause_of(report)
    assert cause.entry is not None
    assert cause.entry.origin.source.endswith(line_of(marker))
    assert cause.node.startswith(f"{operator} node")
    if fault == "axis":
        assert any(caller.endswith(line_of("weighed")) for caller in cause.entry.origin.callers)


class Attention(nn.Module):
    """The scale of the scores may be folded into the weight of the query."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 16, bias=bias) for bias in (False, False, True))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = ((self.q(x) @ self.k(x).transpose(1, 2)) * 0.25).softmax(-1)
        return weights @ self.v(x), weights


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = Attention(), nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.attention(x)[0] + x)
        return y


def test_a_folded_scale_is_not_blamed_for_another_fault(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Attending().eval(), (torch.randn(1, 5, 16),)
    assert sabotaged(model, inputs, tmp_path).agrees
    report = sabotaged(
        model, inputs, tmp_path / "b", lambda p: set_attribute(node_of(p, "LayerNormalization"), "epsilon", 0.5)
    )
    cause = cause_of(report)
    assert cause.entry is not None
    assert cause.entry.call.path == "norm"


class Calls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act, self.line = nn.LeakyReLU(0.1), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(x)
        x = self.line(x)
        y: torch.Tensor = self.act(x)  # again
        return y + 1


def test_a_second_call_is_told_from_the_first_and_has_its_own_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = sabotaged(
        Calls().eval(),
        (torch.randn(3, 6),),
        tmp_path,
        lambda p: set_attribute(node_of(p, "LeakyRelu", 1), "alpha", 0.4),
    )
    cause = cause_of(report)
    assert cause.entry is not None
    assert (cause.entry.call.path, cause.entry.call.call) == ("act", 1)
    assert cause.entry.origin.source.endswith(line_of("again"))
    assert "act (LeakyReLU) call 2" in says(report)


def test_a_node_among_several_of_one_operator_is_named(tmp_path: Path) -> None:
    """A linear layer over three axes is a MatMul and an Add: the weight is the MatMul's."""
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(6, 6), nn.Tanh()).eval(), (torch.randn(2, 3, 6),)

    def edit(proto: onnx.ModelProto) -> None:
        change_constant(proto, node_of(proto, "MatMul").input[1], lambda weight: weight * 1.1)

    cause = cause_of(sabotaged(model, inputs, tmp_path, edit))
    assert cause.node.startswith("MatMul node")
    assert "is not what the model compiled anew has" in cause.note


class Pieces(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = x.unbind(1)  # pieces
        return (a * 2 + b) / (c.abs() + 1)


def test_a_piece_taken_for_another_is_a_departure(tmp_path: Path) -> None:
    """It holds what another piece holds as well, and nothing holds its own."""

    def edit(proto: onnx.ModelProto) -> None:
        first, second = node_of(proto, "Gather"), node_of(proto, "Gather", 1)
        first.input[1] = second.input[1]

    torch.manual_seed(0)
    cause = cause_of(sabotaged(Pieces().eval(), (torch.randn(2, 3, 5),), tmp_path, edit))
    assert cause.node.startswith("Gather node")
    assert cause.entry is not None
    assert cause.entry.origin.source.endswith(line_of("pieces"))


class Above(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0.5] * 2  # as many as there are


def test_a_changed_number_of_rows_is_a_departure_and_no_crash(tmp_path: Path) -> None:
    def edit(proto: onnx.ModelProto) -> None:
        change_constant(proto, node_of(proto, "Greater").input[1], lambda bound: np.full_like(bound, 0.3))

    torch.manual_seed(0)
    report = sabotaged(Above().eval(), (torch.rand(9),), tmp_path, edit)
    assert not report.agrees
    assert "expected shape" in report.outputs[0].reason
    assert report.not_compared
    cause = report.causes[0]
    assert cause.entry is not None
    assert cause.node.startswith("Greater node")
    assert cause.entry.origin.source.endswith(line_of("as many as there are"))


def detector() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    from scripts.gallery import digits

    model, inputs = digits.detector()
    return model.eval(), inputs


@pytest.mark.parametrize("outputs", ["ragged", "padded"])
def test_a_changed_threshold_of_a_detector_is_found(outputs: str, tmp_path: Path) -> None:
    def edit(proto: onnx.ModelProto) -> None:
        change_constant(proto, node_of(proto, "NonMaxSuppression").input[3], lambda bound: bound * 0.05)

    model, inputs = detector()
    assert sabotaged(model, inputs, tmp_path / "healthy", outputs=outputs).agrees
    report = sabotaged(model, inputs, tmp_path / "changed", edit, outputs=outputs)
    assert not report.agrees
    assert report.causes[0].node.startswith("NonMaxSuppression node")


@pytest.mark.parametrize("fault", [False, True])
def test_a_file_without_metadata_is_blamed_only_where_an_experiment_shows_it(fault: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Sigmoid())

    def edit(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            del node.metadata_props[:]
        if fault:
            change_constant(proto, node_of(proto, "Conv", 1).input[1], lambda weight: weight[::-1])

    report = sabotaged(model.eval(), (torch.randn(1, 3, 9, 9),), tmp_path, edit)
    assert report.agrees is not fault
    assert any("say for certain what they stand for" in note for note in report.notes)
    if fault:
        cause = cause_of(report)
        assert cause.by == "structure and numbers"
        assert cause.entry is not None
        assert cause.entry.call.path == "3"


def test_values_of_little_memory_give_the_same_table(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval(),
        (torch.randn(1, 3, 80, 80),),
    )
    bundle = graphforge.compile(model, inputs, verify=False, output=tmp_path / "bundle")
    whole, pieces = (graphforge.diff(model, bundle, inputs, memory=one) for one in ("1GB", "64KB"))
    assert whole.agrees
    assert whole.to_dict() == pieces.to_dict()


def test_the_view_on_modules_has_one_row_for_each_call(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = sabotaged(Calls().eval(), (torch.randn(3, 6),), tmp_path)
    assert [(path, call) for path, call, _, _ in report.modules()] == [("act", 0), ("line", 0), ("act", 1), ("", 0)]
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["agrees"] is True
    assert [row["status"] for row in document["rows"]] == ["equal"] * 4


def test_a_pattern_chooses_the_rows_that_are_printed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Attending().eval(), (torch.randn(1, 5, 16),)
    bundle = graphforge.compile(model, inputs, verify=False, output=tmp_path / "bundle")
    text = says(graphforge.diff(model, bundle, inputs, layers="attention.?"))
    assert "attention.k" in text
    assert "norm" not in text


def test_a_pattern_that_no_module_fits_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Attending().eval(), (torch.randn(1, 5, 16),)
    bundle = graphforge.compile(model, inputs, verify=False, output=tmp_path / "bundle")
    with pytest.raises(UsageError, match=r"no module fits 'atention\.k'[\s\S]*did you mean attention\.k"):
        graphforge.diff(model, bundle, inputs, layers="atention.k")


def test_one_value_is_told_as_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), (torch.randn(1, 3, 8, 8),)
    bundle = graphforge.compile(model, inputs, verify=False, output=tmp_path / "bundle")
    text = says(graphforge.diff(model, bundle, inputs))
    assert "1 value is computed together with later ones" in text
    assert "and 1 value on the way" in text


def test_memory_is_a_size(tmp_path: Path) -> None:
    bundle = graphforge.compile(nn.ReLU(), (torch.randn(3),), verify=False, output=tmp_path / "bundle")
    with pytest.raises(UsageError, match="expected a number of bytes"):
        graphforge.diff(nn.ReLU(), bundle, (torch.randn(3),), memory="much")
