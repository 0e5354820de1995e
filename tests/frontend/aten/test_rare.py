"""Operators that few models have agree with eager, under whichever of their names a capture meets them.

aten.pdist.default, aten._pdist_forward.default; aten.linalg_slogdet.default, aten._linalg_slogdet.default,
aten.slogdet.default, aten.logdet.default; aten.lgamma.default, aten.special_gammaln.default, prims.lgamma.default;
aten.conv_tbc.default; aten._trilinear.default; prims.collapse.default, prims.split_dim.default, prims.view_of.default.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.frontend.helpers import lower_and_compare


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, math.inf])
def test_distances_of_all_pairs(p: float) -> None:
    lower_and_compare(lambda x: functional.pdist(x, p), (_random(5, 3),))


def test_log_determinants() -> None:
    def forward(x: Tensor) -> Any:
        positive = x @ x.mT + torch.eye(3)
        return *torch.linalg.slogdet(x), *torch.slogdet(x[0]), torch.logdet(positive)

    lower_and_compare(forward, (_random(2, 3, 3),))


def test_lgamma() -> None:
    x = torch.cat([torch.linspace(0.05, 40, 60), torch.linspace(-5.35, -0.2, 40), torch.tensor([0.0, -2.0, math.inf])])
    lower_and_compare(lambda x: (torch.lgamma(x), torch.special.gammaln(x)), (x,))


def test_convolution_over_time() -> None:
    lower_and_compare(lambda x, w, b: torch.conv_tbc(x, w, b, 1), (_random(6, 2, 4), _random(3, 4, 5), _random(5)))


def test_trilinear() -> None:
    aten = torch.ops.aten
    cube = (_random(2, 3, 4), _random(2, 3, 4), _random(2, 3, 4))
    lower_and_compare(lambda a, b, c: aten._trilinear(a, b, c, [], [], [], [0, 2], 0), cube)
    lower_and_compare(
        lambda a, b, c: aten._trilinear(a, b, c, [1], [0], [0, 2], [1], 0), (_random(4, 6), _random(5, 6), _random(5))
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_with_a_projected_state(bidirectional: bool) -> None:
    layer = nn.LSTM(4, 6, 2, proj_size=3, batch_first=True, bidirectional=bidirectional)
    state = (_random(4 if bidirectional else 2, 2, 3), _random(4 if bidirectional else 2, 2, 6))
    lower_and_compare(layer, (_random(2, 5, 4), state))


def test_lstm_by_a_trace() -> None:
    lower_and_compare(nn.LSTM(2, 3, 2, bidirectional=True, batch_first=True), (_random(2, 5, 2),), method="trace")


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8])
def test_quantised_inside_a_model(dtype: torch.dtype) -> None:
    def forward(x: Tensor) -> Any:
        quantised = torch.quantize_per_tensor(x, 0.1, 3, dtype)
        return quantised.dequantize(), quantised.int_repr()

    lower_and_compare(forward, (_random(4, 5) * 20,))


def test_views_of_the_primitive_operators() -> None:
    def forward(x: Tensor) -> Any:
        prims = torch.ops.prims
        return prims.collapse(x, 1, 2), prims.split_dim(x, 1, 3), prims.view_of(x) + 1

    lower_and_compare(forward, (_random(2, 6, 4),))
