"""Arithmetic on sizes: right at every size, and with few nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from graphforge.errors import LoweringError
from tests.frontend.helpers import lower_and_compare, lower_only

_DYNAMIC = {"x": {0: (1, 9), 2: (4, 64)}}


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda x: x.new_zeros(x.shape[2] + 3), {"Shape": 1, "Add": 1, "ConstantOfShape": 1}),
        (lambda x: x.new_zeros(x.shape[2] // 3 + 2), {"Shape": 1, "Div": 1, "Add": 1, "ConstantOfShape": 1}),
        (lambda x: x.new_zeros(70 + (x.shape[2] - 70) // 4), None),
        (lambda x: x.new_zeros(-(-x.shape[2] // 3)), None),
        (lambda x: x.new_zeros(math.ceil(x.shape[2] / 3)), None),
        (lambda x: x.new_zeros(round(x.shape[2] * 1.5)), None),
        (lambda x: x.new_zeros(max(x.shape[2], 6), x.shape[2] % 5 + 2), None),
        (lambda x: x.new_zeros(x.shape[2] ** 2), {"Shape": 1, "Pow": 1, "ConstantOfShape": 1}),
        (lambda x: x * (x.shape[2] ** -0.5), None),
        (lambda x: x + x.stride(0) + x.stride(1), None),
        (lambda x: x + x.numel(), None),
        (lambda x: x.reshape(math.prod(x.shape[:2]), -1), {"Shape": 1, "Mul": 1, "Concat": 1, "Reshape": 1}),
        (lambda x: x.flatten(0, 1).reshape(-1, *x.shape[1:]), None),
        (lambda x: torch.zeros(*x.shape), {"Shape": 2, "Concat": 1, "ConstantOfShape": 1}),
        (lambda x: x.mean((0, 1))[None, None].expand(x.shape), None),
    ],
)
def test_sizes_at_three_shapes(function: Callable[[torch.Tensor], Any], counts: Mapping[str, int] | None) -> None:
    outcome = lower_and_compare(
        function,
        [torch.randn(2, 3, 8)],
        dynamic=_DYNAMIC,
        other_inputs=[[torch.randn(1, 3, 5)], [torch.randn(4, 3, 11)]],
    )
    assert counts is None or outcome.counts == counts


def test_neighbouring_sizes_come_from_one_shape_node() -> None:
    outcome = lower_and_compare(
        lambda x: x.flatten(0, 1),
        [torch.randn(2, 3, 8, 5)],
        dynamic={"x": {0: (1, 9), 2: (4, 64), 3: (4, 64)}},
        other_inputs=[[torch.randn(3, 3, 7, 9)]],
    )
    assert outcome.counts == {"Shape": 1, "Concat": 1, "Reshape": 1}


def test_sizes_that_depend_on_data() -> None:
    def function(x: torch.Tensor) -> Any:
        high, low = x[x > 0], x[x <= 0]
        both = torch.cat([high, low]).reshape(-1, 1)
        count: Any = (x > 0).sum().item()
        torch._check(count >= 0)
        return both * torch.ones(high.shape[0] + low.shape[0], 1), x.new_zeros(count), high[None].expand(3, -1)

    lower_and_compare(
        function,
        [torch.randn(2, 3, 8)],
        dynamic=_DYNAMIC,
        other_inputs=[[torch.randn(1, 3, 5)], [-torch.ones(1, 3, 4)]],
    )


def test_unknown_functions_of_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphforge.frontend import symbolic

    monkeypatch.setattr(symbolic, "_KNOWN", set())
    with pytest.raises(LoweringError, match="arithmetic on sizes: add has no lowering"):
        lower_only(lambda x: x.new_zeros(x.shape[2] + 3), [torch.randn(2, 3, 8)], dynamic=_DYNAMIC)
