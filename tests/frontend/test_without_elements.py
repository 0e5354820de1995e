"""A result that has no elements at any promised size is a constant: no kernel of a runtime stumbles over it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.frontend.helpers import lower_and_compare


def _largest_so_far(x: Tensor) -> tuple[Tensor, Tensor]:
    values, places = x[1:].cummax(-1)
    return values, places


def _normalised(x: Tensor) -> Tensor:
    return functional.layer_norm(x[:, :0], (0,), torch.ones(0), torch.ones(0))


def _products(x: Tensor) -> Tensor:
    v = x[1:, :]
    return torch.einsum("ij,kj->ik", v, v).softmax(-1).cummax(1).values


@pytest.mark.parametrize("forward", [_normalised, _products])
def test_nothing_is_computed_of_nothing(forward: Callable[[Tensor], Tensor]) -> None:
    outcome = lower_and_compare(forward, (torch.randn(1, 4),), dynamic={"x": {1: (2, 6)}})
    assert not set(outcome.counts) & {"Scan", "LayerNormalization", "MatMul"}


def test_the_largest_so_far_of_as_many_rows_as_there_are() -> None:
    """ONNX Runtime's Scan ends the process over slices without elements."""
    others = [(torch.randn(rows, columns),) for rows in (1, 2) for columns in (1, 3)]
    lower_and_compare(_largest_so_far, (torch.randn(1, 4),), dynamic={"x": {1: (2, 6)}})
    lower_and_compare(_largest_so_far, (torch.randn(5, 4),), dynamic={"x": {0: (1, 6), 1: (1, 6)}}, other_inputs=others)


def test_group_norm_in_doubles_of_as_many_rows_as_there_are() -> None:
    norm = torch.nn.GroupNorm(1, 3).double()
    others = [(torch.randn(rows, 3, dtype=torch.float64),) for rows in (1, 2)]
    lower_and_compare(
        lambda x: norm(x[1:]),
        (torch.randn(4, 3, dtype=torch.float64),),
        dynamic={"x": {0: (1, 4)}},
        other_inputs=others,
    )


@pytest.mark.parametrize("channels", [2, 0])
def test_a_circular_border_of_as_many_pictures_as_there_are(channels: int) -> None:
    """ONNX Runtime's Pad knows no mode wrap where there are no elements."""
    others = [(torch.randn(rows, channels, width),) for rows in (0, 1) for width in (3, 5)]
    outcome = lower_and_compare(
        lambda x: functional.pad(x, (2, 1), mode="circular"),
        (torch.randn(2, channels, 4),),
        dynamic={"x": {0: (0, 4), 2: (3, 6)}},
        other_inputs=others,
    )
    assert not outcome.counts["Pad"]
