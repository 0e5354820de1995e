"""Pooling agrees with eager: padding, rounding up, adaptive windows of any size, unpooling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.frontend.helpers import lower_and_compare

# of the faults below: whichever is installed; when one is gone, its test says so by passing, which is strict
_RUNTIME = f"ONNX Runtime {onnxruntime.__version__}"

_DYNAMIC = {"x": {0: (1, 4), 2: (6, 40), 3: (6, 40)}}
_EVEN: Any = {"x": {0: (1, 4), 2: (6, 40, 2), 3: (6, 40, 2)}}


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)


_OTHERS = [(_image(1, 3, 20, 8),), (_image(4, 3, 6, 38),)]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 2, 1, 1), (2, 3, 1, 1), (3, 2, 1, 2)])
def test_max_pool(kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)

    for height, width in itertools.product((6, 7, 8, 9), (9, 10)):
        assert lower_and_compare(forward, (_image(2, 3, height, width),)).nodes == 1


def test_max_pool_rounding_up_at_dynamic_sizes() -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)

    outcome = lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_EVEN, other_inputs=_OTHERS)
    assert outcome.nodes == 1


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool_of_a_sequence_of_any_length(ceil_mode: bool) -> None:
    def forward(x: Tensor) -> Any:
        return functional.max_pool1d(x, 3, ceil_mode=ceil_mode), functional.max_pool1d(x[0], 2, 3, 1, 2, ceil_mode)

    others = [(_image(2, 3, length),) for length in range(6, 26)]
    lower_and_compare(forward, (_image(2, 3, 17),), dynamic={"x": {2: (6, 25)}}, other_inputs=others)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 3, 1, 1), (2, 3, 1, 1), (2, 3, 1, 2)])
def test_pools_drop_a_window_that_starts_in_the_padding_at_every_size(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    """The promise of sizes needs no condition: the formula for their number has none."""

    def forward(x: Tensor) -> Any:
        averages = functional.avg_pool2d(x, kernel, stride, padding, ceil_mode=True)
        sums = functional.avg_pool2d(x, kernel, stride, padding, ceil_mode=True, divisor_override=1)
        return functional.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode=True), averages, sums

    others = [(_image(1, 2, height, 11),) for height in range(7, 21)]
    lower_and_compare(forward, (_image(1, 2, 12, 11),), dynamic={"x": {2: (7, 20)}}, other_inputs=others)


def test_averages_of_integers_are_cut_off() -> None:
    def forward(x: Tensor) -> Any:
        return [
            functional.avg_pool2d(x, 2),
            functional.avg_pool2d(x, 3, 2, 1),
            functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            functional.avg_pool2d(x, 2, 2, ceil_mode=True),
            functional.avg_pool2d(x, 3, 2, 1, divisor_override=4),
        ]

    lower_and_compare(forward, (torch.arange(-60, 66).reshape(1, 2, 7, 9),))


def test_max_pool_whose_last_window_hangs_over_by_a_whole_kernel() -> None:
    """Possible with dilation; ONNX Runtime refuses end padding that wide."""

    def forward(x: Tensor) -> Any:
        return functional.max_pool2d(x, (3, 2), None, (1, 1), (1, 2), ceil_mode=True, return_indices=True)

    lower_and_compare(forward, (_image(1, 2, 3, 6),))


def test_max_pool_never_picks_padding() -> None:
    x = torch.full((1, 1, 4, 4), -1e30)
    lower_and_compare(lambda x: functional.max_pool2d(x, 3, 2, 1), (x,))
    x = torch.full((1, 1, 4, 4), -math.inf)
    lower_and_compare(lambda x: functional.max_pool2d(x, 2), (x,))


@pytest.mark.xfail(strict=True, reason=f"{_RUNTIME} pads MaxPool by the least finite number, torch by -inf")
def test_max_pool_of_minus_infinity_at_the_border() -> None:
    x = torch.full((1, 1, 4, 4), -math.inf)
    lower_and_compare(lambda x: functional.max_pool2d(x, 3, 2, 1), (x,))


@pytest.mark.xfail(strict=True, reason=f"{_RUNTIME}'s MaxPool loses a NaN that is not the first of its window")
def test_max_pool_of_nan() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 2, 3] = math.nan
    lower_and_compare(lambda x: functional.max_pool2d(x, 2), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.int32, torch.uint8, torch.int8])
def test_max_pool_of_other_dtypes(dtype: torch.dtype) -> None:
    x = (_image(2, 3, 6, 6) * 20).to(dtype)
    lower_and_compare(lambda x: functional.max_pool2d(x, 2, padding=1), (x,))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool_indices_count_within_one_plane(rank: int) -> None:
    function: Callable[..., Any] = getattr(functional, f"max_pool{rank}d")

    def forward(x: Tensor) -> Any:
        return function(x, 2, return_indices=True)

    lower_and_compare(forward, (_image(2, 3, *([8] * rank)),))
    lower_and_compare(forward, (_image(3, *([8] * rank)),))  # no batch


def test_unused_indices_cost_nothing() -> None:
    outcome = lower_and_compare(
        lambda x: functional.max_pool2d(x, 2, return_indices=True)[0], (_image(2, 3, 8, 8),), dynamic=_DYNAMIC
    )
    assert outcome.nodes == 1


def test_unpool() -> None:
    def forward(x: Tensor) -> Tensor:
        values, indices = functional.max_pool2d(x, 2, return_indices=True)
        return functional.max_unpool2d(values, indices, [2, 2])

    lower_and_compare(forward, (_image(2, 3, 12, 16),))
    lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_EVEN, other_inputs=_OTHERS)


@pytest.mark.parametrize("include_padding", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("divisor", [None, 5])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_average_pool(padding: int, include_padding: bool, divisor: int | None, ceil_mode: bool) -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 3, 2, padding, ceil_mode, include_padding, divisor)

    for size in ((12, 16), (13, 14), (8, 9)):
        assert lower_and_compare(forward, (_image(2, 3, *size),)).nodes <= (1 if divisor is None else 2)


def test_average_pool_at_dynamic_sizes() -> None:
    for ceil_mode in (False, True):

        def forward(x: Tensor, ceil_mode: bool = ceil_mode) -> Tensor:
            return functional.avg_pool2d(x, 3, 2, 1, ceil_mode)

        lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_EVEN, other_inputs=_OTHERS)


def test_average_pool_1d_3d_and_without_batch() -> None:
    lower_and_compare(nn.AvgPool1d(3, 2, 1), (_image(2, 3, 9),))
    lower_and_compare(nn.AvgPool3d((1, 2, 3), padding=(0, 1, 1)), (_image(2, 3, 5, 6, 7),))
    lower_and_compare(nn.AvgPool2d(2), (_image(3, 6, 6),))


_TARGETS: list[Any] = [1, 7, (3, 17), (1, 5), (20, 30)]


@pytest.mark.parametrize("target", _TARGETS, ids=str)
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_pool(kind: str, target: Any) -> None:
    """Windows follow the input's size at run time: no kernel is baked in."""
    function: Callable[..., Any] = getattr(functional, f"adaptive_{kind}_pool2d")

    def forward(x: Tensor) -> Tensor:
        result: Tensor = function(x, target)
        return result

    lower_and_compare(forward, (_image(2, 3, 13, 17),))
    outcome = lower_and_compare(forward, (_image(2, 3, 13, 17),), dynamic=_DYNAMIC, other_inputs=_OTHERS)
    if target == 1:
        assert outcome.nodes == 1


def test_adaptive_pool_into_equal_windows_is_one_node() -> None:
    assert lower_and_compare(nn.AdaptiveAvgPool2d((3, 5)), (_image(2, 3, 12, 15),)).counts == {"AveragePool": 1}
    assert lower_and_compare(nn.AdaptiveMaxPool2d((3, 5)), (_image(2, 3, 12, 15),)).counts == {"MaxPool": 1}


def test_adaptive_pool_that_keeps_an_axis() -> None:
    lower_and_compare(nn.AdaptiveAvgPool2d((None, 1)), (_image(2, 3, 13, 17),))

    def halves(x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, (x.shape[2] // 2, x.shape[3]))

    lower_and_compare(halves, (_image(2, 3, 13, 17),), dynamic=_DYNAMIC, other_inputs=_OTHERS)


@pytest.mark.parametrize("target", [1, 4, (4, 5), (13, 17)], ids=str)
def test_adaptive_max_pool_indices(target: Any) -> None:
    def forward(x: Tensor) -> Any:
        return functional.adaptive_max_pool2d(x, target, return_indices=True)

    ties = torch.randint(0, 3, (2, 3, 13, 17), generator=torch.Generator().manual_seed(0)).float()
    lower_and_compare(forward, (ties,))
    if target == 4:
        lower_and_compare(forward, (ties,), dynamic=_DYNAMIC, other_inputs=_OTHERS)


def test_adaptive_pool_1d_3d() -> None:
    lower_and_compare(nn.AdaptiveAvgPool1d(7), (_image(2, 3, 17),), dynamic={"input": {2: (7, 30)}})
    lower_and_compare(nn.AdaptiveAvgPool3d((2, 3, 5)), (_image(2, 3, 5, 7, 9),))
    lower_and_compare(nn.AdaptiveMaxPool3d((2, 3, 5)), (_image(2, 3, 5, 7, 9),))
    lower_and_compare(nn.AdaptiveMaxPool1d(7), (_image(3, 17),))


@pytest.mark.parametrize("method", ["export-strict", "trace"])
def test_decomposed_forms(method: str) -> None:
    lower_and_compare(nn.MaxPool2d(3, 2, 1), (_image(2, 3, 8, 8),), method=method)
    lower_and_compare(nn.AdaptiveAvgPool2d(3), (_image(2, 3, 8, 8),), method=method)


def test_empty_batch() -> None:
    for layer in (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d(1)):
        lower_and_compare(layer, (_image(0, 3, 8, 8),))


def test_half() -> None:
    for layer in (nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(5), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(5)):
        lower_and_compare(
            layer,
            (_image(2, 3, 13, 17, dtype=torch.float16),),
            dynamic={"input": _DYNAMIC["x"]},
            other_inputs=[(_OTHERS[0][0].half(),)],
        )


@pytest.mark.parametrize("method", ["max_pool2d", "avg_pool2d"])
def test_a_window_that_hangs_over_the_end_of_a_smaller_input(method: str) -> None:
    """Rounded up there is one window where rounded down there would be none."""
    pool = getattr(functional, method)
    x, other = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 1, 7)
    lower_and_compare(lambda x: pool(x, 2, ceil_mode=True), (x,), dynamic={"x": {3: (3, 8)}}, other_inputs=[(other,)])
    lower_and_compare(lambda x: pool(x, (1, 3), stride=9, ceil_mode=True), (x[..., :1],))
