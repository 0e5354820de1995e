"""An example so small that a part of one of its sizes is a 1 is captured at other sizes: 1 is a constant to capture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphforge.call import input_tree
from graphforge.errors import CaptureError
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
