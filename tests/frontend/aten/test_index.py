"""Indexing: every form agrees with eager, and the common ones cost what they should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from tests.frontend.helpers import lower_and_compare

_I = torch.tensor


def _x() -> torch.Tensor:
    return torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda x: x[_I([0, -1, 1])], {"Gather": 1}),
        (lambda x: x[:, _I([0, -1, 2])], {"Gather": 1}),
        (lambda x: x[..., _I([[0, 1], [2, -1]])], {"Gather": 1}),
        (lambda x: x[:, _I([0, 1]), _I([1, -2])], {"Reshape": 1, "Gather": 1}),
        (lambda x: x[:, _I([0, 1])[:, None], _I([1, -2])], None),
        (lambda x: x[_I([1])[:, None], :, _I([1, -2])], None),
        (lambda x: x[_I([1, 0]), :, _I([1, -2])], None),
        (lambda x: x[:, _I([1, 0])[None], _I([1, -2])[:, None]], None),
        (lambda x: x[x[:, 0, 0] > 0], None),
        (lambda x: x[:, x[0, :, 0] > 0], None),
        (lambda x: x[x > 0], None),
        (lambda x: x[x[:, :, 0] > 0, _I(2)], None),
        (lambda x: x[:, x[0] > 0], None),
        (lambda x: x[_I(True)], None),
    ],
)
def test_every_form_with_a_fixed_and_a_dynamic_batch(
    function: Callable[[torch.Tensor], Any], counts: Mapping[str, int] | None
) -> None:
    outcome = lower_and_compare(function, [_x()])
    assert counts is None or outcome.counts == counts
    lower_and_compare(function, [_x()], dynamic={"x": {0: (2, 9)}}, other_inputs=[[torch.randn(5, 4, 5)]])


@pytest.mark.parametrize(
    ("function", "absent"),
    [
        (lambda x: x[torch.arange(x.shape[0])[:, None, None], torch.arange(4)[None, :, None]], "GatherND"),
        (lambda x: x[torch.arange(x.shape[0]), x[:, :, 0].argmax(1)], "Expand"),
        (lambda x: x[torch.arange(x.shape[0]), x[:, :, 0].argmax(1), x[:, 0].argmax(1)], "Expand"),
    ],
)
def test_counting_along_an_axis_needs_no_index_arithmetic(function: Callable[[torch.Tensor], Any], absent: str) -> None:
    outcome = lower_and_compare(
        function, [_x()], dynamic={"x": {0: (1, 9)}}, other_inputs=[[torch.randn(5, 4, 5)], [torch.randn(1, 4, 5)]]
    )
    assert absent not in outcome.counts


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda x: x.index_put((x > 0,), _I(1.0)), {"Greater": 1, "Where": 1}),
        (lambda x: x.index_put((x[:, :, 0] > 0,), _I(1.0)), None),
        (lambda x: x.index_put((x[:, :, 0] > 0,), torch.arange(5.0)), None),
        (lambda x: x.index_put((x[:, 0, 0] > -9,), x * 2), None),
        (lambda x: torch.ops.aten.index_put(x, [None, _I([1, 0])], x[:, :2] * 2), None),
        (lambda x: torch.ops.aten.index_put(x, [_I([1, 0]), None, _I([1, 0])], torch.arange(4.0)), None),
        (lambda x: x.index_put((_I([1, 1]), _I([0, 0])), torch.ones(2, 5), accumulate=True), None),
        (lambda x: (x > 0).index_put((x < -1,), _I(True)), {"Greater": 1, "Less": 1, "Or": 1}),
    ],
)
def test_writes_by_index(function: Callable[[torch.Tensor], Any], counts: Mapping[str, int] | None) -> None:
    outcome = lower_and_compare(function, [_x()])
    assert counts is None or outcome.counts == counts
    lower_and_compare(function, [_x()], dynamic={"x": {0: (2, 9)}})


def test_rows_of_tables() -> None:
    def function(weight: torch.Tensor, ids: torch.Tensor) -> Any:
        bags = [
            torch.nn.functional.embedding_bag(ids.flatten(), weight, _I([0, 2, 2]), mode=mode)
            for mode in ("sum", "mean", "max")
        ]
        padded = torch.nn.functional.embedding_bag(ids, weight, padding_idx=1)
        return [*bags, padded, torch.nn.functional.embedding(ids, weight), torch.nn.functional.one_hot(ids, 6)]

    lower_and_compare(function, [torch.randn(6, 3), _I([[0, 5, 1], [4, 1, 1]])])
