"""Random numbers are refused in one sentence, wherever they come from; those that nobody uses are left out."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import graphforge
from graphforge.errors import GraphForgeError


class Model(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def seeded(x: torch.Tensor) -> torch.Tensor:
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: x + torch.randn_like(x), "aten.randn_like.default: draws random numbers, so no two runs agree"),
        (lambda x: x + torch.empty_like(x).normal_(), "draws random numbers, so no two runs agree"),
        (seeded, "draws random numbers from a generator of its own, so no two runs agree"),
        (lambda x: x * random.random(), "eager gives another answer when it is asked twice"),
    ],
    ids=["function", "in place", "generator", "Python"],
)
def test_random_numbers_are_refused(
    function: Callable[[torch.Tensor], torch.Tensor], told: str, tmp_path: Path
) -> None:
    with pytest.raises(GraphForgeError) as refused:
        graphforge.compile(Model(function), torch.ones(2, 3), output=tmp_path / "b")
    assert told in refused.value.message
    assert any("pass them in as an input" in note for note in refused.value.notes)


def test_random_numbers_that_nobody_uses_are_left_out(tmp_path: Path) -> None:
    def unused(x: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        return x * 2

    assert graphforge.compile(Model(unused), torch.ones(2, 3), output=tmp_path / "b").manifest["verification"]["passed"]
