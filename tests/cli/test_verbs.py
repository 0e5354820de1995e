"""Every verb on a small model: what it prints, what it leaves, what `--json` says.  In-process: torch loads once."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from graphforge.cli.main import run

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, width, 3)
        self.bn = torch.nn.BatchNorm2d(width)

    def forward(self, image):
        return self.bn(self.conv(image)).relu()

def build(width=4):
    torch.manual_seed(0)
    return Net(width).eval()

def with_inputs():
    return build(), (torch.randn(1, 3, 8, 8),)

def sequential():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
"""
PASS = '''"""Count the Relu nodes, change nothing."""

from dataclasses import dataclass
from typing import ClassVar

from graphforge import Pass, Rewriter
from graphforge.ir import Graph


@dataclass(frozen=True)
class CountRelu(Pass):
    name: ClassVar[str] = "count-relu"
    least: int = 0

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        found = sum(node.op_type == "Relu" for node in graph)
        assert found >= self.least
'''
X = ("--input", "image:2x3x8x8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "mine.py").write_text(PASS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled bundle and the file it came from, to be read only."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["compile", "net.py:build", *X, "--dynamic", "image:0=1..4", "-o", "out", "--json"]) == 0
    return folder


def _json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


# -- compile -----------------------------------------------------------------------------------------------------------


def test_compile_closes_with_steps_and_outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "net.py:build", *X, "--dynamic", "image:0=1..4,2=6..12/2", "-o", "out/net"]) == 0
    printed = capsys.readouterr().out
    for word in ("capture", "canonicalise", "legalise for onnx", "emit", "verify", "max abs", "max rel", "output"):
        assert word in printed
    assert "verified: out/net/model.onnx" in printed
    assert "image 1x3x" in printed  # batch 1 was tried
    assert sorted(path.name for path in (folder / "out" / "net").iterdir()) == ["manifest.json", "model.onnx"]


def test_json_is_the_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = _json(capsys, "compile", "net.py:with_inputs", "-o", "out/net")
    assert document["path"] == "out/net"
    assert document["manifest"] == json.loads((folder / "out/net/manifest.json").read_text())
    assert document["manifest"]["verification"]["passed"] is True


def test_no_verify_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", "net.py:with_inputs", "--no-verify", "-o", "out"]) == 0
    assert "not verified" in capsys.readouterr().out
    assert json.loads((folder / "out/manifest.json").read_text())["verification"]["passed"] is None


def test_default_output_is_named_after_the_model(folder: Path) -> None:
    assert run(["compile", "net.py:with_inputs", "--no-verify", "--json"]) == 0
    assert (folder / "out" / "net_py_with_inputs" / "model.onnx").is_file()


def test_input_takes_the_parameters_name_by_position(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`Sequential.forward` calls its input `input`; a user may call it anything."""
    document = _json(
        capsys, "compile", "net.py:sequential", "--input", "x:1x3x8x8", "--dynamic", "x:0=1..2", "-o", "out"
    )
    (described,) = document["manifest"]["inputs"]
    assert described["name"] == "input"
    assert described["dynamic"]["0"]["high"] == 2


def test_kwargs_build_another_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = _json(capsys, "compile", "net.py:build", *X, "--kwargs", '{"width": 7}', "-o", "out", "--no-verify")
    assert document["manifest"]["outputs"][0]["shape"] == [2, 7, 6, 6]


def test_checkpoint_is_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    import torch

    torch.save({"weight": torch.full((4, 3, 3, 3), 0.25), "bias": torch.zeros(4)}, folder / "plain.pth")
    state = torch.load(folder / "plain.pth")
    torch.save({"state_dict": {f"0.{name}": tensor for name, tensor in state.items()}}, folder / "w.pth")
    _json(capsys, "compile", "net.py:sequential", "--input", "x:1x3x8x8", "--checkpoint", "w.pth", "-o", "out")
    weights = [onnx.numpy_helper.to_array(item) for item in onnx.load(folder / "out/model.onnx").graph.initializer]
    assert any(weight.shape == (4, 3, 3, 3) and (weight == 0.25).all() for weight in weights)


def test_input_files_are_real_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("RGB", (20, 10), (255, 0, 0)).save(folder / "red.png")
    document = _json(capsys, "compile", "net.py:build", "--input-file", "red.png", "-o", "own-size", "--no-verify")
    assert document["manifest"]["inputs"][0]["shape"] == [1, 3, 10, 20]
    document = _json(
        capsys, "compile", "net.py:build", *X, "--input-file", "red.png", "-o", "given-size", "--no-verify"
    )
    assert document["manifest"]["inputs"][0]["shape"] == [2, 3, 8, 8]
    np.savez(folder / "data.npz", image=np.ones((3, 3, 9, 9), np.float32))
    document = _json(capsys, "compile", "net.py:build", "--input-file", "data.npz", "-o", "npz", "--no-verify")
    assert document["manifest"]["inputs"][0]["shape"] == [3, 3, 9, 9]


def test_picture_becomes_nchw_between_0_and_1(folder: Path) -> None:
    from PIL import Image

    from graphforge.cli.inputs import picture_as_tensor

    Image.new("RGB", (4, 2), (255, 0, 51)).save(folder / "p.png")
    array = picture_as_tensor(folder / "p.png", None)
    assert array.shape == (1, 3, 2, 4)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[0, :, 0, 0], [1.0, 0.0, 0.2], rtol=1e-6)


def test_own_pass_runs_after_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = _json(
        capsys, "compile", "net.py:with_inputs", "--pass", "mine.py:CountRelu", "--check-passes", "-o", "out"
    )
    names = [record["name"] for record in document["manifest"]["passes"]]
    after = names[names.index("count-relu") + 1 :]
    assert after[:5] == [
        "lower-semantic-ops",
        "lower-nms",
        "loop-over-images",
        "sink-dequantize",
        "compute-where-kernels-are",
    ]  # only what the target needs follows


def test_pipeline_places_own_pass_with_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--pass", "mine.py:CountRelu", "--pipeline", "count-relu{least=1},fold-constants")
    document = _json(capsys, "compile", "net.py:with_inputs", *arguments, "-o", "out")
    specs = [record["spec"] for record in document["manifest"]["passes"]]
    assert specs[:2] == ["count-relu{least=1}", "fold-constants"]
    assert specs[2:4] == ["lower-semantic-ops", "lower-nms"]  # only what the target needs follows


def test_bug_in_ones_own_pass_is_told_with_its_line_and_replays(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--pass", "mine.py:CountRelu", "--pipeline", "count-relu{least=9}"]
    assert run(["compile", "net.py:with_inputs", "--dynamic", "image:0=1..4", *arguments, "-o", "out"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith("error: the pass 'count-relu' failed: AssertionError")
    assert re.search(r"note: raised at mine\.py:\d+, in run: assert ", said)
    replay = next(line for line in said.splitlines() if "replay with: " in line)
    assert "the graph in front of count-relu is in " in replay
    assert run(shlex.split(replay.partition("replay with: graphforge ")[2])) == 1
    assert "error: the pass 'count-relu' failed: AssertionError" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_bug_of_a_pass_of_ours_is_exit_3_with_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphforge.passes.fold_constants import FoldConstants

    def crash(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(FoldConstants, "run", crash)
    assert run(["compile", "net.py:with_inputs", "-o", "out"]) == 3
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "error: internal error: InternalError: the pass 'fold-constants' failed: ZeroDivisionError: oh" in said
    assert "note: when reporting it" in said
    replay = next(line for line in said.splitlines() if "replay with: " in line)
    assert run(shlex.split(replay.partition("replay with: graphforge ")[2])) == 3
    assert "the pass 'fold-constants' failed" in capsys.readouterr().err


# -- the other verbs ---------------------------------------------------------------------------------------------------


def test_inspect_shows_origins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "net.py:build", *X, "--level", "captured"]) == 0
    printed = capsys.readouterr().out
    assert "= BatchNormalization" in printed
    assert "net.py:11" in printed
    assert run(["inspect", "net.py:build", *X]) == 0
    assert "= BatchNormalization" not in capsys.readouterr().out  # folded into the convolution


def test_inspect_prints_one_node_a_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from graphforge.ir import HOME_OPSET, from_text
    from graphforge.targets.onnx.target import DEFAULT_OPSET

    path = str(bundle / "out" / "model.onnx")
    assert run(["inspect", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"opset {HOME_OPSET} ({DEFAULT_OPSET} in the file), " in lines[0]
    assert "\x1b" not in "".join(lines)  # not a terminal
    nodes = _json(capsys, "inspect", path)["nodes"]
    assert [line.split(" = ")[1].partition("(")[0] for line in lines if " = " in line] == [one["op"] for one in nodes]
    assert run(["inspect", path, "--full"]) == 0
    full = from_text(capsys.readouterr().out, random_weights=0)
    assert [node.op_type for node in full.graph] == [one["op"] for one in nodes]


@pytest.mark.parametrize("no_color", [False, True])
def test_inspect_on_a_terminal_has_colours_and_keeps_to_its_width(
    no_color: bool, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    assert run(["inspect", str(bundle / "out" / "model.onnx")]) == 0
    printed = capsys.readouterr().out
    assert ("\x1b[1mConv\x1b[0m" in printed) is not no_color
    assert max(len(click.unstyle(line)) for line in printed.splitlines()) <= 70


def test_inspect_reads_a_file_without_inputs(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(bundle / "out" / "model.onnx")]) == 0
    assert "Conv" in capsys.readouterr().out


def test_inspect_one_node(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(bundle / "out" / "model.onnx")
    nodes = _json(capsys, "inspect", path)["nodes"]
    conv = next(node for node in nodes if node["op"] == "Conv")
    assert any(origin["module"] == "conv" for origin in conv["origins"])
    assert run(["inspect", path, "--node", conv["name"]]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{conv['name']}: Conv")
    assert "origin  conv (" in printed
    assert run(["inspect", path, "--node", "nope"]) == 1
    assert "error: there is no node 'nope'" in capsys.readouterr().err


def test_passes_lists_the_order_and_the_text_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    from graphforge.passes import default_pipeline
    from graphforge.transform import Pipeline

    document = _json(capsys, "passes")
    assert [item["name"] for item in document["stages"]["canonical"]] == [item.name for item in default_pipeline()]
    assert Pipeline.parse(document["pipeline"]).spec() == Pipeline(default_pipeline()).spec()
    assert run(["passes"]) == 0
    printed = capsys.readouterr().out
    for item in default_pipeline():
        assert item.name in printed


def test_passes_tells_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["passes", "fold-constants"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("fold-constants\n")
    assert "max_bytes: int  (default" in printed
    assert "example: --pipeline 'fold-constants,eliminate-dead-code'\n\n  g (float[2,3] x) => (float[6] y)\n" in printed
    shown = _json(capsys, "passes", "legalise-opset")["example"]
    assert shown["pipeline"].startswith("legalise-opset{opset=17}")
    assert "Gelu (x)" in shown["before"]
    assert "Gelu (x)" not in shown["after"]


def test_passes_tells_all_about_one_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.py").write_text(PASS)
    assert run(["passes", "mine.py:CountRelu"]) == 0
    assert capsys.readouterr().out == (
        "count-relu\n\nCount the Relu nodes, change nothing.\n\noptions:\n  least: int  (default 0)\n\n"
        "from: mine.py:CountRelu\nruns with: graphforge compile ... --pass mine.py:CountRelu\n"
    )
    document = _json(capsys, "passes", "mine.py")
    assert (document["name"], document["source"]) == ("count-relu", "mine.py")
    assert document["options"] == [{"name": "least", "type": "int", "required": False, "default": 0}]
    assert document["example"] is None
    (folder / "examples").mkdir()
    (folder / "examples" / "count_relu.txt").write_text(
        "count-relu\n\ng (float x) => (float x) {}\n\n==>\n\nthe same\n"
    )
    assert run(["passes", "mine.py"]) == 0
    assert "  g (float x) => (float x) {}\n\n  ==>\n\n  the same\n" in capsys.readouterr().out
    assert run(["passes", "mine.py:Nope"]) == 2
    assert "passes in mine.py: CountRelu" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 60, 80, 110, 130])
def test_names_of_passes_are_never_broken(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphforge.transform import default_registry

    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["passes"]) == 0
    words = click.unstyle(capsys.readouterr().out).split()
    assert set(default_registry().names()) <= set(words)


def test_every_pass_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    document = _json(capsys, "passes")
    for item in [*document["stages"]["canonical"], *document["available"]]:
        assert item["summary"], item["name"]


def test_diff_marks_the_first_departure(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    arguments = ("diff", str(bundle / "net.py") + ":build", *X)
    assert _json(capsys, *arguments, "--against", str(bundle / "out/model.onnx"))["first_departure"] is None
    model = onnx.load(bundle / "out" / "model.onnx")
    weight = next(item for item in model.graph.initializer if len(item.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(model, bundle / "edited.onnx")
    document = _json(capsys, *arguments, "--against", str(bundle / "edited.onnx"), code=1)
    assert document["first_departure"] is not None


def test_diff_takes_a_file_or_a_bundle_as_the_reference(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for reference in (bundle / "out/model.onnx", bundle / "out"):
        assert _json(capsys, "diff", str(reference), *X, "--against", str(bundle / "out"))["agrees"] is True


def test_opset_answers_for_file_and_model(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_file = _json(capsys, "opset", str(bundle / "out/model.onnx"))
    of_model = _json(capsys, "opset", str(bundle / "net.py") + ":build", *X)
    assert of_file["lowest"] == of_model["lowest"] <= of_file["opset"]


def test_profile_measures_both_sides_where_the_model_is_given(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ("--runs", "5", "--warmup", "1")
    both = _json(capsys, "profile", str(bundle / "out"), f"{bundle}/net.py:build", *runs)
    assert [row["name"] for row in both["latency"]] == ["eager", "onnxruntime"]
    alone = _json(capsys, "profile", str(bundle / "out"), *runs)
    assert [row["name"] for row in alone["latency"]] == ["onnxruntime"]
    assert run(["profile", str(bundle / "out"), *X]) == 2
    assert "--input is about MODEL" in capsys.readouterr().err
