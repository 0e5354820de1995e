"""Scripts that decide over values: if, while, break, loops over a dynamic length, assertions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphforge.call import input_tree
from graphforge.errors import GraphForgeError
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import lower
from graphforge.spec import DimRange
from tests.frontend.helpers import assert_same, flat_tensors, run_model

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Branches(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        count = 1
        if x.sum() > 0:
            y = torch.sigmoid(x) * 2
        elif bool(x.min() < -2):
            y = x - 5
        else:
            y = x
        level = float(x.abs().max())
        if level > 0.5 and level < 3.0:
            count = int(x.argmax()) + 2
        assert bool(x.max() < 1e6)
        return y * count + level, count


class Doubles(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        rounds = 0
        while bool(x.abs().sum() < 30) and rounds < 20:
            x = x * 2 + 0.1
            rounds += 1
        return x, rounds


class BreaksOff(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for place in range(5):
            x = x + place
            if float(x.max()) > 4.0:
                break
        return x


class Steps(nn.Module):
    """A recurrence by hand, over a length that varies."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], 3)
        for place in range(x.shape[1]):
            state = torch.tanh(self.mix(x[:, place]) + state * 0.5)
        return state


class Numbers(nn.Module):
    """Arithmetic on whole numbers, whose results are Python's floats."""

    def forward(self, x: Tensor) -> tuple[float, float, float]:
        count = int(x.sum())
        return math.sqrt(count), count / int(x[0]), 10 / count


def _check(model: nn.Module, inputs: list[Tensor], dims: dict[int, DimRange] | None = None) -> None:
    torch.manual_seed(0)
    script = torch.jit.script(model.eval())
    tree = input_tree(script, (inputs[0],), {})
    lowered = lower(capture(script, tree, tree.spec().with_dynamic({"x": dims} if dims else {}))).model
    for x in inputs:
        wanted = model(x)
        doubles = isinstance(wanted, tuple) and isinstance(wanted[0], float)
        expected = [torch.tensor(one, dtype=torch.float64) for one in wanted] if doubles else flat_tensors(wanted)
        assert_same(run_model(lowered, {"x": x}), expected)


def test_an_if_over_values_chooses() -> None:
    _check(Branches(), [torch.tensor(values) for values in ([0.2, 0.7], [-0.1, 0.05], [-3.0, 1.0], [4.0, 5.0])])


def test_roots_and_quotients_of_whole_numbers_are_doubles() -> None:
    _check(Numbers(), [torch.tensor(values) for values in ([3, 4], [7, 60])])


def test_a_while_over_values_loops() -> None:
    _check(Doubles(), [torch.tensor([0.2, 0.7]), torch.tensor([90.0, 1.0]), torch.tensor([1e-9, 0.0])])


def test_a_loop_may_break_off() -> None:
    _check(BreaksOff(), [torch.tensor([0.2, 0.7]), torch.tensor([9.0, 1.0]), torch.tensor([-90.0, 0.0])])


def test_a_loop_over_a_length_follows_it() -> None:
    inputs = [torch.rand(2, length, 3) for length in (5, 2, 9)]
    _check(Steps(), inputs, {1: DimRange("length", 2, 9)})


class Grows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return torch.cat([x, x])
        return x


class Collects(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        kept = [x]
        if x.sum() > 0:
            kept.append(x * 2)
        return kept


@pytest.mark.parametrize(
    ("model", "told"), [(Grows(), r"tensors of \[4\] and of \[2\]"), (Collects(), "changes something inside an if")]
)
def test_what_cannot_be_chosen_between_is_refused(model: nn.Module, told: str) -> None:
    script: Any = torch.jit.script(model)
    tree = input_tree(script, (torch.rand(2),), {})
    with pytest.raises(GraphForgeError, match=told):
        capture(script, tree, tree.spec())
