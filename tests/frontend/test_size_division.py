"""Sizes that the model divides by torch.div, which makes a tensor of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.frontend.helpers import lower_and_compare

_WIDTH = 4


@pytest.mark.parametrize("rounding", ["trunc", "floor"])
def test_windows_are_cut_by_a_divided_size(rounding: str) -> None:
    """As Longformer cuts its sequence: what goes through torch.div comes back in sizes of other tensors."""

    def forward(x: Tensor) -> Tensor:
        count: Any = torch.div(x.size(1), 2 * _WIDTH, rounding_mode=rounding)
        windows = x.view(x.size(0), count, 2 * _WIDTH, x.size(2))
        size = list(windows.size())
        size[1] = size[1] * 2 - 1
        return windows.new_zeros(size) + windows[:, :1]

    others = [(torch.randn(2, size, 3),) for size in (8, 32, 64)]
    lower_and_compare(forward, (torch.randn(2, 24, 3),), dynamic={"x": {1: (8, 64, 8)}}, other_inputs=others)
