"""Deploy configs in TOML: bases, presets, what is refused and with which words; the command line takes precedence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphforge.deploying import preset_names, preset_text, read_deploy_config
from graphforge.errors import GraphForgeError
from graphforge.targets import get_target, options_for
from tests.cli.command import run_command


def written(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_a_file_goes_over_its_bases(tmp_path: Path) -> None:
    written(tmp_path, "one.toml", '[compile]\ntarget = "tensorrt"\nopset = 17\n[compile.options]\ntf32 = false\n')
    two = written(
        tmp_path,
        "two.toml",
        'about = "mine"\nbase = ["one.toml"]\n[compile]\nopset = 18\n[compile.options]\noptimization_level = 3\n'
        "[inputs.x]\nshape = [1, 3, 64, 96]\nmax = [4, 3, 64, 96]\n",
    )
    read = read_deploy_config(two)
    assert (read.target, read.opset, read.about) == ("tensorrt", 18, "mine")
    assert read.options == {"tf32": "false", "optimization_level": "3"}
    assert {axis: (dim.low, dim.high) for axis, dim in read.dynamic()["x"].items()} == {0: (1, 4)}
    assert read.arguments()["inputs"].inputs[0].shape == (1, 3, 64, 96)


@pytest.mark.parametrize("name", sorted(preset_names()))
def test_every_preset_asks_for_what_its_target_has(name: str) -> None:
    read = read_deploy_config(name)
    assert read.about
    assert preset_text(name).startswith("about")
    assert read.target is not None
    options_for(get_target(read.target), opset=read.opset, precision=read.precision, own=read.options)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[compil]\n", r"unknown key 'compil'\n.*did you mean 'compile'"),
        ("[compile]\nopest = 17\n", r"unknown key 'compile.opest'\n.*did you mean 'opset'"),
        ('[compile]\nopset = "17"\n', "compile.opset: expected a whole number"),
        ("[inputs.x]\nmin = [1]\n", "inputs.x has no shape"),
        ("[inputs.x]\nshape = [1, 3]\nmax = [4]\n", "differ in how many axes"),
        ("[inputs.x]\nshape = [5, 3]\nmax = [4, 3]\n", r"size 5 of axis 0 is not inside 5..4"),
        ("[inputs.x]\nsize = [5, 3]\n", "unknown key 'inputs.x.size'"),
        ('base = ["it.toml"]\n', "builds on itself"),
        ('base = ["pose-detection_simc_onnxruntime_dynamic"]\n', "did you mean pose-detection_simcc_onnxruntime"),
        ("compile = 3\n", "compile: expected an object"),
        ("a = \n", "is not TOML"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=told):
        read_deploy_config(written(tmp_path, "it.toml", text))


def test_a_file_of_mmdeploy_needs_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GraphForgeError, match="mmengine is not installed"):
        read_deploy_config(written(tmp_path, "it.py", "onnx_config = dict()\n"))


def test_the_command_line_takes_precedence(tmp_path: Path) -> None:
    config = written(
        tmp_path, "it.toml", '[compile]\ntarget = "tensorrt"\nopset = 17\n[inputs.x]\nshape = [1, 3, 32, 32]\n'
    )
    model = written(tmp_path, "net.py", "import torch\n\ndef build():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    common = [f"{model}:build", "--deploy-config", config, "--dry-run", "--json"]
    planned = json.loads(run_command("compile", *common, cwd=tmp_path).stdout)
    assert (planned["target"], planned["opset"]) == ("tensorrt", 17)
    planned = json.loads(run_command("compile", *common, "--target", "onnx", "--opset", "18", cwd=tmp_path).stdout)
    assert (planned["target"], planned["opset"]) == ("onnx", 18)


def test_a_config_is_compiled(tmp_path: Path) -> None:
    config = written(
        tmp_path, "it.toml", "[compile]\nopset = 17\n[inputs.x]\nshape = [1, 3, 8, 8]\nmax = [3, 3, 8, 8]\n"
    )
    model = written(tmp_path, "net.py", "import torch\n\ndef build():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    done = run_command(
        "compile", f"{model}:build", "--deploy-config", config, "-o", str(tmp_path / "out"), "--json", cwd=tmp_path
    )
    manifest: dict[str, Any] = json.loads(done.stdout)["manifest"]
    assert manifest["target"]["opset"] == 17
    assert manifest["deploy_config"] == config
    assert manifest["inputs"][0]["dynamic"]["0"]["high"] == 3
    assert manifest["verification"]["verdict"] == "passed"


def test_presets_are_listed_and_printed(tmp_path: Path) -> None:
    assert set(json.loads(run_command("presets", "--json", cwd=tmp_path).stdout)) == set(preset_names())
    name = "pose-detection_simcc_onnxruntime_dynamic"
    assert run_command("presets", name, cwd=tmp_path).stdout == preset_text(name)
