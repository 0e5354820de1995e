"""Conditions that torch's solver cannot prove are checked at the promised sizes instead of refused outright."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphforge.errors import CaptureError
from tests.frontend.helpers import lower_and_compare

_DYNAMIC = {"x": {0: (1, 4), 2: (6, 64), 3: (6, 64)}}


def _image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11))


def test_a_condition_that_always_holds_does_not_stand_in_the_way() -> None:
    """2*(h//2) < 1 + h: true, and beyond the solver."""

    def forward(x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True), 3, 2, 1, ceil_mode=True)

    others = [(_image(1, 3, *size),) for size in ((6, 64), (7, 9), (31, 32), (64, 13))]
    outcome = lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC, other_inputs=others)
    assert outcome.nodes == 2


def test_a_condition_that_fails_at_a_promised_size_is_told_with_the_size() -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 2, 3, 1, ceil_mode=True)

    with pytest.raises(CaptureError, match="x_2 = 7") as refusal:
        lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC)
    assert "holds where" in refusal.value.notes[0]
    steps = {"x": {2: (6, 63, 3), 3: (6, 63, 3)}}
    lower_and_compare(forward, (_image(2, 3, 12, 15),), dynamic=steps, other_inputs=[(_image(2, 3, 6, 63),)])


def test_a_branch_on_a_size_is_still_refused() -> None:
    with pytest.raises(CaptureError):
        lower_and_compare(lambda x: x * 2 if x.shape[2] > 20 else x, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC)


def test_halves_of_an_odd_size_are_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.view(x.shape[0], 3, x.shape[2] // 2, 2, x.shape[3])

    with pytest.raises(CaptureError):
        lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC)
    even: Any = {"x": {0: (1, 4), 2: (6, 64, 2), 3: (6, 64)}}
    lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=even, other_inputs=[(_image(1, 3, 64, 7),)])
