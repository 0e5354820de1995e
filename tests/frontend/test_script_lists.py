"""Scripts that append to lists: over a dynamic length the loop is one Scan, and the lists are stacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphforge.call import input_tree
from graphforge.errors import CaptureError
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import lower
from graphforge.spec import DimRange
from tests.frontend.helpers import assert_same, flat_tensors, operators, run_model

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

_DIMS = {0: DimRange("batch", 1, 6), 1: DimRange("time", 1, 12)}
_SIZES = ((2, 5), (1, 1), (6, 12))


class Recurrent(nn.Module):
    """The state begins with the batch, which varies as well."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, c = torch.zeros(x.size(0), 4), torch.zeros([x.size(0), 4])
        hidden: list[Tensor] = []
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
            hidden.append(h)
        return torch.stack(hidden, 1), c


class TwoLists(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parts: list[Tensor] = []
        sums: list[Tensor] = []
        for t in range(x.size(1)):
            parts.append(x[:, t : t + 1] * 2)
            sums.append(x[:, t].sum(1))
        return torch.cat(parts, 1), torch.stack(sums, -1), parts[-1], sums[0] * len(sums)


class FromTheEnd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.size(0), x.size(2))
        states: list[Tensor] = []
        for t in range(x.size(1)):
            state = torch.tanh(state + x[:, x.size(1) - 1 - t])
            states.append(state)
        return torch.stack(states, 1).flip(1)


class Rows(nn.Module):
    """Over a tensor, and over the list of its slices."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows: list[Tensor] = []
        for row in x:
            rows.append(row.relu())
        columns: list[Tensor] = []
        for column in x.unbind(1):
            columns.append(column - 1)
        return torch.stack(rows), torch.stack(columns, 1)


def _lowered(model: nn.Module, x: Tensor) -> Any:
    torch.manual_seed(0)
    script = torch.jit.script(model.eval())
    tree = input_tree(script, (x,), {})
    return script, lower(capture(script, tree, tree.spec().with_dynamic({"x": _DIMS})))


@pytest.mark.parametrize(("model", "scans"), [(Recurrent(), 1), (TwoLists(), 1), (FromTheEnd(), 1), (Rows(), 2)])
def test_lists_follow_a_dynamic_length(model: nn.Module, scans: int) -> None:
    script, lowered = _lowered(model, torch.randn(3, 4, 3))
    assert operators(lowered.model)["Scan"] == scans
    for batch, time in _SIZES:
        x = torch.randn(batch, time, 3)
        assert_same(run_model(lowered.model, {"x": x}), flat_tensors(script(x)))


class OnlySome(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        some: list[Tensor] = []
        for t in range(x.size(1)):
            if t % 2 == 0:
                some.append(x[:, t])
        return torch.stack(some, 1)


def test_a_list_that_grows_in_some_rounds_only_is_refused() -> None:
    with pytest.raises(CaptureError, match="promised to vary"):
        _lowered(OnlySome(), torch.randn(3, 4, 3))
