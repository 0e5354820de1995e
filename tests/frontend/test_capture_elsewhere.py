"""An example so small that a part of one of its sizes is a 1 is captured at other sizes: 1 is a constant to capture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import graphforge
from graphforge.call import input_tree
from graphforge.errors import CaptureError, VerificationError
from graphforge.frontend.capture import capture
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare


def _every_other_row_added_to(x: Tensor) -> Tensor:
    v = x.abs()[:, 1::2].clone()
    v.add_(1).mul_(2)
    w = v * 1
    w[-8:0] = 1
    return w


def _halved(x: Tensor) -> Tensor:
    return functional.interpolate(x[None, None], scale_factor=0.5, mode="nearest")


def _all_but_the_last(x: Tensor) -> Tensor:
    v = x + 0
    v[:, :-1] = 1
    return v.view(v.shape[0], -1)[:, :-1]


def _every_other(x: Tensor) -> Tensor:
    return x.reshape(-1)[::2]


def _last_two(x: Tensor) -> Tensor:
    return x[:, -2:] * 2


@pytest.mark.parametrize("example", [(2, 2), (3, 3)], ids=str)
@pytest.mark.parametrize(
    ("forward", "low"),
    [(_every_other_row_added_to, 1), (_halved, 2), (_all_but_the_last, 1), (_every_other, 1), (_last_two, 1)],
)
def test_a_tiny_example_ties_no_size(forward: Callable[[Tensor], Tensor], low: int, example: tuple[int, int]) -> None:
    others = [(torch.randn(rows, columns),) for rows in (low, 7) for columns in (low, 2, 4)]
    lower_and_compare(forward, (torch.randn(example),), dynamic={"x": {0: (low, 7), 1: (low, 6)}}, other_inputs=others)


def test_a_program_in_which_a_promised_size_is_a_number_is_no_capture() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(3, -1) + torch.ones(3, 6)

    tree = input_tree(Net(), (torch.randn(3, 6),), {})
    shapes = tree.spec().with_dynamic({"x": {0: DimRange("n", 1, 6)}})
    with pytest.raises(CaptureError, match="for the number 3"):
        capture(Net(), tree, shapes, method="export-strict")


def _two_at_most(x: Tensor) -> Tensor:
    v = x.abs()[:2] * 1
    v[0] += 2
    return v.flatten(0, 1)


def _last_but_one(x: Tensor) -> Tensor:
    v = x * 1
    v[-2:] = 1
    return torch.cat([v, x[:2][-3:-1]])


@pytest.mark.parametrize("forward", [_two_at_most, _last_but_one])
def test_what_a_size_of_one_makes_of_others_is_described_when_it_matters(
    forward: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    bundle = graphforge.compile(Net(), (torch.randn(5, 3),), dynamic_shapes=[{0: (1, 6)}], output=tmp_path / "b")
    assert any("sizes of 0 and 1" in note for note in bundle.manifest["notes"])


def test_a_rank_that_hangs_on_a_size_of_one_is_refused_once(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.squeeze(0)

    with pytest.raises(VerificationError, match="1 dims against 2"):
        graphforge.compile(Net(), (torch.randn(5, 3),), dynamic_shapes=[{0: (1, 6)}], output=tmp_path / "b")
    assert not list(tmp_path.iterdir())
