"""`graphforge opset` on models and files: nodes, lines and cures, the shape of its JSON, the proof, the page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphforge.cli.main import run
from graphforge.passes.opset import Step
from graphforge.passes.opset.engine import steps_down_of

ROI = """
<ir_version: 8, opset_import: ["" : 16]>
g (float[1, 2, 8, 8] x, float[1, 4] rois, int64[1] batch) => (float[1, 2, 3, 3] y) {
  y = RoiAlign<output_height = 3, output_width = 3>(x, rois, batch)
}
"""
NET = """
import torch

class Sampler(torch.nn.Module):
    def forward(self, image, grid):
        return torch.nn.functional.grid_sample(image, grid, align_corners=False)

class Scatter(torch.nn.Module):
    def forward(self, table, index, update):
        return table.scatter_reduce(0, index, update, "sum")

def sampler():
    return Sampler().eval()

def scatter():
    return Scatter().eval(), (torch.zeros(3, 4), torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4))
"""
SAMPLER = ("net.py:sampler", "--input", "image:1x2x4x4", "--input", "grid:1x3x3x2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = onnx.parser.parse_model(ROI)
    node = model.graph.node[0]
    node.name = "head/RoiAlign"
    for key, value in (("module", "head"), ("source", "net.py:41")):
        node.metadata_props.add(key=f"graphforge.{key}", value=value)
    onnx.save(model, tmp_path / "roi.onnx")
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opset_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run(["opset", *arguments, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_model_that_needs_16_is_told_with_node_line_and_cure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.process_time()
    document = opset_json(capsys, "roi.onnx")
    assert time.process_time() - started < 5
    assert document["lowest"] == document["lowest_deliverable"] == 16
    (need,) = document["deciding"]
    assert (need["node"], need["lowest"]) == ("head/RoiAlign", 16)
    assert "net.py:41" in need["origin"]
    assert "aligned=False" in need["cure"]
    by_opset = {cell["opset"]: cell for cell in document["opsets"]}
    assert {opset for opset, cell in by_opset.items() if cell["state"] == "impossible"} == {11, 12, 13, 14, 15}
    (item,) = by_opset[11]["obstructions"]
    assert item == {
        "cure": item["cure"],
        "lowest": 16,
        "module": "head",
        "node": "head/RoiAlign",
        "operator": "RoiAlign",
        "reason": "it samples with half-pixel coordinates, opset 15 knows the older ones only",
        "source": "net.py:41",
    }


@pytest.mark.parametrize(
    ("arguments", "operator", "line"), [(SAMPLER, "GridSample", 6), (("net.py:scatter",), "ScatterElements", 10)]
)
def test_operators_of_16_are_lowered_below_and_their_lines_are_named(
    arguments: tuple[str, ...], operator: str, line: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = opset_json(capsys, *arguments)
    by_opset = {cell["opset"]: cell for cell in document["opsets"]}
    assert operator in by_opset[16]["operators"]
    assert by_opset[15]["state"] == "legalised"
    (rewrite,) = [item for item in by_opset[15]["rewrites"] if item["opset"] == 15]
    assert rewrite["operator"] == operator
    assert rewrite["how"].startswith("written as ")
    assert rewrite["nodes"][0]["source"].endswith(f"net.py:{line}")
    assert document["deciding"][0]["cure"].startswith("deliver opset ")


def shape_of(value: object, path: tuple[str, ...] = ()) -> object:
    """Keys and kinds of a document: what a program that reads it relies on."""
    if isinstance(value, dict):
        if path[-1:] in (("operators",), ("limits",), ("lacking_by_opset",), ("domains",)):  # keys are data
            return {"*": shape_of(next(iter(value.values())))} if value else {"*": "any"}
        return {key: shape_of(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return "null" if value is None else type(value).__name__


PLACE = {"module": "str", "node": "str", "source": "str"}
PINNED = {
    "deciding": [
        {"cure": "str", "lowest": "int", "node": "str", "operator": "str", "origin": "str", "reason": "str"},
    ],
    "domains": {"*": "any"},
    "invalid": [],
    "lowest": "int",
    "lowest_deliverable": "int",
    "notes": [],
    "operators": [{"count": "int", "lowest": "int", "operator": "str", "reason": "str", "since": "int"}],
    "opset": "int",
    "opsets": "see below",
    "schema": "int",
    "targets": "see below",
}
PINNED_CELL = {
    "obstructions": [{"cure": "str", "lowest": "int", "operator": "str", "reason": "str", **PLACE}],
    "operators": {"*": {"count": "int", "version": "int"}},
    "opset": "int",
    "proof": {"max_rel": "float", "opset": "int", "passed": "bool", "reason": "null", "trials": "int"},
    "rewrites": [{"count": "int", "how": "str", "nodes": [PLACE], "operator": "str", "opset": "int"}],
    "state": "str",
}
LACK = {"count": "int", "nodes": [PLACE], "operator": "str"}
PINNED_TARGET = {
    "document": "str",
    "evidence": "str",
    "lacking_by_opset": {"*": "int"},
    "limits": {"*": "str"},
    "note": "str",
    "opset": "int",
    "reads": {"newest": "int", "oldest": "int"},
    "target": "str",
    "title": "str",
    "unknown": [LACK],
    "unsupported": [LACK],
    "url": "str",
    "verdict": "str",
}


def merged(shapes: list[Any]) -> Any:
    """One shape that has seen everything: an empty list or a null gives way to what another has there."""
    result = shapes[0]
    for other in shapes[1:]:
        result = _merge(result, other)
    return result


def _merge(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        assert set(one) == set(other)
        return {key: _merge(one[key], other[key]) for key in one}
    if isinstance(one, list) and isinstance(other, list):
        return [_merge(one[0], other[0])] if one and other else one or other
    return other if one in ("null", "any") else one


def test_json_keeps_its_shape(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A change here is a change of `schema`, and of somebody's program."""
    documents = [opset_json(capsys, "roi.onnx", "--prove"), opset_json(capsys, *SAMPLER, "--prove")]
    for document in documents:
        assert document["schema"] == 1
        assert json.dumps(document) == json.dumps(document, sort_keys=True)
        shape = shape_of(document)
        assert isinstance(shape, dict)
        assert shape | {"opsets": "see below", "targets": "see below"} == PINNED
        for cell in document["opsets"]:
            assert set(cell) == set(PINNED_CELL)
    cells = [shape_of(cell) for document in documents for cell in document["opsets"]]
    assert _without_nulls(merged(cells)) == _without_nulls(PINNED_CELL)
    targets = [shape_of(target) for document in documents for target in document["targets"]]
    assert _without_nulls(merged(targets)) == _without_nulls(PINNED_TARGET)


def _without_nulls(shape: Any) -> Any:
    """Where a proof has a reason or not is data."""
    if isinstance(shape, dict):
        return {key: _without_nulls(item) for key, item in shape.items() if key not in ("reason", "module")}
    return [_without_nulls(item) for item in shape] if isinstance(shape, list) else shape


def test_proof_runs_every_legal_opset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = opset_json(capsys, *SAMPLER, "--prove", "--target", "onnxruntime")
    proofs = {cell["opset"]: cell["proof"] for cell in document["opsets"]}
    assert set(proofs) == set(range(11, 27))
    assert all(proof["passed"] and proof["trials"] >= 2 for proof in proofs.values())


def test_proof_of_a_file_names_missing_kernels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["opset", "roi.onnx", "--prove", "--target", "onnxruntime"]) == 0
    printed = capsys.readouterr().out
    assert "opset 22 not run: ONNX Runtime brings no kernel for RoiAlign(22)" in printed
    assert "impossible below 16: RoiAlign head/RoiAlign (head, net.py:41)" in printed


def test_disproved_opset_ends_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A legalisation that changes the result, put in the place of the real one."""
    from graphforge.passes.opset import lower_16
    from graphforge.passes.opset.grid_sample import grid_sample

    def halved(step: Step) -> list[ir.Value]:
        (value,) = grid_sample(step)
        return [step.op.Mul(value, np.array(0.5, np.float32))]

    monkeypatch.setattr(lower_16, "STEPS_DOWN", {**lower_16.STEPS_DOWN, "GridSample": halved})
    monkeypatch.setattr("graphforge.passes.opset.engine.steps_down_of", steps_down_of.__wrapped__)
    assert run(["opset", *SAMPLER, "--prove", "--target", "onnxruntime"]) == 1
    printed = capsys.readouterr().out
    assert "opset 15 at example (given): output" in printed
    assert "BAD" in printed


def test_matrix_has_a_column_for_each_opset_and_a_row_for_each_runtime(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["opset", "roi.onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line.split() for line in lines if "26" in line and "11" in line and "." not in line)
    assert [int(text) for text in header] == list(range(26, 10, -1))
    model = next(line.split() for line in lines if line.strip().startswith("the model"))
    assert model[2:] == ["yes"] * 11 + ["no"] * 5
    for name in ("ONNX Runtime 1.17", "MagicMind", "OpenVINO", "Core ML through ONNX Runtime", "ncnn"):
        assert any(line.strip().startswith(name) for line in lines)


def test_one_target_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = opset_json(capsys, "roi.onnx", "--target", "coreml")
    (target,) = document["targets"]
    assert (target["target"], target["verdict"]) == ("coreml", "lacks operators")
    assert target["unsupported"][0]["nodes"][0]["source"] == "net.py:41"


def test_page_has_the_matrix_and_fetches_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["opset", "roi.onnx", "--html", "opsets.html"]) == 0
    page = (folder / "opsets.html").read_text()
    assert "written: opsets.html" in capsys.readouterr().err
    for word in ("roi.onnx", "head/RoiAlign", "net.py:41", "OpenVINO", "aligned=False"):
        assert word in page
    assert "<script" not in page
    assert "src=" not in page


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["roi.onnx", "--target", "opnvino"], "nothing is known of target 'opnvino'", 2),
        (["roi.onnx", "--nms", "hard"], "invalid value for '--nms'", 2),
        (["gone.onnx"], "gone.onnx", 1),
        (["roi.onnx", "--html", "nowhere/page.html"], "cannot write 'nowhere/page.html'", 1),
    ],
)
def test_refusals(
    arguments: list[str], message: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["opset", *arguments]) == code
    assert message in capsys.readouterr().err


def test_an_operator_without_a_kernel_is_not_called_ready(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """ONNX Runtime has MaxRoiPool up to opset 21; at 22 it answers NOT_IMPLEMENTED."""
    text = (
        '<ir_version: 10, opset_import: ["" : 22]> g (float[1,1,4,4] x, float[1,5] r) => (float[1,1,2,2] y) '
        "{ y = MaxRoiPool <pooled_shape = [2, 2]> (x, r) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "roi_pool.onnx")
    document = opset_json(capsys, str(tmp_path / "roi_pool.onnx"), "--target", "onnxruntime")
    fit = document["targets"][0]
    assert fit["verdict"] == "ready"
    assert fit["opset"] == 21
    assert fit["lacking_by_opset"]["22"] == 1
    assert fit["lacking_by_opset"]["21"] == 0
