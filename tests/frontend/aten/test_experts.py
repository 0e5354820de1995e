"""Grouped matrix products: any routing, experts without rows, rows behind the last group; a layer of experts."""

from __future__ import annotations

import pytest
import torch

from graphforge.frontend.rules import lowering_for
from tests.frontend.helpers import lower_and_compare

_ROUTINGS = ([3, 3, 7, 10], [0, 0, 0, 10], [10, 10, 10, 10], [0, 4, 4, 4])
_X = torch.randn(10, 4)
_STACK = torch.randn(4, 4, 8)


def _offsets(routing: list[int]) -> torch.Tensor:
    return torch.tensor(routing, dtype=torch.int32)


@pytest.mark.parametrize("routing", _ROUTINGS)
def test_rows_by_experts(routing: list[int]) -> None:
    count = routing[-1]

    def call(x: torch.Tensor, stack: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
        # what lies behind the last group is whatever memory held, in torch's own kernel
        return torch.nn.functional.grouped_mm(x, stack, offs=offs)[:count]

    others = [(_X, _STACK, _offsets(other)) for other in _ROUTINGS if other[-1] == count]
    lower_and_compare(call, (_X, _STACK, _offsets(routing)), other_inputs=others)


def test_columns_by_experts() -> None:
    def call(stack: torch.Tensor, x: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grouped_mm(stack, x, offs=offs)

    lower_and_compare(call, (_STACK.mT.contiguous(), torch.randn(4, 12), _offsets([3, 3, 7, 12])))


def test_one_matrix_for_each_group() -> None:
    def call(a: torch.Tensor, b: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grouped_mm(a.T, b, offs=offs)

    lower_and_compare(call, (_X, torch.randn(10, 8), _offsets([3, 4, 7, 10])))


@pytest.mark.parametrize("bounds", [(0, 4), (-1.5, 2), (0, 0)])
def test_histograms(bounds: tuple[float, float]) -> None:
    x = torch.cat([torch.randn(200), torch.arange(6.0)])
    lower_and_compare(lambda y: torch.histc(y, 5, *bounds), (x,), other_inputs=[(torch.ones(206),)])


def test_the_operator_of_a_library_means_the_same() -> None:
    # transformers has an operator of its own for what torch cannot trace; aten._grouped_mm.default and
    # aten.histc.default are what the tests above and below go through
    assert lowering_for("transformers.grouped_mm_fallback.default") is lowering_for("aten._grouped_mm.default")
    assert lowering_for("aten.histc.default") is not None


class _Experts(torch.nn.Module):
    """Tokens sorted by expert and brought back, as libraries write it."""

    def __init__(self) -> None:
        super().__init__()
        self.router = torch.nn.Linear(8, 5)
        self.up = torch.nn.Parameter(torch.randn(5, 16, 8) * 0.3)
        self.down = torch.nn.Parameter(torch.randn(5, 16, 8) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(2, dim=-1)
        experts, order = chosen.reshape(-1).sort()
        counts = torch.histc(experts.float(), bins=5, min=0, max=4)
        offs = counts.cumsum(0, dtype=torch.int32)
        h = torch.nn.functional.grouped_mm(tokens[order // 2], self.up.mT, offs=offs).relu()
        y = torch.nn.functional.grouped_mm(h, self.down, offs=offs) * weights.reshape(-1)[order, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0])
        summed: torch.Tensor = y[back].reshape(*tokens.shape[:1], 2, 8).sum(1).reshape(x.shape)
        return summed


def test_a_layer_of_experts_at_any_length() -> None:
    torch.manual_seed(0)
    others = [(torch.randn(1, 2, 8),), (torch.randn(3, 30, 8),), (torch.zeros(2, 6, 8),)]
    outcome = lower_and_compare(
        _Experts(),
        (torch.randn(2, 7, 8),),
        dynamic={"x": {0: (1, 4), 1: (2, 32)}},
        other_inputs=others,
        rtol=1e-4,
        atol=1e-5,
    )
    assert outcome.counts["Loop"] == 0
