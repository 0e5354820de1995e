"""Models trained for quantisation, in eval mode: the same bits as eager, scales in numbers, tensors and by channel.

What the calls below become, by the way of capturing and the version of torch:
aten.fake_quantize_per_tensor_affine.default, aten.fake_quantize_per_tensor_affine_cachemask.default;
aten.fake_quantize_per_tensor_affine.tensor_qparams,
aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default;
aten.fake_quantize_per_channel_affine.default, aten.fake_quantize_per_channel_affine_cachemask.default; of modules in
training for it aten._fused_moving_avg_obs_fq_helper.default, aten.fused_moving_avg_obs_fake_quant.default.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization

from graphforge.errors import LoweringError
from tests.frontend.helpers import lower_and_compare, lower_only

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_one_scale_for_all(rank: int) -> None:
    x = torch.randn([5] * rank) * 4
    scale, zero = torch.tensor([0.037]), torch.tensor([3], dtype=torch.int32)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.fake_quantize_per_tensor_affine(x, 0.11, 7, 0, 255),
            torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127),
        )

    outcome = lower_and_compare(forward, (x,))
    assert not outcome.lowered.fallbacks


def test_a_tie_rounds_as_in_torch() -> None:
    x = torch.arange(-20, 20).float() * 0.05
    lower_and_compare(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127), (x,))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_scale_for_each_channel(axis: int) -> None:
    x = torch.randn(3, 4, 5) * 2
    scale = torch.rand(x.shape[axis]) * 0.1 + 0.01
    zero = torch.randint(-3, 3, (x.shape[axis],), dtype=torch.int32)
    lower_and_compare(lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero, axis, -128, 127), (x,))


def test_any_number_of_rows() -> None:
    scale, zero = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2], dtype=torch.int32)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255),
            torch.fake_quantize_per_channel_affine(x, scale, zero, 1, 0, 255),
        )

    others = [(torch.randn(rows, 3) * 4,) for rows in (1, 9)]
    lower_and_compare(forward, (torch.randn(5, 3) * 4,), dynamic={"x": {0: (1, 9)}}, other_inputs=others)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantize, self.dequantize = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(self.quantize(x))))
        result: Tensor = self.dequantize(self.linear(y.mean((2, 3))))
        return result


def _prepared(backend: str) -> nn.Module:
    torch.manual_seed(0)
    model = Small().train()
    plain: Any = quantization.QConfig(
        activation=quantization.FakeQuantize.with_args(observer=quantization.MovingAverageMinMaxObserver),
        weight=quantization.default_per_channel_weight_fake_quant,
    )
    model.qconfig = plain if backend == "plain" else quantization.get_default_qat_qconfig(backend)
    quantization.prepare_qat(model, inplace=True)
    model(torch.randn(4, 3, 8, 8))
    return model.eval()


@pytest.mark.parametrize("backend", ["plain", "x86", "qnnpack"])
def test_a_model_prepared_for_training_with_quantisation(backend: str) -> None:
    model = _prepared(backend).apply(quantization.disable_observer)
    lower_and_compare(model, (torch.randn(2, 3, 8, 8),), dynamic={"x": {0: (1, 4)}})


def test_an_observer_that_still_runs_is_refused_with_the_way_out() -> None:
    with pytest.raises(LoweringError, match="still observes ranges") as refused:
        lower_only(_prepared("x86"), (torch.randn(2, 3, 8, 8),))
    assert any("disable_observer" in note for note in refused.value.notes)
