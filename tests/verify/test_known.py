"""What is the runtime's own arithmetic is named in a failed trial."""

from __future__ import annotations

import pytest
import torch

from graphforge.runners.eager import EagerRunner
from graphforge.verify.witness import Witness


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class Largest(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(-1)


class Sign(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sign()


class Thumb(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=0.34, mode="bilinear", antialias=True)


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


@pytest.mark.parametrize(
    ("model", "x", "told"),
    [
        (Sum(), torch.tensor([2**53, 1, 5]), "above 2^53"),
        (Mean(), 4e6 + torch.rand(1 << 17), "adds up 131,072 float32 numbers"),
        (torch.nn.MaxPool1d(2), torch.tensor([[1.0, float("nan")]]), "loses a NaN"),
        (Largest(), torch.tensor([[1.0, float("nan")]]), "passes over a NaN"),
        (Sign(), torch.tensor([1.0, float("nan")]), "sign of a NaN is 0"),
        (Thumb(), torch.rand(1, 1, 6, 3), "shrinks to one column"),
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


@pytest.mark.parametrize(
    ("model", "x"), [(Largest(), torch.rand(2, 3)), (Sign(), torch.rand(3)), (Thumb(), torch.rand(1, 1, 6, 6))]
)
def test_what_is_computed_alike_is_not_mentioned(model: torch.nn.Module, x: torch.Tensor) -> None:
    runner = EagerRunner.of(model, (x,))
    plain = Witness(runner, runner.example()).plain()
    assert plain is not None
    assert not plain.known
