"""What is the runtime's own arithmetic is named in a failed trial."""

from __future__ import annotations

import pytest
import torch

from graphforge.runners.eager import EagerRunner
from graphforge.verify.witness import Witness


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


@pytest.mark.parametrize(
    ("model", "x", "told"),
    [
        (Sum(), torch.tensor([2**53, 1, 5]), "above 2^53"),
        (Mean(), 4e6 + torch.rand(1 << 17), "adds up 131,072 float32 numbers"),
        (torch.nn.MaxPool1d(2), torch.tensor([[1.0, float("nan")]]), "loses a NaN"),
    ],
)
def test_it_is_recognised_with_its_line(model: torch.nn.Module, x: torch.Tensor, told: str) -> None:
    runner = EagerRunner.of(model, (x,))
    plain = Witness(runner, runner.example()).plain()
    assert plain is not None
    (known,) = plain.known
    assert told in known
    assert ".py:" in known or "max_pool" in known


def test_small_sums_are_not_mentioned() -> None:
    runner = EagerRunner.of(Sum(), (torch.tensor([1, 2]),))
    plain = Witness(runner, runner.example()).plain()
    assert plain is not None
    assert not plain.known
