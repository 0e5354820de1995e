"""`graphforge lint` on files and bundles: what it prints, the shape of its JSON, its exit codes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from graphforge.cli.main import run
from tests.targets.magicmind.bundles import edit_json, edit_model, static_bundle

FINDING_KEYS = {"rule", "severity", "evidence", "message", "node", "operator", "origin", "file", "fix"}


def cumsum_model(path: Path) -> Path:
    """A running sum at opset 13: refused for the opset and for the operator, which knows its line."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy")
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], name="head/CumSum")
    node.metadata_props.add(key="graphforge.module", value="head")
    node.metadata_props.add(key="graphforge.source", value="net.py:41")
    axis = helper.make_tensor("axis", onnx.TensorProto.INT64, [], [0])
    graph = helper.make_graph([node], "g", [x], [y], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def lint_json(capsys: pytest.CaptureFixture[str], path: Path, code: int) -> Any:
    capsys.readouterr()
    assert run(["lint", str(path), "--target", "magicmind", "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_error_names_rule_evidence_node_origin_and_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = lint_json(capsys, cumsum_model(tmp_path / "model.onnx"), code=1)
    assert document["schema"] == 1
    assert document["summary"] == {"errors": 2, "warnings": 0, "notes": 0}
    opset, operator = document["findings"]
    assert set(opset) == set(operator) == FINDING_KEYS
    assert (opset["rule"], opset["evidence"], opset["node"]) == ("G1", ["documented"], None)
    assert (operator["rule"], operator["node"], operator["operator"]) == ("G7", "head/CumSum", "CumSum")
    assert operator["evidence"] == ["documented", "inferred"]
    assert "net.py:41" in operator["origin"]
    assert operator["fix"]


def test_table_shows_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", str(cumsum_model(tmp_path / "model.onnx")), "--target", "magicmind"]) == 1
    printed = capsys.readouterr().out
    for word in ("G7", "error", "documented", "head/CumSum", "net.py:41", "write it in other", "2 errors, 0 warnings"):
        assert word in printed


def test_origins_of_the_stock_exporter_are_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(cumsum_model(tmp_path / "model.onnx"))
    node = model.graph.node[0]
    del node.metadata_props[:]
    for key, value in (
        ("name_scopes", "['', 'tail', 'cumsum']"),
        ("class_hierarchy", "['Net', 'net.Tail', 'aten.cumsum.default']"),
        ("stack_trace", 'File "net.py", line 77, in forward'),
    ):
        node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    onnx.save(model, tmp_path / "model.onnx")
    operator = lint_json(capsys, tmp_path / "model.onnx", code=1)["findings"][1]
    assert operator["origin"] == "tail (Tail), CumSum, net.py:77"


def test_bundle_without_errors_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    static_bundle(tmp_path)
    document = lint_json(capsys, tmp_path, code=0)
    assert document["summary"]["errors"] == 0


def test_warnings_alone_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    static_bundle(tmp_path)
    edit_model(tmp_path, lambda model: model.opset_import[0].__setattr__("version", 9))
    document = lint_json(capsys, tmp_path / "model.onnx", code=0)
    assert [finding["severity"] for finding in document["findings"]] == ["warning"]


def test_broken_configuration_is_found_in_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    static_bundle(tmp_path)
    edit_json(tmp_path, "build_config.json", lambda config: config.update(archs=["mtp_999"]))
    document = lint_json(capsys, tmp_path, code=1)
    (error,) = [finding for finding in document["findings"] if finding["severity"] == "error"]
    assert (error["rule"], error["file"], error["node"]) == ("C3", "build_config.json", None)


@pytest.mark.parametrize(
    ("arguments", "message", "note", "code"),
    [
        (
            ["model.onnx", "--target", "onnx"],
            "no rules to lint for target 'onnx'",
            "targets with rules: magicmind, tensorrt",
            2,
        ),
        (["model.onnx"], "missing option '--target'", "see `graphforge lint --help`", 2),
        (["gone.onnx", "--target", "magicmind"], "gone.onnx does not exist", "give an ONNX file or", 1),
        (["text.onnx", "--target", "magicmind"], "text.onnx is not an ONNX model", "fetch or export", 1),
        (
            [".", "--target", "magicmind"],
            ". is not a MagicMind bundle",
            "compile it with --target magicmind, or lint ",
            1,
        ),
    ],
)
def test_what_cannot_be_linted_is_refused(
    arguments: list[str],
    message: str,
    note: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("this is no model")
    assert run(["lint", *arguments]) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert f"note: {note}" in said


def test_a_misspelt_target_has_the_nearest_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", str(cumsum_model(tmp_path / "model.onnx")), "--target", "magicmnd"]) == 2
    assert "did you mean 'magicmind'?" in capsys.readouterr().err
    assert run(["lint", str(tmp_path / "model.onnx"), "--target", "openvino"]) == 2
    assert "there are no rules to lint for target 'openvino'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "vendor"), [("model.xml", "OpenVINO"), ("best.engine", "TensorRT"), ("model.magicmind", "MagicMind")]
)
def test_a_file_that_only_a_vendor_runs_has_its_onnx_named(
    name: str, vendor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("theirs")
    assert run(["inspect", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert f"a file of {vendor}, which only that runs: give the model that it was made of" in said
    cumsum_model(tmp_path / "model.onnx")
    assert run(["inspect", str(tmp_path / name)]) == 1
    assert f"give {tmp_path / 'model.onnx'}, which lies beside it" in " ".join(capsys.readouterr().err.split())
