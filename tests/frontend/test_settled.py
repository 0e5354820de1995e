"""What is asked of sizes and is the same at every promised one needs no guard."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.utils._sympy.functions import FloorDiv, Mod

from graphforge.call import input_tree
from graphforge.frontend.capture import capture
from graphforge.frontend.settled import Promised, settled
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare

_N, _M, _SAME = sympy.symbols("n m same", integer=True, positive=True)
_PADDED = _N + Mod(512 - Mod(_N, 512), 512)


@pytest.mark.parametrize(
    ("expression", "high", "answer"),
    [
        (_PADDED, 32, sympy.Integer(512)),
        (_PADDED, 512, sympy.Integer(512)),
        (_PADDED, 513, None),
        (sympy.Eq(Mod(_PADDED, 512), 0), 5000, sympy.true),
        (sympy.Gt(FloorDiv(_N, 3), FloorDiv(_N, 2)), 900, sympy.false),
        (sympy.Ge(FloorDiv(_N * _M, 2), FloorDiv(_N, 2)), 64, sympy.true),
        (sympy.Ge(FloorDiv(_N, 2), FloorDiv(_M, 2)), 64, None),
        (sympy.Ge(FloorDiv(_N, 2), FloorDiv(_M, 2)), 10_000_000, None),
        (sympy.Ge(FloorDiv(_N, 2), FloorDiv(_SAME, 3)), 64, sympy.true),
        (sympy.Or(sympy.Eq(Mod(_N, 2), 0), sympy.Eq(Mod(_N, 2), 1)), 64, sympy.true),
        (sympy.And(sympy.Lt(FloorDiv(_N, 2), _N), sympy.Eq(Mod(_M, 2), 1)), 64, None),
        (sympy.Eq(Mod(10, Mod(_N, 3)), 0), 9, None),
        (sympy.Lt(sympy.Max(_N, 8), sympy.Symbol("of_data") + FloorDiv(_N, 2)), 9, None),
    ],
)
def test_an_answer_is_given_where_every_size_gives_it(expression: Any, high: int, answer: Any) -> None:
    promised = Promised()
    promised.dims = {_N: "n", _M: "m", _SAME: "n"}
    promised.ranges = {"n": range(2, high + 1), "m": range(2, 10)}
    assert settled(promised, expression) == answer


class _InWindows(nn.Module):
    """Padded to whole windows, whose number is counted by `torch.div`, as it takes a number."""

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        missing = (64 - length % 64) % 64
        padded = nn.functional.pad(x, (0, missing)) if missing > -1 else x
        count: Any = torch.div(padded.shape[1], 32, rounding_mode="trunc")
        pieces = padded.view(x.shape[0], int(count), 32)
        return pieces.cumsum(1).flatten(1)[:, :length]


@pytest.mark.parametrize("high", [64, 200])
def test_a_length_that_is_padded_to_whole_windows_varies(high: int) -> None:
    others = [(torch.rand(2, length),) for length in (2, 31, high)]
    lower_and_compare(_InWindows(), (torch.rand(2, 12),), dynamic={"x": {1: (2, high)}}, other_inputs=others)


class _Shorter(nn.Module):
    """Two halves of different make, and the shorter one taken."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, ::2], x[:, : x.shape[1] // 2]
        short = second.shape[1] if second.shape[1] <= first.shape[1] else 1
        return first[:, :short] * second[:, :short]


def test_a_comparison_that_all_sizes_agree_about_leaves_no_guard() -> None:
    model = _Shorter()
    tree = input_tree(model, (torch.rand(2, 9),), {})
    captured = capture(model, tree, tree.spec().with_dynamic({"x": {1: DimRange("n", 4, 4000)}}))
    (given,) = captured.graph_module.graph.find_nodes(op="placeholder")
    guards = [guard.expr for guard in given.meta["val"].fake_mode.shape_env.guards]
    assert not [one for one in guards if one.has(FloorDiv)]


def test_sizes_of_1_are_left_out_where_that_is_asked_for() -> None:
    promised = Promised()
    promised.dims, promised.ranges = {_N: "n", _M: "m"}, {"n": range(1, 9), "m": range(4, 9)}
    broadcast = sympy.Eq(_N * FloorDiv(_M, 2), FloorDiv(_M, 2))
    assert settled(promised, broadcast) is None
    assert settled(promised, broadcast, least=2) == sympy.false
