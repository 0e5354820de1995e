"""Models that go another way at some sizes than at the example's: told with the line, and not as a baked size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graphforge
from graphforge.errors import GraphForgeError, VerificationError
from graphforge.runners.eager import EagerRunner
from graphforge.runners.way import parting
from graphforge.verify.other_way import other_way


def _without_the_batch(x: Tensor) -> Tensor:
    return _flattened(torch.relu(x)) * 2


def _flattened(x: Tensor) -> Tensor:
    return x.squeeze(0)  # the helper's line


def _alone(x: Tensor) -> Tensor:
    if len(x) == 1:
        return x * 2  # alone
    return x + 1  # together


def _the_same(x: Tensor) -> Tensor:
    return torch.relu(x).sum(0) * 2


def _by_data(x: Tensor) -> Tensor:
    if x[0, 0] > 0:
        x = x + 1
    return x * 2


class _Net(torch.nn.Module):
    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (
            _without_the_batch,
            ("squeeze gives 1 dim at x_0 = 1, and 2 dims at the example's sizes", "x.squeeze(0)  # the helper's line"),
        ),
        (_alone, ("goes another way at x_0 = 1", "x * 2  # alone", "x + 1  # together")),
    ],
)
def test_the_line_that_hangs_on_a_size_is_told(
    forward: Callable[[Tensor], Tensor], told: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(VerificationError) as caught:
        graphforge.compile(
            _Net(forward).eval(), torch.randn(3, 4), dynamic_shapes={"x": {0: (1, 4)}}, output=tmp_path / "b"
        )
    text = str(caught.value)
    for part in told:
        assert part in text
    assert "baked in" not in text
    assert "first suspect" not in text
    assert len(text.splitlines()) < 12


def _told(forward: Callable[[Tensor], Tensor], usual: list[Tensor], there: list[Tensor]) -> tuple[str, ...]:
    reference = EagerRunner.of(_Net(forward).eval(), (usual[0],))
    return other_way(reference, [{"x": x.numpy()} for x in usual], [{"x": x.numpy()} for x in there], "x_0 = 1")


def test_a_way_that_is_the_same_at_all_sizes_is_not_told() -> None:
    assert _told(_the_same, [torch.randn(3, 4)], [torch.randn(1, 4)]) == ()


def test_a_way_that_data_changes_is_not_told_as_one_of_sizes() -> None:
    up, down = torch.ones(3, 4), -torch.ones(1, 4)
    assert _told(_by_data, [up], [down]) != ()
    assert _told(_by_data, [up, -up], [down]) == ()


def test_what_ends_earlier_parts_at_its_end() -> None:
    runner = EagerRunner.of(_Net(_by_data).eval(), (torch.ones(3, 4),))
    longer, shorter = (runner.way({"x": (sign * torch.ones(3, 4)).numpy()}) for sign in (1, -1))
    assert [step.name for step in longer][-4:] == ["__getitem__", "gt", "add", "mul"]
    found = parting(longer[:-1], longer)
    assert found is not None
    assert found.one is None
    assert found.other is not None
    assert found.other.name == "mul"
    assert not found.is_of_dims
    assert parting(shorter, shorter) is None


def test_dims_that_must_be_equal_are_to_be_given_one_name(tmp_path: Path) -> None:
    class Product(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x * y

    promised = {"x": {0: (1, 6)}, "y": {0: (1, 6)}}
    with pytest.raises(GraphForgeError, match="dims that must be equal are given one name"):
        graphforge.compile(
            Product().eval(), (torch.randn(3, 4), torch.randn(3, 4)), dynamic_shapes=promised, output=tmp_path / "b"
        )
