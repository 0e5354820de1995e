"""`scripts/replay`: the same code gives the same hashes wherever it lies, and a change is found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from scripts.replay import Difference, _recorded, _validity, bundle_facts, compare, differences
from tests.cli.command import LONGEST_SECONDS

ROOT = Path(__file__).resolve().parents[1]
REPLAY = ROOT / "scripts" / "replay.py"
TINY = "=opset/GroupNorm-and-Mish/17"


def _record(file: Path, root: Path) -> dict[str, Any]:
    command = [sys.executable, str(REPLAY), "record", str(file), "--root", str(root), "--only", TINY]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
    recording: dict[str, Any] = json.loads(file.read_text())
    return recording


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _record(tmp_path_factory.mktemp("replay") / "here.json", ROOT)


def _copy(folder: Path) -> Path:
    for name in ("graphforge", "passes", "ops", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_another_folder_gives_the_same_file_and_another_compiler_is_noticed(
    here: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = _copy(tmp_path / "a checkout elsewhere")
    source = elsewhere / "graphforge" / "__init__.py"
    source.write_text(source.read_text().replace('__version__ = "', '__version__ = "9.'))
    after = _record(tmp_path / "after.json", elsewhere)

    same, (changed,) = differences(here, after)
    assert same == 1  # model.onnx, although its nodes name files of another folder
    assert changed.kind == "changed"
    assert changed.text.startswith("manifest.json: ")
    assert changed.text.endswith("; differs in graphforge")
    assert compare(here, after) == 1
    assert "1 files the same, 1 changed" in capsys.readouterr().out


def test_nothing_was_compiled_by_accident(here: dict[str, Any]) -> None:
    assert here["wanted"] == 1
    (facts,) = here["artifacts"].values()
    assert sorted(facts["files"]) == ["manifest.json", "model.onnx"]
    model = facts["files"]["model.onnx"]
    assert model["nodes"] == sum(model["operators"].values()) > 20
    assert model["bytes"] > 100_000


def _model(*operators: str, bias: float = 1.0, source: str = "/home/me/project/net.py:3") -> onnx.ModelProto:
    nodes = [onnx.helper.make_node(op, [f"v{n}", "b"], [f"v{n + 1}"]) for n, op in enumerate(operators)]
    for node in nodes:
        node.metadata_props.add(key="graphforge.source", value=source)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "main",
        [value("v0", onnx.TensorProto.FLOAT, [1])],
        [value(f"v{len(operators)}", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, [1], [bias])],
    )
    return onnx.helper.make_model(graph)


def _recording(folder: Path, model: onnx.ModelProto | None, *, checkout: str = "/home/me/project") -> dict[str, Any]:
    folder.mkdir(parents=True)
    if model is None:
        facts: dict[str, Any] = {"error": "error: ValueError: no"}
    else:
        onnx.save(model, folder / "model.onnx")
        facts = {"files": bundle_facts(folder, {checkout: "<checkout>"})}
    return {"wanted": 1, "commit": "1234567", "versions": {}, "artifacts": {"net": facts}}


def _only(before: dict[str, Any], after: dict[str, Any]) -> Difference:
    same, (found,) = differences(before, after)
    assert same == 0
    return found


def test_operators_are_counted_before_and_after(tmp_path: Path) -> None:
    before = _recording(tmp_path / "1", _model("Add", "Mul", "Mul"))
    found = _only(before, _recording(tmp_path / "2", _model("Add", "Mul", "Sub", "Sub")))
    assert found.kind == "changed"
    assert "3 -> 4 nodes: Mul 2 -> 1, Sub 0 -> 2" in found.text


def test_a_weight_is_told_from_a_node(tmp_path: Path) -> None:
    found = _only(_recording(tmp_path / "1", _model("Add")), _recording(tmp_path / "2", _model("Add", bias=2.0)))
    assert found.kind == "changed"
    assert found.text.endswith("1 nodes, operators as before; differs in weights")


def test_the_folder_of_the_checkout_is_no_difference(tmp_path: Path) -> None:
    before = _recording(tmp_path / "1", _model("Add"))
    after = _recording(tmp_path / "2", _model("Add", source="/tmp/x/net.py:3"), checkout="/tmp/x")
    assert differences(before, after) == (1, [])
    assert compare(before, after) == 0


def test_a_line_of_the_checkout_that_moved_is_said_but_no_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _recording(tmp_path / "1", _model("Add"))
    after = _recording(tmp_path / "2", _model("Add", source="/home/me/project/other/net.py:4"))
    assert _only(before, after).kind == "moved"
    assert compare(before, after) == 0
    assert "0 files the same, 1 moved" in capsys.readouterr().out


def test_a_line_of_a_package_is_a_change(tmp_path: Path) -> None:
    before = _recording(tmp_path / "1", _model("Add", source="/usr/lib/vendor.py:3"))
    found = _only(before, _recording(tmp_path / "2", _model("Add", source="/usr/lib/vendor.py:4")))
    assert found.kind == "changed"
    assert found.text.endswith("differs in metadata")


def test_what_no_longer_compiles_is_a_change(tmp_path: Path) -> None:
    before, after = _recording(tmp_path / "1", _model("Add")), _recording(tmp_path / "2", None)
    assert _only(before, after) == Difference("net", "changed", "compiles -> error: ValueError: no")
    assert compare(before, after) == 1
    assert compare(after, after) == 0


def test_what_is_only_in_one_is_listed(tmp_path: Path) -> None:
    recording = _recording(tmp_path / "1", _model("Add"))
    assert _only(recording, {**recording, "artifacts": {}}).kind == "only before"
    assert _only({**recording, "artifacts": {}}, recording).kind == "only after"
    assert compare(recording, {**recording, "artifacts": {}}) == 1


def test_a_bundle_that_names_the_hash_of_a_moved_file_is_the_same(tmp_path: Path) -> None:
    import hashlib

    found = []
    for number, source in enumerate(["/home/me/project/net.py:3", "/home/me/project/net.py:4"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        onnx.save(_model("Add", source=source), folder / "model.onnx")
        digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        (folder / "bundle.json").write_text(json.dumps({"sha256": digest, "note": f"see {source}"}))
        found.append(bundle_facts(folder, {"/home/me/project": "<checkout>"}))
    assert found[0]["bundle.json"] == found[1]["bundle.json"]
    assert found[0]["model.onnx"]["sha256"] != found[1]["model.onnx"]["sha256"]


def test_a_recording_goes_on_only_with_the_same_code(tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    assert _recorded(file, "1234567", {}) == {}
    done, failed = _recording(tmp_path / "1", _model("Add")), _recording(tmp_path / "2", None)
    file.write_text(json.dumps(done))
    assert _recorded(file, "1234567", {}) == done["artifacts"]
    for commit, versions in (("7654321", {}), ("1234567", {"torch": "3"})):
        with pytest.raises(SystemExit, match="other code or packages"):
            _recorded(file, commit, versions)
    file.write_text(json.dumps({**done, "commit": "1234567 with changes"}))
    with pytest.raises(SystemExit, match="with changes"):
        _recorded(file, "1234567 with changes", {})
    file.write_text(json.dumps(failed))
    assert _recorded(file, "1234567", {}) == {}  # tried again


def test_a_file_that_onnx_does_not_take_is_named(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"], alpha=0.1)
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y"))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y])), tmp_path / "model.onnx")
    said = _validity({"zoo/bad": {"files": bundle_facts(tmp_path, {})}, "zoo/none": {"error": "no"}})
    assert said.startswith(
        "onnx.checker in full: 1 ONNX files, 1 refused\n  zoo/bad/model.onnx: Unrecognized attribute"
    )
