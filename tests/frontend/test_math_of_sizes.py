"""Functions of Python's ``math`` of a size that varies stay what they are at every size."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import log as natural

import pytest
import torch
from torch import Tensor

from tests.frontend.helpers import lower_and_compare

FORWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "a logarithm held by another name": lambda x: x * natural(x.shape[0]),
    "logarithms to other bases": lambda x: (
        x * (math.log(x.shape[0], 3) + math.log10(x.shape[0]) + math.log1p(x.shape[0]))
    ),
    "a ratio": lambda x: x * (math.log(x.shape[0]) / math.log(512)),
    "powers of two": lambda x: x * math.ceil(math.log2(x.shape[0])) + math.floor(math.log2(x.shape[0])),
    "an exponential and a power": lambda x: x * math.exp(-x.shape[0]) + math.pow(x.shape[0], 1.5),
    "angles": lambda x: x * math.sin(x.shape[0] / 7) + math.atan(x.shape[0]) * math.tanh(x.shape[0] / 9),
    "a root as a size": lambda x: x.new_ones(math.floor(math.sqrt(x.shape[0]))) * x.sum(),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_it_follows_the_size(name: str) -> None:
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    others = [(torch.rand(size, 2),) for size in (2, 7, 8, 16, 29)]
    lower_and_compare(FORWARDS[name], (x,), dynamic={"x": {0: (2, 32)}}, other_inputs=others)
    assert math.log(8) == natural(8)
    assert math.log.__name__ == "log"


@pytest.mark.parametrize("size", [2**29, 2**30 - 1, 2**40])
def test_the_logarithm_of_a_power_of_two_is_whole(size: int) -> None:
    x = torch.rand(4, 2)

    def forward(x: Tensor, number: int) -> Tensor:
        return x * (math.ceil(math.log2(x.shape[0] * number)))

    lower_and_compare(forward, (x, size), dynamic={"x": {0: (2, 8)}}, other_inputs=[(torch.rand(8, 2), size)])


def test_pairs_of_a_triangle() -> None:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        count = x.shape[0]
        rows, columns = torch.tril_indices(count, count, -1)
        return x[rows] * x[columns], torch.triu_indices(count, count)

    others = [(torch.rand(size, 2),) for size in (2, 3, 9)]
    lower_and_compare(forward, (torch.rand(5, 2),), dynamic={"x": {0: (2, 9)}}, other_inputs=others)


def test_a_convolution_over_time_of_any_length_and_batch() -> None:
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.conv_tbc(x, w, b, 1)

    given = (torch.rand(7, 2, 4), torch.rand(3, 4, 5), torch.rand(5))
    others = [(torch.rand(3, 1, 4), *given[1:]), (torch.rand(9, 4, 4), *given[1:])]
    lower_and_compare(forward, given, dynamic={"x": {0: (3, 9), 1: (1, 4)}}, other_inputs=others)
