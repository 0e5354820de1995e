"""Layer-wise diff: modules line up with the optimised graph, the first departure is named, doubt claims nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console

from graphforge.errors import GraphForgeError
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify.diff import DiffReport, _constant_factor, diff_modules
from graphforge.verify.tolerance import Tolerance
from tests.verify import small

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def statuses(report: DiffReport) -> dict[str, str]:
    return {row.module + (f"#{row.call}" if row.call else ""): row.status for row in report.rows}


def graph(text: str, origins: list[list[str]]) -> onnx.ModelProto:
    """A model from text, one list of module paths per node."""
    proto = onnx.parser.parse_model(HEADER + text)
    for node, paths in zip(proto.graph.node, origins, strict=True):
        small.add_property(node, "graphforge.module", "\n".join(paths))
        small.add_property(node, "graphforge.source", "\n".join(f"net.py:{i + 1}" for i in range(len(paths))))
        if len(paths) > 1:
            small.add_property(node, "graphforge.origins", str(len(paths)))
    return proto


def test_rows_stand_in_execution_order_and_agree(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx", folded=False)
    runner = small.eager(model, 2, 3, 8, 8)
    report = diff_modules(runner, path, runner.example())
    assert statuses(report) == {
        "body.conv": "equal",
        "body.bn": "equal",
        "body.act": "equal",
        "body": "equal",
        "head": "equal",
        "": "equal",
    }
    assert report.agrees
    assert report.describe_first_departure() == ""


def test_a_folded_convolution_is_merged_into_its_batch_norm(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    runner = small.eager(model, 2, 3, 8, 8)
    report = diff_modules(runner, path, runner.example())
    rows = {row.module: row for row in report.rows}
    assert rows["body.conv"].status == "merged"
    assert rows["body.conv"].note == "into body.bn"
    assert rows["body.bn"].status == "equal"
    assert rows["body.bn"].note == "with body.conv in it"
    assert report.agrees


@pytest.mark.parametrize(("weight", "module"), [("w", "body.bn"), ("hw", "head")])
def test_a_weight_changed_by_hand_is_marked_at_its_module(tmp_path: Path, weight: str, module: str) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    small.edit_initializer(path, weight, (1, 2), 0.05)
    runner = small.eager(model, 2, 3, 8, 8)
    report = diff_modules(runner, path, runner.example())
    first = report.first_departure
    assert first is not None
    assert first.module == module
    assert first.source.startswith("small.py:")
    assert first.comparison is not None
    assert first.comparison.max_abs is not None
    assert first.comparison.max_abs > 1e-3
    assert module in report.describe_first_departure()


def test_a_module_called_twice_is_lined_up_by_call_order() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.act(self.act(x) - 1)
            return y

    proto = graph(
        "g (float[a] x) => (float[a] output) <float one = {1.0}, float two = {2.0}>"
        " { r = Relu(x) s = Sub(r, one) t = Relu(s) output = Identity(t) }",
        [["act"], [""], ["act"], [""]],
    )
    runner = small.eager(Twice(), 9)
    feeds = {"x": np.linspace(-4, 4, 9, dtype=np.float32)}
    report = diff_modules(runner, proto, feeds)
    assert statuses(report) == {"act": "equal", "act#1": "equal", "": "equal"}
    proto.graph.node[1].input[1] = "two"
    report = diff_modules(runner, proto, feeds)
    assert statuses(report) == {"act": "equal", "act#1": "departs", "": "departs"}
    first = report.first_departure
    assert first is not None
    assert (first.module, first.call) == ("act", 1)
    assert "call 2" in first.describe()


def test_in_place_modules_do_not_spoil_what_was_recorded_before() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(inplace=True))
    proto = graph(
        "g (float[a, 4] input) => (float[a, 4] output) { h = Gemm<transB = 1>(input, w, b) output = Relu(h) }",
        [["0"], ["1"]],
    )
    for name, parameter in zip("wb", model[0].parameters(), strict=True):
        proto.graph.initializer.append(numpy_helper.from_array(parameter.detach().numpy(), name))
    runner = small.eager(model, 3, 4)
    assert statuses(diff_modules(runner, proto, runner.example())) == {"0": "equal", "1": "equal", "": "equal"}


def test_fused_with_the_code_around_it_nothing_is_claimed() -> None:
    class Around(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.act(x) + 1
            return y - 1

    # one node stands for the module and for the addition after it: its value is not the module's output
    proto = graph(
        "g (float[a] x) => (float[a] output) <float one = {1.0}, float low = {1.0}>"
        " { s = Add(x, one) r = Max(s, low) output = Sub(r, one) }",
        [["", "act"], ["act", ""], [""]],
    )
    runner = small.eager(Around(), 9)
    report = diff_modules(runner, proto, runner.example())
    assert statuses(report) == {"act": "uncertain", "": "equal"}
    assert report.agrees


class Scaled(torch.nn.Module):
    """A linear layer, then a factor that a pass may fold into the layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.query = torch.nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.query(x)
        return y * 0.125


@pytest.mark.parametrize(("factor", "query", "whole"), [(0.125, "uncertain", "equal"), (0.2, "departs", "departs")])
def test_a_factor_folded_into_a_weight_is_no_departure(factor: float, query: str, whole: str) -> None:
    torch.manual_seed(0)
    model = Scaled()
    proto = graph("g (float[a, 4] x) => (float[a, 4] output) { output = MatMul(x, w) }", [["query"]])
    weight = model.query.weight.detach().numpy().T * np.float32(factor)
    proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight), "w"))
    runner = small.eager(model, 3, 4)
    report = diff_modules(runner, proto, runner.example())
    assert statuses(report) == {"query": query, "": whole}
    row = report.rows[0]
    assert row.factor == pytest.approx(factor, rel=1e-4)
    assert ("0.125 times as large" in row.note) == (whole == "equal")


def test_modules_that_hand_their_input_through_are_merged() -> None:
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Identity())
    proto = graph("g (float[a] input) => (float[a] output) { output = Relu(input) }", [["0"]])
    runner = small.eager(model, 5)
    report = diff_modules(runner, proto, runner.example())
    assert statuses(report) == {"0": "equal", "1": "merged", "2": "merged", "": "equal"}
    assert {row.note for row in report.rows if row.status == "merged"} == {"returns its input"}


def test_a_shared_module_is_found_under_either_name() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.ReLU()
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.second(x)
            return y * 2

    proto = graph(
        "g (float[a] x) => (float[a] output) <float two = {2.0}> { r = Relu(x) output = Mul(r, two) }",
        [["second@1"], [""]],
    )
    runner = small.eager(Shared(), 5)
    assert statuses(diff_modules(runner, proto, runner.example())) == {"first": "equal", "": "equal"}


def test_several_outputs_of_a_module() -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x * 2

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.two(x)
            return torch.as_tensor(a - b)

    proto = graph(
        "g (float[a] x) => (float[a] output) <float one = {1.0}, float two = {2.0}>"
        " { b = Mul(x, two) a = Add(x, one) output = Sub(a, b) }",
        [["two"], ["two"], [""]],
    )
    runner = small.eager(Outer(), 5)
    report = diff_modules(runner, proto, runner.example())
    assert [(row.module, row.tensor, row.value, row.status) for row in report.rows] == [
        ("two", 0, "a", "equal"),
        ("two", 1, "b", "equal"),
        ("", 0, "output", "equal"),
    ]


def test_values_used_inside_subgraphs_leave_their_module() -> None:
    class Branch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.act(x)
            return y + 1

    proto = graph(
        "g (float[3] x) => (float[3] output) <bool yes = {1}, float one = {1.0}>"
        " { r = Relu(x) output = If(yes) <then_branch = a () => (float[3] t) { t = Add(r, one) },"
        " else_branch = b () => (float[3] e) { e = Sub(r, one) }> }",
        [["act"], [""]],
    )
    runner = small.eager(Branch(), 3)
    assert statuses(diff_modules(runner, proto, runner.example())) == {"act": "equal", "": "equal"}


def test_pieces_give_the_same_table(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    runner = small.eager(model, 2, 3, 8, 8)
    whole = diff_modules(runner, path, runner.example())
    pieces = diff_modules(runner, path, runner.example(), memory=1)
    assert [row.to_dict() for row in whole.rows] == [row.to_dict() for row in pieces.rows]


def test_external_data_is_read_where_it_lies_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    proto = onnx.load(str(path))
    onnx.save(proto, str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    before = sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir())
    runner = small.eager(model, 2, 3, 8, 8)
    assert diff_modules(runner, path, runner.example()).agrees
    assert sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir()) == before


def test_inputs_go_by_position_when_the_file_names_them_otherwise(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    proto = onnx.load(str(path))
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "image"
    runner = small.eager(model, 2, 3, 8, 8)
    assert diff_modules(runner, proto, runner.example()).agrees


def test_the_stock_exporters_file_lines_up_too(tmp_path: Path) -> None:
    model = small.net()
    runner = small.eager(model, 2, 3, 8, 8)
    path = tmp_path / "stock.onnx"
    torch.onnx.export(
        model, (runner.inputs.args[0],), str(path), dynamo=True, verbose=False, external_data=False, opset_version=18
    )
    report = diff_modules(runner, path, runner.example())
    assert report.agrees
    assert statuses(report)["body.act"] == "equal"
    assert statuses(report)["head"] == "equal"
    proto = onnx.load(str(path))
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) + np.float32(0.1), "head.weight"))
    first = diff_modules(runner, proto, runner.example()).first_departure
    assert first is not None
    assert first.module == "head"
    assert "small.py" in first.source


def test_a_file_without_origins_is_refused(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx", origins=False)
    runner = small.eager(model, 2, 3, 8, 8)
    with pytest.raises(GraphForgeError, match="carries no origins"):
        diff_modules(runner, path, runner.example())


def test_what_is_not_onnx_is_refused(tmp_path: Path) -> None:
    runner = small.eager(small.net(), 2, 3, 8, 8)
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(GraphForgeError, match="is not an ONNX file"):
        diff_modules(runner, tmp_path / "broken.onnx", runner.example())


def test_hooks_and_state_are_gone_afterwards(tmp_path: Path) -> None:
    model = small.net().train()
    path = small.write_net(model, tmp_path / "net.onnx")
    runner = small.eager(model, 2, 3, 8, 8)
    diff_modules(runner, path, runner.example())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_an_exported_program_has_only_its_outputs(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    example = small.eager(model, 2, 3, 8, 8)
    program = torch.export.export(model, example.inputs.args)
    runner = EagerRunner.of(program.module(), example.inputs.args)
    report = diff_modules(runner, path, runner.example())
    assert statuses(report)[""] == "equal"


def test_report_prints_and_is_json(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    small.edit_initializer(path, "hw", (1, 2), 0.05)
    runner = small.eager(model, 2, 3, 8, 8)
    report = diff_modules(runner, OnnxRuntimeRunner(path), runner.example())
    text = io.StringIO()
    report.render(Console(file=text, width=200))
    assert ">>" in text.getvalue()
    assert "first departure: head (Linear)" in text.getvalue()
    parsed = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert parsed["first_departure"]["module"] == "head"


def test_a_narrow_terminal_keeps_words_whole_and_goes_without_the_class(tmp_path: Path) -> None:
    model = small.net()
    runner = small.eager(model, 2, 3, 8, 8)
    report = diff_modules(runner, small.write_net(model, tmp_path / "net.onnx"), runner.example())
    told = {}
    for width in (70, 200):
        text = io.StringIO()
        report.render(Console(file=text, width=width))
        told[width] = text.getvalue()
    assert "class" in told[200]
    assert "class" not in told[70]
    for row in report.rows:
        if row.status != "merged":
            assert (row.module or "(model)") in told[70]


def test_a_value_of_another_shape_is_not_a_multiple() -> None:
    """It ended in a ValueError: operands could not be broadcast."""
    assert _constant_factor(np.ones((2, 4), np.float32), np.ones((2, 3), np.float32), Tolerance()) is None
    assert _constant_factor(np.ones((2, 4), np.float32), 2 * np.ones((2, 4), np.float32), Tolerance()) == 2
