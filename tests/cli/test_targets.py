"""`graphforge targets`: the list, and one target in full, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from graphforge.cli import targets as verb
from graphforge.cli.main import run
from graphforge.targets import get_target, target_names
from graphforge.targets.openvino import OpenVINOTarget
from graphforge.targets.options import declared_options
from graphforge.targets.tensorrt import TensorRTTarget
from tests.cli.command import run_command


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 60 columns."""
    monkeypatch.setattr(verb, "stdout", lambda: Console(width=60, highlight=False))


def test_list_says_what_each_makes_and_why_it_does_not_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRTTarget, "available", lambda self: None)
    monkeypatch.setattr(OpenVINOTarget, "available", lambda self: None)
    monkeypatch.setattr("graphforge.targets.tensorrt.target.gpu_problem", lambda: "the NVIDIA driver sees no GPU")
    assert run(["targets"]) == 0
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert rows == [
        ["onnx", "ONNX file", "yes", "yes"],
        ["tensorrt", "TensorRT plan", "yes", "no"],
        ["magicmind", "MagicMind bundle for Cambricon MLUs", "yes", "no"],
        ["openvino", "OpenVINO model", "yes", "yes"],
    ]
    assert "tensorrt does not run here: the NVIDIA driver sees no GPU; ONNX Runtime runs the ONNX file beside" in said


def test_target_whose_package_is_missing_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRTTarget, "available", lambda self: "it is not installed; pip install tensorrt")
    assert run(["targets"]) == 0
    assert "tensorrt does not work here: it is not installed; pip install tensorrt" in capsys.readouterr().out


def test_target_that_fails_when_asked_is_told_and_the_others_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TensorRTTarget) -> str | None:
        raise OSError("libnvinfer.so.10 is not found")

    monkeypatch.setattr(TensorRTTarget, "available", fail)
    assert run(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["targets"]}
    assert rows["tensorrt"]["cannot_compile"] == "it fails when asked: OSError: libnvinfer.so.10 is not found"
    assert rows["magicmind"]["compiles_here"]


@pytest.mark.parametrize("arguments", [[], *([name] for name in target_names())])
@pytest.mark.usefixtures("narrow")
def test_everything_fits_60_columns(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", *arguments]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 60
    for name in arguments or target_names():
        assert name in said


@pytest.mark.parametrize("name", target_names())
def test_one_target_shows_every_precision_and_option_with_help_and_default(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["targets", name]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    precision, *options = declared_options(get_target(name))
    assert f"{precision.default}  [default]" in said
    for one in precision.values:
        assert {one, f"{one}  [default]"} & set(said)
    for option in options:
        told = said[said.index(f"{option.name} = {option.form}") + 1]
        assert told.startswith(option.help)


def test_one_target_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", "magicmind", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "magicmind"
    assert [one["name"] for one in told["precisions"] if one["default"]] == ["force_float32"]
    archs = next(one for one in told["options"] if one["name"] == "archs")
    assert archs["default"] == ["mtp_372"]
    assert archs["help"] == "chips to build for: MLU370, MLU590, CE3226"
    assert [(one["runtime"], one["newest_opset"]) for one in told["operators"]] == [("MagicMind", 11)]


def test_unknown_target_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    outcome = run_command("targets", "tensort", cwd=tmp_path)
    assert (outcome.code, outcome.error) == (2, "unknown target 'tensort'")
    assert "did you mean 'tensorrt'?" in outcome.notes


def test_help_of_compile_points_here(tmp_path: Path) -> None:
    said = " ".join(run_command("compile", "--help", cwd=tmp_path).stdout.split()).partition(" Options: ")[2]
    for flag, sentence in {
        "--target": "`graphforge targets` lists them",
        "--precision": "`graphforge targets NAME` lists them",
        "--option": "`graphforge targets NAME` lists them",
    }.items():
        assert sentence in said.partition(f" {flag} ")[2].partition(" --")[0]
