"""The verbs as functions: they take what compile takes, say what the command line says, and show what they return."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import graphforge
from graphforge.cli.main import run as command_line
from graphforge.errors import GraphForgeError, UsageError
from graphforge.shown import Shown

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(self.conv(image).relu().mean((2, 3)))


def build():
    torch.manual_seed(0)
    return Net().eval()
"""
INPUT = "image:2x3x8x8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's file and a bundle made of it from Python, to be read only."""
    folder = tmp_path_factory.mktemp("verbs")
    (folder / "net.py").write_text(NET)
    graphforge.compile(f"{folder}/net.py:build", INPUT, dynamic_shapes="image:0=1..4", output=folder / "out")
    return folder


@pytest.fixture
def model(folder: Path) -> str:
    return f"{folder}/net.py:build"


def reports(folder: Path) -> dict[str, Callable[[], Any]]:
    model, bundle = f"{folder}/net.py:build", graphforge.Bundle.open(folder / "out")
    image = np.ones((2, 3, 8, 8), np.float32)
    return {
        "bisect": lambda: graphforge.bisect(model, INPUT),
        "bundle": lambda: bundle,
        "diff": lambda: graphforge.diff(model, bundle, INPUT),
        "inspect": lambda: graphforge.inspect(model, INPUT),
        "lint": lambda: graphforge.lint(bundle.path / "model.onnx"),
        "opset": lambda: graphforge.opset(bundle.path / "model.onnx", target="onnxruntime"),
        "profile": lambda: graphforge.profile(bundle, runs=2, warmup=0),
        "report": lambda: graphforge.report(bundle),
        "run": lambda: graphforge.run(bundle, image),
    }


@pytest.mark.parametrize("name", ["bisect", "bundle", "diff", "inspect", "lint", "opset", "profile", "report", "run"])
def test_what_a_verb_returns_shows_itself(name: str, folder: Path) -> None:
    report = reports(folder)[name]()
    assert isinstance(report, Shown)
    assert repr(report).startswith(f"<{type(report).__name__}: ")
    assert "\n" not in repr(report)
    assert len(repr(report)) < 300
    assert report._repr_html_().startswith(("<pre", "<iframe"))
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(report)
    said = Console(record=True, width=100, file=io.StringIO())
    report.render(said)
    assert console.export_text().split() == said.export_text().split()


def test_a_bundle_says_path_target_and_how_close(folder: Path) -> None:
    bundle = graphforge.Bundle.open(folder / "out")
    assert repr(bundle).startswith(f"<Bundle: {folder}/out for onnx, verified, max rel ")
    assert Path(bundle) == bundle.path
    with pytest.raises(GraphForgeError, match="is not a bundle"):
        graphforge.Bundle.open(folder)


def test_a_bundle_runs_and_reports(folder: Path) -> None:
    bundle = graphforge.Bundle.open(folder / "out")
    image = torch.ones(3, 3, 8, 8)
    result = bundle.run(image)
    assert list(result) == ["output"]
    expected = graphforge.load_model(f"{folder}/net.py:build").module
    assert expected is not None
    np.testing.assert_allclose(result["output"], expected(image).detach().numpy(), rtol=1e-4, atol=1e-6)
    assert bundle.run({"image": image.numpy()})["output"].shape == (3, 2)
    page = bundle.report()
    assert page.path == folder / "out/report.html"
    assert 'srcdoc="&lt;!' in page._repr_html_()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(9, 3, 8, 8), "input 'image': expected"),
        ({"x": torch.ones(1, 3, 8, 8)}, "the bundle has no input 'x'"),
        ((torch.ones(1, 3, 8, 8), torch.ones(2)), "2 inputs are given, but the bundle takes 1: image"),
        ("absent.png", "input file 'absent.png' does not exist"),
        (object(), "inputs: expected an array, a tensor or a file, got object"),
    ],
)
def test_inputs_that_do_not_fit_a_bundle_are_told(inputs: Any, message: str, folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        graphforge.run(folder / "out", inputs)
    assert caught.value.message.startswith(message)


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    command_line([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_python_and_the_command_line_say_the_same(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = str(folder / "out")
    np.save(tmp_path / "image.npy", np.ones((2, 3, 8, 8), np.float32))
    asked: dict[tuple[str, ...], Shown] = {
        ("bisect", model, "--input", INPUT): graphforge.bisect(model, INPUT),
        ("diff", model, "--input", INPUT, "--against", bundle): graphforge.diff(model, bundle, INPUT),
        ("inspect", model, "--input", INPUT): graphforge.inspect(model, INPUT),
        ("lint", f"{bundle}/model.onnx", "--target", "magicmind"): graphforge.lint(f"{bundle}/model.onnx"),
        ("opset", model, "--input", INPUT): graphforge.opset(model, INPUT),
        ("report", bundle): graphforge.report(bundle),
        ("run", bundle, "--input", f"{tmp_path}/image.npy"): graphforge.run(bundle, tmp_path / "image.npy"),
    }
    for arguments, report in asked.items():
        assert _said(capsys, *arguments) == json.loads(json.dumps(report.to_dict())), arguments


def test_diff_takes_bundle_folder_or_file(folder: Path, model: str) -> None:
    bundle = graphforge.Bundle.open(folder / "out")
    against: list[Any] = [bundle, folder / "out", str(folder / "out/model.onnx")]
    assert [graphforge.diff(model, one, INPUT).agrees for one in against] == [True, True, True]
    with pytest.raises(UsageError, match="file 'absent' does not exist"):
        graphforge.diff(model, "absent", INPUT)


def test_inspect_answers_for_a_node_and_refuses_strange_names(folder: Path) -> None:
    file = folder / "out/model.onnx"
    lines = str(graphforge.inspect(file, node="output")).splitlines()
    assert lines[0].endswith(": Gemm")
    assert any("net.py:13" in line for line in lines)
    with pytest.raises(GraphForgeError, match="there is no node 'outptu'") as caught:
        graphforge.inspect(file, node="outptu")
    assert "did you mean output?" in caught.value.notes
    with pytest.raises(UsageError, match="there is no level 'lowered'"):
        graphforge.inspect(file, level="lowered")


def test_inspect_shows_modules_from_python_as_on_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = f"{folder}/out/model.onnx"
    found = graphforge.inspect(file, summary=True, depth=1)
    assert found.modules is not None
    assert {"conv", "head"} <= {row.module for row in found.modules.rows}
    assert "by module" in found._repr_html_()
    assert _said(capsys, "inspect", file, "--summary", "--depth", "1") == json.loads(json.dumps(found.to_dict()))


def test_profile_measures_the_model_only_where_it_is_given(tmp_path: Path) -> None:
    model, x = torch.nn.Linear(4, 2), torch.ones(1, 4)
    bundle = graphforge.compile(model, x, output=tmp_path / "out")
    assert [row.name for row in graphforge.profile(bundle, runs=2, warmup=0).rows] == ["onnxruntime"]
    assert [row.name for row in graphforge.profile(bundle, model, runs=2, warmup=0).rows] == ["eager", "onnxruntime"]


def test_importing_graphforge_imports_nothing_heavy() -> None:
    code = "import sys, graphforge; print({'torch', 'onnx', 'onnx_ir', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["bisect", "compile", "diff", "inspect", "lint", "opset", "profile", "report", "run"])
def test_verbs_are_public_and_documented(name: str) -> None:
    function = getattr(graphforge, name)
    assert name in graphforge.__all__
    assert callable(function)
    assert "Args:" in function.__doc__
    assert "Raises:" in function.__doc__


def test_opset_that_is_not_a_number_is_told_with_the_arguments_name(model: str, tmp_path: Path) -> None:
    for call in (
        lambda: graphforge.compile(model, INPUT, opset="17", output=tmp_path / "out"),  # type: ignore[arg-type]
        lambda: graphforge.inspect(model, INPUT, level="legal", opset="17"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match="opset: expected a whole number, got str '17'"):
            call()
    assert not (tmp_path / "out").exists()


FLOW = """
import torch


def signed(x):
    return x if float(x.sum()) > 0 else -x


class Net(torch.nn.Module):
    def forward(self, x):
        return signed(x * 2)


def build():
    return Net()
"""


def test_verbs_take_declarations_that_end_with_the_call(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    model = f"{tmp_path}/flow.py:build"
    mine = [graphforge.Substitution("flow.py:signed", lambda x: torch.where(x.sum() > 0, x, -x))]
    bundle = graphforge.compile(model, "x:2x3", substitutes=mine, output=tmp_path / "out")
    assert graphforge.inspect(model, "x:2x3", substitutes=mine).to_dict()["nodes"]
    assert graphforge.bisect(model, "x:2x3", substitutes=mine).clean
    assert graphforge.opset(model, "x:2x3", target="onnxruntime", substitutes=mine).matrix is not None
    assert graphforge.diff(model, bundle, "x:2x3", substitutes=mine).agrees
    with pytest.raises(GraphForgeError, match="could not be captured"):
        graphforge.inspect(model, "x:2x3")


def test_a_bundle_is_a_model_like_its_file(tmp_path: Path) -> None:
    bundle = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(1, 3), output=tmp_path / "out")
    assert graphforge.inspect(bundle).to_dict() == graphforge.inspect(tmp_path / "out" / "model.onnx").to_dict()
    assert graphforge.opset(tmp_path / "out", target="onnxruntime").matrix is not None
    again = graphforge.compile(tmp_path / "out", output=tmp_path / "again", opset=17)
    assert again.manifest["verification"]["passed"]
    (tmp_path / "out" / "model.onnx").unlink()
    with pytest.raises(GraphForgeError, match="contains no ONNX file"):
        graphforge.inspect(tmp_path / "out")


class Nested(torch.nn.Module):
    """Takes tensors inside tuples and dicts."""

    def forward(self, x: torch.Tensor, more: dict[str, list[torch.Tensor]]) -> torch.Tensor:
        return x + more["pair"][0] * 2 - more["pair"][1]


def test_a_bundle_takes_nested_inputs_as_its_model_does(tmp_path: Path) -> None:
    x, one, two = torch.randn(3, 4).unbind(0)
    bundle = graphforge.compile(Nested(), (x, {"pair": [one, two]}), output=tmp_path / "out")
    expected = (x + one * 2 - two).numpy()
    for inputs in (
        (x, {"pair": [one, two]}),
        {"x": x, "more": {"pair": [one, two]}},
        {"x": x, "more.pair.0": one, "more.pair.1": two},
    ):
        np.testing.assert_allclose(bundle.run(inputs)["output"], expected, rtol=1e-6)


untyped: Any = graphforge  # what a type checker would refuse is what is tried here

WRONG: dict[str, tuple[Callable[[str, Any], Any], str, str]] = {
    "sizes for inputs": (
        lambda model, _: untyped.compile(model, (2, 3, 8, 8)),
        "expected tensors, or text that describes them, got the sizes (2, 3, 8, 8)",
        "inputs='x:2x3x8x8'",
    ),
    "a class for a model": (
        lambda *_: untyped.compile(torch.nn.Linear, INPUT),
        "expected a model, got the class Linear",
        "make one of it: Linear()",
    ),
    "a pass's text": (
        lambda model, _: untyped.compile(model, INPUT, passes=["mine.py:Mine"]),
        "a pipeline is made of passes, got 'mine.py:Mine'",
        "load_pass_from_file",
    ),
    "a class of a pass": (
        lambda model, _: untyped.compile(model, INPUT, passes=[graphforge.Pass]),
        "a pipeline is made of passes, got the class Pass",
        "make one of it: Pass()",
    ),
    "a pass that is in no list": (
        lambda model, _: untyped.compile(model, INPUT, passes="mine.py:Mine"),
        "passes: expected a list of passes, got 'mine.py:Mine'",
        "passes=[...]",
    ),
    "what compile calls the target of opset": (
        lambda model, _: untyped.opset(model, INPUT, target="onnx"),
        "nothing is known of target 'onnx'",
        "here a target is what runs the file: onnxruntime for most",
    ),
    "inputs before the bundle": (
        lambda model, bundle: untyped.diff(model, np.ones(3), bundle),
        "against: expected a bundle, a path or a model, got ndarray",
        "the order is diff(model, bundle, inputs)",
    ),
    "a number for a picture": (
        lambda *_: untyped.pipeline("a", "b", 5),
        "source: expected a picture, a video, or a folder of pictures, got int",
        "the order is pipeline(detector, pose, source)",
    ),
    "a summary of one node": (
        lambda model, _: untyped.inspect(model, INPUT, node="conv", summary=True),
        "node='conv': the summary is about modules, not about one node",
        "leave one of the two out",
    ),
    "the depth of a graph": (
        lambda model, _: untyped.inspect(model, INPUT, depth=1),
        "depth=1 is about modules",
        "ask for them: summary=True",
    ),
    "no runs": (lambda _, bundle: untyped.profile(bundle, runs=0), "runs=0", "at least one timed run"),
    "a word for a switch": (
        lambda model, _: untyped.compile(model, INPUT, verify="no"),
        "verify: expected True or False, got 'no'",
        "",
    ),
    "a word for a seed": (
        lambda model, _: untyped.compile(model, INPUT, seed="a"),
        "seed: expected a whole number >= 0, got 'a'",
        "",
    ),
    "a negative seed": (
        lambda model, _: untyped.compile(model, INPUT, seed=-1),
        "seed: expected a whole number >= 0, got -1",
        "",
    ),
    "a negative seed for another verb": (
        lambda model, _: untyped.inspect(model, INPUT, level="captured", seed=-1),
        "seed: expected a whole number >= 0, got -1",
        "",
    ),
    "a name for an instrument": (
        lambda model, _: untyped.compile(model, INPUT, instruments=["fold-constants"]),
        "'fold-constants' is not an instrument",
        "as PrintAfter has",
    ),
    "an axis that is not there": (
        lambda model, _: untyped.compile(model, INPUT, dynamic_shapes={"image": {4: (1, 8)}}),
        "input 'image' has 4 dims, so axis 4 does not exist",
        "its last one is 3",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_typical_mistakes_are_told_with_a_way_out(name: str, folder: Path) -> None:
    call, message, way_out = WRONG[name]
    with pytest.raises(GraphForgeError) as failure:
        call(f"{folder}/net.py:build", graphforge.Bundle.open(folder / "out"))
    assert message in failure.value.message
    assert way_out.format(folder=folder) in str(failure.value)


def test_diff_with_a_bundle_of_another_model_says_which_inputs_each_takes(folder: Path, tmp_path: Path) -> None:
    other = graphforge.compile(
        torch.nn.Sequential(torch.nn.Embedding(9, 4)),
        (torch.zeros(2, 3, dtype=torch.int64),),
        output=tmp_path / "other",
    )
    with pytest.raises(GraphForgeError) as failure:
        graphforge.diff(f"{folder}/net.py:build", other, INPUT)
    assert failure.value.notes[-1] == "the file takes input, the model image: was it compiled from this model?"
