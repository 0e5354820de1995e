"""Every node knows its own line, in a helper too, and the lines that led there."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.errors import LoweringError
from graphforge.ir import Origin, origins_of, set_origins
from graphforge.ir.origin import origins_from_metadata, write_origin_metadata
from graphforge.prepare import prepare, to_ir
from tests.frontend.stack_helpers import outer


class Block(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return outer(x)  # block


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)  # net
        return self.tail(y)  # net calls

    def tail(self, y: torch.Tensor) -> torch.Tensor:
        return y.exp()  # tail


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def yes(x: torch.Tensor) -> torch.Tensor:
            return outer(x)  # yes

        def no(x: torch.Tensor) -> torch.Tensor:
            return x.sin()  # no

        chosen: torch.Tensor = torch.cond(x.sum() > 0, yes, no, (x,))  # cond
        return chosen


def word(place: str) -> str:
    """What the comment at ``file.py:line`` says."""
    file, _, line = place.rpartition(":")
    return linecache.getline(file, int(line)).rpartition("# ")[2].strip()


def stacks(model: torch.nn.Module, capture: str = "auto") -> Iterator[tuple[str, list[str]]]:
    """Operator of each node and the words along its stack, its own line first."""
    lowered, _ = to_ir(prepare(model, torch.ones(2, 3), dynamic_shapes="x:0=1..5"), capture=capture)
    for node in lowered.graph.all_nodes():
        (origin,) = origins_of(node) or (Origin(),)
        if origin.source:
            yield node.op_type, [word(place) for place in (origin.source, *origin.callers)]


@pytest.mark.parametrize("capture", ["export", "export-strict", "fx", "trace"])
def test_a_helper_has_its_own_line_and_the_callers_are_kept(capture: str) -> None:
    found = dict(stacks(Net(), capture))
    assert found["Mul"] == ["outer", "block", "net"]
    assert found["Relu"] == ["inner", "outer calls", "block", "net"]
    assert found["Exp"] == ["tail", "net calls"]


@pytest.mark.parametrize("capture", ["export", "export-strict"])
def test_the_body_of_a_condition_has_the_users_lines(capture: str) -> None:
    found = dict(stacks(Branches(), capture))
    assert found["If"] == ["cond"]
    assert found["Mul"] == ["outer", "yes", "cond"]
    assert found["Relu"] == ["inner", "outer calls", "yes", "cond"]
    assert found["Sin"] == ["no", "cond"]


def test_the_file_keeps_them_short(tmp_path: Path) -> None:
    bundle = graphforge.compile(Net(), torch.ones(2, 3), output=tmp_path / "net")
    nodes = onnx.load(bundle.path / "model.onnx").graph.node
    kept = {node.op_type: {entry.key: entry.value for entry in node.metadata_props} for node in nodes}
    (origin,) = origins_from_metadata(kept["Relu"])
    assert [word(place) for place in (origin.source, *origin.callers)] == ["inner", "outer calls", "block", "net"]
    # callers beside the source go by the name of their file alone
    assert kept["Relu"]["graphforge.called_from"].count("/") == 0


def test_callers_come_back_from_the_metadata() -> None:
    node = ir.Node("", "Add", [])
    origins = (
        Origin("a", file="/here/net.py", line=3),
        Origin("b", file="/here/net.py", line=5, callers=("/here/other.py:8", "/there/main.py:9")),
    )
    set_origins(node, origins)
    write_origin_metadata(node)
    assert node.metadata_props["graphforge.called_from"] == "\nother.py:8 < /there/main.py:9"
    assert origins_from_metadata(dict(node.metadata_props)) == origins


class Unknown(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.helper(x)  # unknown calls

    def helper(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.linalg.eigvals(x)  # unknown
        return found.real


def test_a_refusal_names_the_helpers_line_and_its_caller() -> None:
    with pytest.raises(LoweringError) as refused:
        to_ir(prepare(Unknown(), torch.ones(2, 2)))
    place, line, callers, *_ = refused.value.notes
    assert f"{Path(__file__).name}:" in place
    assert line.endswith("# unknown")
    assert callers.startswith("called from ")
    assert word(callers.removeprefix("called from ")) == "unknown calls"


def test_metadata_that_is_not_text_says_nothing() -> None:
    damaged: dict[str, Any] = {"graphforge.target": b"aten.relu\xff", "graphforge.module": "head"}
    (origin,) = origins_from_metadata(damaged)
    assert (origin.module, origin.target) == ("head", "")
