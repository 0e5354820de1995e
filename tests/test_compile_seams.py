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
from graphforge.ir import Graph
from graphforge.transform import Pass, Rewriter
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
