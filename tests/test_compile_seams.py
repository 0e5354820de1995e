"""A pass that breaks the graph is named by `compile`, whoever wrote it, and no file is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx
import pytest
import torch

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError, InternalError
from graphforge.ir import Graph, Shape
from graphforge.transform import Pass, Rewriter, VerifyGraph
from tests.transform.test_seams import AddAlpha, MoveFirst, OurMoveFirst


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * 2) - 1


@dataclass(frozen=True)
class Harmless(Pass):
    name: ClassVar[str] = "harmless"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        pass


@pytest.mark.parametrize("check_passes", [False, True])
@pytest.mark.parametrize("pass_", [MoveFirst(), AddAlpha()])
def test_a_pass_of_the_user_that_breaks_the_graph_is_named(pass_: Pass, check_passes: bool, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=f"the pass '{pass_.name}' leaves a graph that is not valid") as caught:
        graphforge.compile(
            Two(), torch.ones(2, 3), passes=[Harmless(), pass_], check_passes=check_passes, output=tmp_path / "out"
        )
    assert "--opset" not in str(caught.value)  # no opset is at fault
    assert "test_seams.py:" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_pass_of_ours_that_breaks_the_graph_is_found_behind_the_seam(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="after the canonical passes the graph is not valid") as caught:
        graphforge.compile(Two(), torch.ones(2, 3), passes=[OurMoveFirst()], output=tmp_path / "out")
    assert "the pass is our-move-first" in "\n".join(caught.value.__notes__)
    with pytest.raises(InternalError, match="the pass 'our-move-first' leaves a graph that is not valid"):
        graphforge.compile(Two(), torch.ones(2, 3), passes=[OurMoveFirst()], verify_each=True, output=tmp_path / "out")


def test_an_onnx_file_that_is_not_valid_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y"))
    weight = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3])  # it has two elements
    data = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [x, weight], [y], [data])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), "bad.onnx")
    with pytest.raises(GraphForgeError, match=r"bad\.onnx is not valid ONNX: initializer 'w' says") as caught:
        graphforge.compile("bad.onnx", output="out")
    assert "graphforge inspect bad.onnx" in str(caught.value)
    assert run(["inspect", "bad.onnx"]) == 0
    assert "Add" in capsys.readouterr().out


@dataclass(frozen=True)
class LieAboutTheShape(Pass):
    name: ClassVar[str] = "lie-about-the-shape"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        rewriter.set_shape(graph[0].outputs[0], Shape([7, 7]))


def test_a_file_that_onnx_does_not_accept_is_not_delivered_verified_or_not(tmp_path: Path) -> None:
    with pytest.raises(
        GraphForgeError, match=r"is not a valid ONNX file and is not delivered: .*differ in dim"
    ) as caught:
        graphforge.compile(Two(), torch.ones(2, 3), passes=[LieAboutTheShape()], verify=False, output=tmp_path / "out")
    assert "node 'Mul' came from" in str(caught.value)
    assert "test_compile_seams.py:" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_manifest_says_what_was_checked(tmp_path: Path) -> None:
    bundle = graphforge.compile(Two(), torch.ones(2, 3), target="magicmind", verify=False, output=tmp_path / "out")
    checked = [step["full_check"] for step in bundle.manifest["steps"] if step["name"] == "onnx.checker"]
    assert checked == [["model.onnx"]]


def test_verify_each_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[bool] = []
    original = VerifyGraph.__init__

    def watched(self: VerifyGraph, each: bool = True) -> None:
        seen.append(each)
        original(self, each)

    monkeypatch.setattr(VerifyGraph, "__init__", watched)
    Path("two.py").write_text(
        "import torch\nclass Two(torch.nn.Module):\n    def forward(self, x):\n        return torch.relu(x * 2) - 1\n"
    )
    assert run(["compile", "two.py:Two", "--input", "x:2x3", "--no-verify", "-o", "out"]) == 0
    assert not any(seen)
    seen.clear()
    assert run(["compile", "two.py:Two", "--input", "x:2x3", "--no-verify", "--verify-each", "-o", "out"]) == 0
    assert all(seen)
