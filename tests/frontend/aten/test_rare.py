"""Operators that few models have agree with eager, under whichever of their names a capture meets them.

aten.pdist.default, aten._pdist_forward.default; aten.linalg_slogdet.default, aten._linalg_slogdet.default,
aten.slogdet.default, aten.logdet.default; aten.lgamma.default, aten.special_gammaln.default, prims.lgamma.default;
aten.cummax.default, aten.cummin.default; aten.erfinv.default, aten.special_erfinv.default, prims.erf_inv.default,
aten.special_ndtri.default, prims.ndtri.default; aten.convolution_backward.default; aten.conv_tbc.default;
aten._trilinear.default; prims.collapse.default, prims.split_dim.default, prims.view_of.default;
aten.hamming_window.default, aten.hamming_window.periodic, aten.hamming_window.periodic_alpha,
aten.hamming_window.periodic_alpha_beta.
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


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_lstm_with_a_projected_state_at_any_length(bidirectional: bool, biases: bool) -> None:
    layer = nn.LSTM(4, 6, 2, bias=biases, proj_size=3, batch_first=True, bidirectional=bidirectional)
    others = [(_random(*size, 4),) for size in ((1, 1), (3, 2), (4, 20))]
    outcome = lower_and_compare(
        layer, (_random(2, 5, 4),), dynamic={"input": {0: (1, 4), 1: (1, 20)}}, other_inputs=others
    )
    assert outcome.counts["Scan"] == (4 if bidirectional else 2)


def test_lstm_with_a_projected_state_over_many_steps() -> None:
    assert lower_and_compare(nn.LSTM(4, 6, proj_size=3), (_random(200, 2, 4),)).counts["Scan"] == 1


def test_lstm_by_a_trace() -> None:
    lower_and_compare(nn.LSTM(2, 3, 2, bidirectional=True, batch_first=True), (_random(2, 5, 2),), method="trace")


@pytest.mark.parametrize("function", [torch.cummax, torch.cummin])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_extremes_so_far(function: Any, dtype: torch.dtype) -> None:
    """Equal values, which the last one stands for; whole numbers at both ends of their range."""
    x = (_random(3, 9, 2) * 2).round().abs().to(dtype)
    others = [(x[:, :1],), (x.repeat(1, 3, 1),)]
    lower_and_compare(
        lambda x: (*function(x, 1), *function(x, -1)), (x,), dynamic={"x": {1: (1, 30)}}, other_inputs=others
    )


@pytest.mark.parametrize("function", [torch.cummax, torch.cummin])
def test_extremes_so_far_among_nan_and_infinities(function: Any) -> None:
    nan, inf = math.nan, math.inf
    x = torch.tensor([[-inf, 1.0, nan, 2.0, nan, 3.0], [inf, inf, -inf, 0.0, 0.0, nan]])
    lower_and_compare(lambda x: (*function(x, 1), *function(x, 0), *function(x[0, 0], 0)), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_of_the_error_function(dtype: torch.dtype) -> None:
    far = 1 - torch.logspace(-15, -1, 30, dtype=torch.float64)
    ends = torch.tensor([1.0, -1.0, 0.0, 1.5], dtype=torch.float64)
    x = torch.cat([torch.linspace(-0.99, 0.99, 61, dtype=torch.float64), far, -far, ends]).to(dtype)
    lower_and_compare(lambda x: (torch.erfinv(x), torch.special.erfinv(x)), (x,))
    small = torch.logspace(-30, -1, 30, dtype=torch.float64)
    p = torch.cat([torch.linspace(0.0, 1.0, 41, dtype=torch.float64), small]).to(dtype)
    lower_and_compare(lambda p: torch.special.ndtri(p), (p,))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (3, 0, 2), (2, 2, 2)])
def test_gradients_of_a_convolution(groups: int, transposed: bool, stride: int, padding: int, dilation: int) -> None:
    """Also at sizes that strides do not divide."""
    kernel = _random(4, 6 // groups, 3, 2)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def forward(x: Tensor, grad: Tensor) -> Any:
        arguments = [stride] * 2, [padding] * 2, [dilation] * 2, transposed, [0, 0], groups, [True, True, True]
        return torch.ops.aten.convolution_backward(grad, x, kernel, [6 if transposed else 4], *arguments)

    def inputs(batch: int, height: int) -> tuple[Tensor, Tensor]:
        x = _random(batch, 4 if transposed else 6, height, 11)
        y = functional.conv_transpose2d(x, kernel, **options) if transposed else functional.conv2d(x, kernel, **options)
        return x, torch.randn(y.shape, generator=torch.Generator().manual_seed(4))

    lower_and_compare(forward, inputs(2, 12))


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8])
def test_quantised_by_channel_inside_a_model(dtype: torch.dtype) -> None:
    """Ties among them: a tie rounds to an even number once the zero point is added."""
    scales, zeros = torch.tensor([0.1, 0.25, 0.5]), torch.tensor([3, 0, -1 if dtype is torch.qint8 else 1])
    x = torch.cat([_random(2, 3, 40) * 10, (torch.arange(-20, 20) / 8).expand(2, 3, -1)], -1)

    def forward(x: Tensor) -> Any:
        quantised = torch.quantize_per_channel(x, scales, zeros, 1, dtype)
        return quantised.dequantize(), quantised.int_repr()

    lower_and_compare(forward, (x,))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_quantised_tensors_made_of_their_numbers(dtype: torch.dtype) -> None:
    scales, zeros = torch.tensor([0.1, 0.25, 0.5]), torch.tensor([3, 0, 1])

    def forward(x: Tensor) -> Any:
        library: Any = torch
        whole = library._make_per_tensor_quantized_tensor(x, 0.1, 8)
        channels = library._make_per_channel_quantized_tensor(x, scales, zeros, 0)
        return torch.dequantize(whole), whole.int_repr(), channels.dequantize(), torch.dequantize([channels, whole])

    lower_and_compare(forward, (torch.arange(100, 118, dtype=dtype).view(3, 6),))


def test_ties_of_quantised_numbers() -> None:
    x = torch.arange(-200, 200) / 8.0
    lower_and_compare(lambda x: torch.quantize_per_tensor(x, 0.25, 3, torch.quint8).int_repr(), (x,))


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


@pytest.mark.parametrize("length", [1, 2, 16])
def test_hamming_windows_have_the_coefficients_of_torch(length: int) -> None:
    """ONNX's own has 25/46 and 21/46 where torch has 0.54 and 0.46."""

    def forward(x: Tensor) -> tuple[Tensor, ...]:
        made = [torch.hamming_window(length), torch.hamming_window(length, periodic=False)]
        made += [torch.hamming_window(length, False, 0.6), torch.hamming_window(length, True, 0.5, 0.4)]
        return x + made[0], *made[1:]

    outcome = lower_and_compare(forward, (torch.zeros(length),))
    assert not outcome.lowered.fallbacks
