"""What hangs on weights alone and has no operator in ONNX is computed while compiling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import graphforge
from graphforge.call import input_tree
from graphforge.errors import CaptureError, LoweringError
from graphforge.frontend.capture import capture
from graphforge.spec import DimRange


class _Rotated(nn.Module):
    """A weight kept orthogonal: torch makes it by a matrix exponential at every call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = parametrizations.orthogonal(nn.Linear(4, 4))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act(self.layer(x))
        return found


class _Turning(nn.Module):
    """A matrix exponential of a buffer, which is written to before or behind it."""

    angles: Tensor

    def __init__(self, when: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.when = when
        self.register_buffer("angles", torch.randn(3, 3) / 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.when == "before":
            self.angles += x.mean()
        taken = self.angles * 2
        if self.when == "view":
            taken.view(9)[:3] += x.mean()
        turned: Tensor = torch.linalg.matrix_exp(x.mean() + taken if self.when == "input" else taken)
        if self.when == "behind":
            self.angles += 1
        return x @ turned


def test_an_operator_on_weights_is_computed_by_torch(tmp_path: Path) -> None:
    shapes = {"x": {0: DimRange("batch", 1, 4)}}
    bundle = graphforge.compile(_Rotated().eval(), (torch.randn(2, 4),), dynamic_shapes=shapes, output=tmp_path / "b")
    assert bundle.manifest["verification"]["passed"]
    assert any("matrix_exp" in note and "computed here" in note for note in bundle.manifest["notes"])


def test_a_weight_that_is_written_to_later_counts_as_it_was(tmp_path: Path) -> None:
    bundle = graphforge.compile(_Turning("behind").eval(), (torch.randn(2, 3),), output=tmp_path / "b")
    assert bundle.manifest["verification"]["passed"]


@pytest.mark.parametrize("when", ["input", "before", "view"])
def test_what_a_call_changes_is_not_computed_once(when: str, tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match="matrix_exp"):
        graphforge.compile(_Turning(when).eval(), (torch.randn(2, 3),), output=tmp_path / "b")


class _Written(nn.Module):
    """Branches on a buffer, on a copy of it or on zeros, a part of which was written to."""

    start: Tensor

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.register_buffer("start", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        known = self.start if self.what == "buffer" else self.start.clone() if self.what == "copy" else torch.zeros(4)
        if self.what == "out":
            torch.mul(x[0], 2, out=known)
        elif self.what == "numbers":
            known[1:][:1] = 5.0
        else:
            known.view(2, 2)[1] = x[0, :2]
        return x * 2 if known.sum() > 1 else x - 5


@pytest.mark.parametrize("what", ["buffer", "copy", "zeros", "out"])
def test_a_branch_on_what_data_was_written_into_is_refused(what: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="decides in Python"):
        graphforge.compile(_Written(what).eval(), (torch.zeros(2, 4),), output=tmp_path / "b", verify=False)


def test_a_branch_on_what_numbers_were_written_into_is_taken_as_they_say() -> None:
    tree = input_tree(_Written("numbers"), (torch.zeros(2, 4),), {})
    captured = capture(_Written("numbers").eval(), tree, tree.spec(), method="export")
    assert not any("sub" in str(node.target) for node in captured.graph_module.graph.nodes)
