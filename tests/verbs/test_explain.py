"""explain: where a node comes from, what was done to it and what was not, and the same for a pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError
from graphforge.verbs.explain import NodeAccount, PassAccount

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 1)
        self.after = nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.bn(self.conv(x)).relu()
        z = self.shared(y)
        return self.after(z) + z.half().float()

def build():
    torch.manual_seed(0)
    net = Net().eval()
    net.bn.running_mean += 1
    return net
"""
INPUT = "x:2x3x8x8"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "net.py").write_text(NET)
    return f"{folder}/net.py:build"


def of(model: str, what: str, **options: Any) -> list[Any]:
    return list(graphforge.explain(model, what, INPUT, dynamic_shapes="x:0=1..4", **options).accounts)


def test_a_node_that_others_were_folded_into(model: str) -> None:
    (account,) = of(model, "conv/Conv")
    assert isinstance(account, NodeAccount)
    assert "Conv(x" in account.line
    assert any("conv (Conv2d)" in origin and "net.py:14" in origin for origin in account.came_from)
    assert any("bn (BatchNorm2d)" in origin for origin in account.came_from)
    assert any("BatchNormalization(" in line for line in account.captured)
    (rewrite,) = [one for one in account.rewrites if one.pass_name == "fold-batch-norm"]
    assert rewrite.rule == "ConvBatchNorm"
    assert any("BatchNormalization(" in line for line in rewrite.before)
    assert len(rewrite.after) == 1
    assert "x_0 is axis 0 of input x (1 to 4)" in account.types[0]


def test_why_a_fusion_did_not_fire_here(model: str) -> None:
    (account,) = of(model, "shared/Conv")
    misses = {miss.pass_name: miss.reason for miss in account.declined}
    assert misses["fold-batch-norm"] == "the result of Conv is read elsewhere"
    assert not any(one.pass_name == "fold-batch-norm" for one in account.rewrites)


def test_a_module_stands_for_its_nodes(model: str) -> None:
    accounts = of(model, "conv")
    assert [account.name for account in accounts] == ["conv/Conv"]


def test_what_is_gone_is_told_with_what_took_it(model: str) -> None:
    conv = of(model, "conv/Conv")[0]
    norm = next(line for line in conv.captured if "BatchNormalization(" in line).split()[0]
    folded = of(model, norm)
    assert [account.name for account in folded] in (["conv/Conv"], [norm])


def test_a_pass_is_told_by_its_rewrites_and_its_near_misses(model: str) -> None:
    (account,) = of(model, "fold-batch-norm")
    assert isinstance(account, PassAccount)
    assert len(account.rewrites) == 1
    assert "the result of Conv is read elsewhere" in [miss.reason for miss in account.declined]
    assert account.nodes[1] == account.nodes[0] - 1
    assert "BatchNorm" in account.says
    text = "\n".join(account.lines())
    assert "1 rewrite, " in text
    assert "+ " in text


def test_the_targets_passes_are_among_them(model: str) -> None:
    (account,) = of(model, "legalise-opset{opset=13,runtime='onnxruntime',exactly=true}", opset=13)
    assert account.place.startswith("pass ")
    assert of(model, "lower-nms")[0].rewrites == ()


def test_an_unknown_name_is_refused_with_the_nearest(model: str) -> None:
    with pytest.raises(GraphForgeError, match="neither a node, a module nor a pass 'fold-batch-nrm'") as raised:
        of(model, "fold-batch-nrm")
    assert "did you mean fold-batch-norm" in raised.value.notes[0]


def test_the_command_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", model, "conv/Conv", "--input", INPUT]) == 0
    out = capsys.readouterr().out
    assert "rewrite 1 of fold-batch-norm (ConvBatchNorm)" in out
    assert run(["explain", model, "fold-batch-norm", "--input", INPUT, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["asked"] == "fold-batch-norm"
    assert report["found"][0]["rewrites"][0]["rule"] == "ConvBatchNorm"
    assert run(["explain", model, "nothing", "--input", INPUT]) == 1
    assert Path(model.rpartition(":")[0]).exists()
