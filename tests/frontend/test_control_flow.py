"""cond, while_loop and scan as If, Loop and Scan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from graphforge.call import input_tree
from graphforge.errors import LoweringError
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import lower
from tests.frontend.helpers import lower_and_compare


class _Loop(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        def goes_on(i: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (i < 9) & (y.abs().sum() > 0.5)

        def body(i: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return i + 1, self.linear(y) * 0.5

        return while_loop(goes_on, body, (torch.zeros((), dtype=torch.int64), x))


def test_while_loop_stops_where_eager_stops() -> None:
    outcome = lower_and_compare(
        _Loop(),
        [torch.full((2, 3), 5.0)],
        dynamic={"x": {0: (1, 9)}},
        other_inputs=[[torch.zeros(4, 3)], [torch.randn(1, 3) * 100]],
    )
    assert outcome.counts["Loop"] == 1


def test_scan_over_a_dynamic_axis() -> None:
    def function(x: torch.Tensor) -> Any:
        state, rows = scan(lambda state, row: (state + row, state * 2 + row), torch.zeros(3), x)
        return state, rows

    outcome = lower_and_compare(
        function, [torch.randn(5, 3)], dynamic={"x": {0: (2, 9)}}, other_inputs=[[torch.randn(8, 3)]]
    )
    assert outcome.counts["Scan"] == 1


def test_cond_inside_cond_and_with_writes() -> None:
    def function(x: torch.Tensor) -> Any:
        y = x * 1

        def positive(y: torch.Tensor) -> Any:
            return torch.cond(y.max() > 3, lambda y: y * 2, lambda y: (y * 1).sub_(1), (y,))

        chosen = torch.cond(x.sum() > 0, positive, lambda y: y.abs() * 1, (y,))
        y.add_(100)
        return chosen.add_(1), y

    lower_and_compare(
        function, [torch.ones(2, 3)], other_inputs=[[torch.full((2, 3), 4.0)], [torch.full((2, 3), -1.0)]]
    )


def test_a_higher_order_operator_without_lowering_is_named() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x * 3, (x,))

    inputs = input_tree(Model(), [torch.ones(2)], {})
    captured = capture(Model(), inputs, inputs.spec(), method="export")
    for node in captured.graph_module.graph.nodes:
        if node.target is torch.ops.higher_order.cond:
            node.target = torch.ops.higher_order.flex_attention
    with pytest.raises(LoweringError, match="higher-order operator flex_attention has no lowering"):
        lower(captured)
