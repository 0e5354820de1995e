"""Programs that torch's own tools quantised: QuantizeLinear for full bytes, plain arithmetic for everything else.

What is called below: quantized_decomposed.quantize_per_tensor.default, quantized_decomposed.quantize_per_tensor.tensor,
quantized_decomposed.dequantize_per_tensor.default, quantized_decomposed.dequantize_per_tensor.tensor,
quantized_decomposed.quantize_per_channel.default, quantized_decomposed.dequantize_per_channel.default.
"""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators
from torch import Tensor

from tests.frontend.helpers import lower_and_compare

_OPERATORS = torch.ops.quantized_decomposed


@pytest.mark.parametrize(
    ("dtype", "low", "high", "native"),
    [
        (torch.int8, -128, 127, 1),
        (torch.uint8, 0, 255, 1),
        (torch.int8, -127, 127, 0),  # as symmetric weights have it
        (torch.uint8, 0, 127, 0),  # half of the range
        (torch.int16, -32768, 32767, 0),
        (torch.int32, -(2**31), 2**31 - 1, 0),
    ],
)
def test_one_scale_for_all(dtype: torch.dtype, low: int, high: int, native: int) -> None:
    x = torch.linspace(-30, 30, 24).reshape(4, 6)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        numbers = _OPERATORS.quantize_per_tensor.default(x, 0.125, 3, low, high, dtype)
        return numbers, _OPERATORS.dequantize_per_tensor.default(numbers, 0.125, 3, low, high, dtype)

    outcome = lower_and_compare(forward, (x,), dynamic={"x": {0: (1, 8)}})
    assert outcome.counts["QuantizeLinear"] == native
    assert not outcome.lowered.fallbacks


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("low", "native"), [(-128, 1), (-127, 0)])
def test_a_scale_for_each_channel(axis: int, low: int, native: int) -> None:
    x = torch.linspace(-30, 30, 12).reshape(3, 4)
    scales, zeros = torch.tensor([0.25, 0.5, 0.125, 1])[: x.shape[axis]], torch.tensor([0, 2, -3, 1])[: x.shape[axis]]

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        told = (scales, zeros, axis, low, 127, torch.int8)
        numbers = _OPERATORS.quantize_per_channel.default(x, *told)
        return numbers, _OPERATORS.dequantize_per_channel.default(numbers, *told)

    outcome = lower_and_compare(forward, (x,))
    assert outcome.counts["QuantizeLinear"] == native
    assert not outcome.lowered.fallbacks


def test_a_bias_of_32_bits_and_scales_in_tensors() -> None:
    bias = torch.tensor([5, -700, 90000], dtype=torch.int32)
    scale, zero = torch.tensor([0.5]), torch.tensor(0)

    def forward(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        told = (-(2**31), 2**31 - 1, torch.int32)
        numbers = _OPERATORS.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
        bias = _OPERATORS.dequantize_per_channel.default(bias, torch.full((3,), 0.25), None, 0, *told)
        return numbers, x + bias * _OPERATORS.dequantize_per_tensor.tensor(numbers, scale, zero, -128, 127, torch.int8)

    outcome = lower_and_compare(forward, (torch.randn(2, 3), bias))
    assert not outcome.lowered.fallbacks
