"""An exception in the user's code is told with the exception and the line in their own file, never as a bug of ours."""

from __future__ import annotations

import gc
import re
import shlex
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError, UserCodeError, VerificationError
from graphforge.ir import from_text
from graphforge.transform import Pipeline, load_pass_from_file
from graphforge.user_code import place_here, place_of

PASS = """
from dataclasses import dataclass
from typing import ClassVar
from graphforge.transform import Pass, Rule

class ClipToRelu(Rule):
    def pattern(self, op, x):
        return op.Clip(x, 0.0)
    def check(self, m):
        return m
    def rewrite(self, op, m):
        return op.Relu(m.x)

@dataclass(frozen=True)
class UseRelu(Pass):
    name: ClassVar[str] = "use-relu"
    def run(self, graph, rewriter):
        rewriter.apply(ClipToRelu(), graph)
"""
NET = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        return helper(x)
def helper(x):
    return torch.clamp(x, min=0.0) + 1
def build():
    return Net().eval(), torch.ones(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clip() -> ir.Model:
    return from_text(
        '<ir_version: 10, opset_import: ["" : 26]> g (float[3] x) => (float[3] y) <float zero = {0}> '
        "{ a = Clip(x, zero) y = Neg(a) }"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "message", "where"),
    [
        ("op.Clip(x, 0.0)", "op.Clip(x, nothing)", "NameError: name 'nothing'", r"mine.py:8, in pattern: return op"),
        ("        return m\n", "        return m.absent\n", "AttributeError", r"mine.py:10, in check: return m.absent"),
        ("op.Relu(m.x)", "op.Relu(m.x[7])", "TypeError", r"mine.py:12, in rewrite: return op.Relu\(m.x\[7\]\)"),
        ("op.Relu(m.x)", "op.Relu('x', 3j)", "", r"mine.py:12, in rewrite: return op.Relu\('x', 3j\)"),
        ("ClipToRelu(), graph", "3, graph", "", r"mine.py:18, in run: rewriter.apply\(3, graph\)"),
        ("return op.Clip(x, 0.0)", "return x", "ClipToRelu: the pattern must end", "mine.py:18, in run"),
    ],
)
def test_a_pass_and_its_rules(folder: Path, right: str, wrong: str, message: str, where: str) -> None:
    assert right in PASS
    Path("mine.py").write_text(PASS.replace(right, wrong))
    with pytest.raises(UserCodeError) as caught:
        Pipeline([load_pass_from_file("mine.py:UseRelu")()]).run(clip())
    assert caught.value.message.startswith(f"the pass 'use-relu' failed: {message}")
    assert re.match(f"raised at {where}", caught.value.notes[0])


def test_a_pass_file_that_does_not_load(folder: Path) -> None:
    Path("mine.py").write_text(PASS + "\nthis_is_missing\n")
    with pytest.raises(UserCodeError, match=r"raised at mine.py:20: this_is_missing"):
        load_pass_from_file("mine.py")
    Path("mine.py").write_text(PASS + "\nclass\n")
    with pytest.raises(UserCodeError, match=r"SyntaxError.*\n.*raised at mine.py:20: class"):
        load_pass_from_file("mine.py")
    Path("mine.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UserCodeError, match=r"it ends the process"):
        load_pass_from_file("mine.py")


@pytest.mark.parametrize("where", ["mine.py", "net.py"])
def test_what_ends_the_process_is_no_success(folder: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    ends = {"mine.py": (PASS, "rewriter.apply"), "net.py": (NET, "return helper")}
    for name, (text, _) in ends.items():
        Path(name).write_text(text)
    text, line = ends[where]
    assert line in text
    Path(where).write_text(text.replace(line, f"raise SystemExit(0); {line}", 1))
    assert run(["compile", "net.py:build", "--pass", "mine.py:UseRelu", "-o", "out"]) == 1
    said = capsys.readouterr().err
    assert "error: the run was ended from within: SystemExit: 0" in said
    assert f"note: raised at {where}:" in said
    assert not Path("out").exists()


def test_a_model_file_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "import torch": ("import torch, absent_package", "ModuleNotFoundError", "net.py:2: import torch, absent"),
        "Net().eval()": ("Net().evil()", "AttributeError", r"net.py:9, in build: return Net\(\).evil"),
        "torch.clamp": ("torch.clomp", "AttributeError", r"net.py:7, in helper: return torch.clomp"),
        "(x, min=0.0)": ("(x, min=0.0).reshape(2, 2)", "RuntimeError", r"net.py:7, in helper: return torch.clamp"),
    }
    for right, (wrong, kind, where) in cases.items():
        Path("net.py").write_text(NET.replace(right, wrong, 1))
        assert run(["compile", "net.py:build", "-o", "out"]) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert kind in said
        assert re.search(f"note: raised at {where}", said), said


def test_a_model_that_fails_on_other_inputs_while_it_is_verified(folder: Path) -> None:
    class Shy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._check(x.shape[0] > 0)
            return x if torch.compiler.is_exporting() else x.view(-1, 2)

    with pytest.raises(GraphForgeError, match=r"raised at .*test_user_code.py:\d+, in forward: return x if"):
        graphforge.compile(Shy().eval(), torch.ones(3, 3), output="out")


def test_frames_of_installed_packages_are_told_when_there_is_nothing_nearer() -> None:
    import json

    def mine() -> None:
        json.loads("{")

    with pytest.raises(json.JSONDecodeError) as caught:
        mine()
    assert re.fullmatch(r"raised at .*test_user_code.py:\d+, in mine: json.loads\(\"\{\"\)", place_of(caught.value))
    with pytest.raises(json.JSONDecodeError) as direct:
        json.loads("{")
    assert direct.tb is not None
    error = direct.value.with_traceback(direct.tb.tb_next)
    assert re.match(r"raised at .*json/decoder.py:\d+, in raw_decode: ", place_of(error))


OPERATOR = """
import graphforge
import torch

@torch.library.custom_op("gf_user_code::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@twice.register_fake
def _(x):
    return torch.empty_like(x)

graphforge.custom_op(
    "gf_user_code::Twice", inputs=["x"], outputs=["y"], shapes=lambda inputs, attributes: [inputs[0]],
    function=lambda x: x * 2, torch_name="gf_user_code::twice",
)
"""
NEEDY = """
import torch
def pick(x):
    kept = [row for row in x if float(row.sum()) > 0.5]
    return torch.stack(kept)
class Net(torch.nn.Module):
    def forward(self, x):
        return torch.ops.gf_user_code.twice(pick(x))
def build():
    torch.manual_seed(0)
    return Net().eval(), torch.rand(4, 3)
"""
SUBSTITUTE = """
import graphforge
@graphforge.substitute("needy.pick")
def picked(x):
    return x[x.sum(1) > 0.5]
"""


def test_files_of_declarations_on_the_command_line_and_a_replay_that_needs_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("operators.py").write_text(OPERATOR)
    Path("needy.py").write_text(NEEDY)
    Path("mine.py").write_text(SUBSTITUTE)
    Path("own.py").write_text(PASS.replace("rewriter.apply(ClipToRelu(), graph)", "raise KeyError(graph[-1].domain)"))
    command = ["compile", "needy.py:build", "--substitute", "mine.py", "--custom-op", "operators.py", "-o", "out"]
    assert run(command) == 0
    assert "verified" in capsys.readouterr().out
    # every verb that takes a model or runs a bundle knows them
    np.save("x.npy", np.ones((4, 3), np.float32))
    assert run(["run", "out", "--input", "x.npy", "--custom-op", "operators.py"]) == 0
    assert "4x3" in capsys.readouterr().out
    assert run(["run", "out", "--input", "x.npy"]) == 1
    assert "declare gf_user_code::Twice while it runs" in capsys.readouterr().err
    assert run(["inspect", "needy.py:build", "--substitute", "mine.py", "--custom-op", "operators.py"]) == 0
    assert "gf_user_code" in capsys.readouterr().out
    assert run(["inspect", "needy.py:build", "--custom-op", "operators.py"]) == 1
    assert "could not be captured" in capsys.readouterr().err
    assert run([*command, "--pass", "own.py:UseRelu"]) == 1
    said = capsys.readouterr().err
    assert "the pass 'use-relu' failed: KeyError: 'gf_user_code'" in said
    (replay,) = [line.partition("replay with: graphforge ")[2] for line in said.splitlines() if "replay with" in line]
    assert f"--custom-op {folder / 'operators.py'} --pass {folder / 'own.py'}:UseRelu" in replay
    assert run(shlex.split(replay)) == 1
    assert "the pass 'use-relu' failed: KeyError: 'gf_user_code'" in capsys.readouterr().err


def test_a_substitute_and_an_operators_function_that_raise(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("operators.py").write_text(OPERATOR.replace("function=lambda x: x * 2", "function=lambda x: x.double_it()"))
    Path("needy.py").write_text(NEEDY)
    Path("mine.py").write_text(SUBSTITUTE)
    command = ["compile", "needy.py:build", "--substitute", "mine.py", "--custom-op", "operators.py", "-o", "out"]
    assert run(command) == 1
    said = capsys.readouterr().err
    assert "function of gf_user_code::Twice failed: AttributeError: 'Tensor' object has no attribute" in said
    assert re.search(r"raised at operators.py:\d+, in <lambda>: function=lambda x: x.double_it\(\)", said)
    Path("operators.py").write_text(OPERATOR)
    Path("mine.py").write_text(SUBSTITUTE.replace("0.5", "limit"))
    assert run(command) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(r"export: NameError: name 'limit' .*\n\s*raised at mine.py:5, in picked: return x\[x.sum", said)


def test_a_graph_has_nothing_to_substitute(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(NET)
    Path("mine.py").write_text(SUBSTITUTE)
    assert run(["compile", "net.py:build", "-o", "out"]) == 0
    assert run(["compile", "out/model.onnx", "--substitute", "mine.py", "-o", "again"]) == 1
    assert "matched nothing: out/model.onnx is a graph already and calls no function" in capsys.readouterr().err


class HalfInput(torch.nn.Module):
    """Half-precision data into a float32 layer: capture lets it pass, eager does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.half()).float()
        return out


def test_types_that_only_eager_refuses_are_the_models_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match="the model does not run on these inputs") as failure:
        graphforge.compile(HalfInput(), torch.ones(2, 4), output=tmp_path / "out")
    assert any(note.startswith("raised at") and "self.layer(x.half())" in note for note in failure.value.notes)


class Named(torch.nn.Module):
    """Text beside a tensor."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"doubled": x * 2, "name": "hello"}


def test_text_among_the_outputs_is_left_out_and_told(tmp_path: Path) -> None:
    bundle = graphforge.compile(Named(), torch.ones(2, 4), output=tmp_path / "out")
    assert [output["name"] for output in bundle.manifest["outputs"]] == ["doubled"]
    assert "output 'name' is 'hello', expected tensors and numbers; it is left out" in bundle.manifest["notes"]


class Undefined(torch.nn.Module):
    """NaN everywhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x - 10)


def test_nan_is_not_taken_for_a_random_number(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="allow_nonfinite") as failure:
        graphforge.compile(Undefined(), torch.ones(2, 4), output=tmp_path / "out")
    assert not any("asked twice" in note for note in failure.value.notes)


class Forgetful(torch.nn.Module):
    """No return."""

    def forward(self, x: torch.Tensor) -> None:
        x * 2


def test_a_forward_without_a_return_is_told(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="the model returns nothing") as failure:
        graphforge.compile(Forgetful(), torch.ones(2, 4), output=tmp_path / "out")
    assert failure.value.notes[0].startswith("end its forward with a return")


def test_the_line_of_a_package_that_the_users_line_led_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "gf_bought.py").write_text("def decide(x):\n    if x.sum() > 0:\n        return x\n    return -x\n")
    monkeypatch.syspath_prepend(str(package))
    from importlib import import_module

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = import_module("gf_bought").decide(x)
            return found

    with pytest.raises(graphforge.GraphForgeError) as refused:
        graphforge.compile(Net(), torch.ones(3), output=tmp_path / "out")
    place = refused.value.notes[0]
    assert "test_user_code.py:" in place
    assert re.search(r"; within .*gf_bought.py:2, in decide: if x.sum\(\) > 0:$", place)
    assert any("let `assert x.sum() > 0`, or its contrary" in note for note in refused.value.notes)


def test_asking_which_line_runs_keeps_nothing_alive() -> None:
    """A frame that outlives its call keeps its tensors: torch.export then took a constant of llama's for a fake one."""

    def asked() -> weakref.ref[torch.Tensor]:
        local = torch.ones(1)
        place_here()
        return weakref.ref(local)

    enabled = gc.isenabled()
    gc.disable()
    try:
        assert asked()() is None
    finally:
        if enabled:
            gc.enable()
