"""Verification as compile uses it: what a spoiled graph is called, and who is named for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.errors import VerificationError
from graphforge.page import write_report
from graphforge.passes import default_pipeline
from graphforge.transform import Pass, Rewriter
from graphforge.verbs.bisect import bisect
from graphforge.verbs.opset import opset
from graphforge.verbs.profile import profile
from tests.verify import small


@dataclass(frozen=True)
class BendWeight(Pass):
    """Changes one element of the head's weight."""

    name: ClassVar[str] = "bend-weight"

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Find it by its name and change it."""
        for name, value in graph.initializers.items():
            if name.startswith("head.weight"):
                assert value.const_value is not None
                array = np.array(value.const_value.numpy())
                array[0, 1] += 0.25
                value.const_value = ir.Tensor(array, name=name)


def inputs() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_spoiled_module_and_the_pass_are_named(tmp_path: Path) -> None:
    model = small.net()
    with pytest.raises(VerificationError, match="output logits") as caught:
        graphforge.compile(model, inputs(), passes=[BendWeight()], output=tmp_path / "net")
    assert "first suspect: head (Linear)" in str(caught.value)
    assert "small.py" in str(caught.value)
    assert "more than rounding explains" in str(caught.value)
    found = bisect(model, inputs(), passes=[BendWeight()])
    assert found.guilty == len(default_pipeline())
    assert "bend-weight" in found.describe()
    assert bisect(model, inputs()).clean


def test_a_bundle_goes_through_every_verb(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "import torch\nfrom tests.verify import small\n\n\n"
        "def build():\n    return small.net(), (torch.ones(2, 3, 8, 8),)\n"
    )
    spec = f"{source}:build"
    bundle = graphforge.compile(spec, dynamic_shapes={"x": {0: (1, 8)}}, output=tmp_path / "bundle")
    trials = bundle.manifest["verification"]["trials"]
    assert [trial["sizes"] for trial in trials] == [{"x_0": size} for size in (2, 2, 1, 3, 8)]
    assert bundle.manifest["verification"]["passed"]
    diff = graphforge.diff(spec, bundle)
    assert diff.agrees
    assert {path: row.note for path, _, _, row in diff.modules()}["body.conv"] == "into batch_norm"
    assert [row.name for row in profile(bundle.path, spec, runs=2, warmup=1).rows] == ["eager", "onnxruntime"]
    assert opset(spec).audit.lowest == 18
    assert "agrees with eager on 5 sets" in write_report(bundle.path, diff=diff).read_text()
