"""Where a condition on sizes is false at a few promised ones, program and model are run before anything is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphforge.call import input_tree
from graphforge.errors import CaptureError
from graphforge.frontend.capture import capture
from graphforge.frontend.captured import Captured
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare


def _part_scaled(x: Tensor) -> Tensor:
    v = x + 1
    v[:, 1:4] *= 3
    return v


def _parts_overwritten(x: Tensor) -> Tensor:
    v = x.clone()
    v[0, 2:5] = -1
    v[:, :4, 1] = 0
    return v


def _every_third_written(x: Tensor) -> Tensor:
    v = torch.zeros_like(x)
    v[:, ::3] = x[:, ::3]
    v[:, 2:8:2] = 7
    return v


def _first_six_flat(x: Tensor) -> Tensor:
    return x[:, :6].flatten(1).relu()


def _cut_by_a_branch(x: Tensor) -> Tensor:
    if x.shape[1] > 5:
        x = x[:, :5]
    return x - 2


def _filled_up_by_a_branch(x: Tensor) -> Tensor:
    if x.shape[1] < 6:
        x = functional.pad(x, (0, 0, 0, 6 - x.shape[1]))
    return x[:, :6].flatten(1)


def _copied_into_rows(x: Tensor) -> Tensor:
    v = torch.ones(x.shape[0], 7, 3)
    v[:, : x.shape[1]] = x[:, :7]
    return v


_FORWARDS = [
    _part_scaled,
    _parts_overwritten,
    _every_third_written,
    _first_six_flat,
    _cut_by_a_branch,
    _filled_up_by_a_branch,
]


@pytest.mark.parametrize(
    ("forward", "length"), [(_copied_into_rows, 3), *((one, length) for one in _FORWARDS for length in (3, 8))]
)
def test_a_bound_within_the_range_of_a_length_is_right_on_both_sides(
    forward: Callable[[Tensor], Tensor], length: int
) -> None:
    others = [(torch.randn(2, size, 3),) for size in range(2, 11)]
    lower_and_compare(forward, (torch.randn(2, length, 3),), dynamic={"x": {1: (2, 10)}}, other_inputs=others)


def _captured(forward: Any, example: Tensor, dims: dict[int, DimRange]) -> Captured:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Any:
            return forward(x)

    tree = input_tree(Net(), (example,), {})
    return capture(Net(), tree, tree.spec().with_dynamic({"x": dims}))


def test_every_size_where_the_condition_is_false_goes_to_verification_and_is_told() -> None:
    captured = _captured(_part_scaled, torch.randn(2, 7, 3), {1: DimRange("n", 2, 10)})
    assert {"n": 2} in captured.to_try
    assert any("promised sizes the program was run as well and agrees" in note for note in captured.notes)


@pytest.mark.parametrize("low", [1, 6])
def test_two_sizes_that_are_computed_otherwise_are_refused(low: int) -> None:
    """Although one element alone tells."""

    def forward(x: Tensor) -> Tensor:
        if low < x.shape[1] < low + 3:
            x = x.clone()
            x[0, 0] += 0.5
        return x * 2

    with pytest.raises(CaptureError, match=f"behaves otherwise at n = {low + 1}"):
        _captured(forward, torch.randn(2, 5), {1: DimRange("n", 2, 10)})


def test_a_size_that_the_model_rejects_is_named_as_that() -> None:
    with pytest.raises(CaptureError, match="the model itself does not run at n = 2"):
        _captured(lambda x: x[:, :3] @ torch.ones(3, 2), torch.randn(2, 6), {1: DimRange("n", 2, 10)})


def test_more_sizes_than_can_be_run_are_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        return x * 2 if x.shape[1] > 200 else x + x

    with pytest.raises(CaptureError, match="behaves otherwise at n = 201"):
        _captured(forward, torch.randn(2, 6), {1: DimRange("n", 2, 1000)})


def _trimmed_to_a_square(x: Tensor) -> Tensor:
    return x[: x.shape[1]] if x.shape[0] > x.shape[1] else x[:, : x.shape[0]]


def _doubled_if_tall(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] >= 2 * x.shape[1] else x - 1


@pytest.mark.parametrize(
    ("forward", "at"), [(_trimmed_to_a_square, "a = 3, b = 2"), (_doubled_if_tall, "a = 4, b = 2")]
)
def test_a_branch_that_compares_two_sizes_is_not_taken_for_granted(
    forward: Callable[[Tensor], Tensor], at: str
) -> None:
    """torch.export proves conditions on one dim only, and accepts these as they are."""
    with pytest.raises(CaptureError, match=f"behaves otherwise at {at}"):
        _captured(forward, torch.randn(3, 4, 2), {0: DimRange("a", 2, 4), 1: DimRange("b", 2, 7)})


def test_two_sizes_that_are_compared_without_consequence_may_vary() -> None:
    def forward(x: Tensor) -> Tensor:
        return x[: x.shape[1]] if x.shape[0] > x.shape[1] else x[: x.shape[0]]

    others = [(torch.randn(a, b),) for a in range(2, 5) for b in range(2, 6)]
    lower_and_compare(forward, (torch.randn(4, 3),), dynamic={"x": {0: (2, 4), 1: (2, 5)}}, other_inputs=others)
