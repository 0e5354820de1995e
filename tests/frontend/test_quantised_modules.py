"""Eager-quantised models: the numbers of torch's own quantised kernels, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn.quantized import FloatFunctional

from tests.frontend.helpers import lower_and_compare

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.skipif(
        "fbgemm" not in torch.backends.quantized.supported_engines,
        reason="this torch has no kernels for quantised layers",
    ),
]


class Between(nn.Module):
    """Quantised, a network, and back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.enter, self.network, self.leave = quantization.QuantStub(), network, quantization.DeQuantStub()

    def forward(self, x: Tensor) -> Any:
        return self.leave(self.network(self.enter(x)))


def _quantised(network: nn.Module, shape: tuple[int, ...], fused: list[list[str]] | None = None) -> nn.Module:
    torch.manual_seed(5)
    model = Between(network).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.running_mean)  # type: ignore[arg-type]
    if fused:
        model.network = quantization.fuse_modules(model.network, fused)
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    quantization.prepare(model, inplace=True)
    for _ in range(4):
        model(torch.randn(8, *shape))
    quantization.convert(model, inplace=True)
    return model


class Residual(nn.Module):
    """Sums, products, concatenation, averages: what computes new values on a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, 1, 1)
        self.relu, self.head = nn.ReLU(), nn.Linear(12, 5)
        self.sum, self.product, self.both = FloatFunctional(), FloatFunctional(), FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.first(x)))
        y = self.sum.add_relu(y, self.second(y))
        y = nn.functional.max_pool2d(y, 2)
        y = self.both.cat([y, self.product.mul(y, y)], 1)
        result: Tensor = self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))
        return result


_NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[list[str]] | None]] = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 4)), (9,), None),
    "fused perceptron": (lambda: nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 4)), (9,), [["0", "1"]]),
    "residual": (Residual, (3, 8, 8), None),
    "fused residual": (Residual, (3, 8, 8), [["first", "norm", "relu"]]),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(4, 8, 3, 2, 1), nn.ReLU(), nn.Conv1d(8, 4, 1)), (4, 12), None),
    "groups": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, dilation=2), nn.Sigmoid()), (4, 9, 9), None),
    "gates": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Hardswish(), nn.Linear(8, 8), nn.LeakyReLU(0.1)), (6,), None),
    "clipped": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.AvgPool2d(2), nn.Conv2d(4, 2, 1)),
        (3, 10, 10),
        None,
    ),
}


@pytest.mark.parametrize("name", _NETWORKS)
def test_a_quantised_network_gives_the_same_numbers(name: str) -> None:
    make, shape, fused = _NETWORKS[name]
    model = _quantised(make(), shape, fused)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(9))
    others = [(torch.randn(size, *shape, generator=torch.Generator().manual_seed(size)),) for size in (1, 5)]
    lower_and_compare(model, (x,), dynamic={"x": {0: (1, 6)}}, other_inputs=others)


def test_the_model_is_as_it_was_after_a_capture() -> None:
    model = _quantised(nn.Sequential(nn.Linear(9, 16), nn.ReLU()), (9,))
    before = [type(module) for module in model.modules()]
    lower_and_compare(model, (torch.randn(2, 9),))
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize("scale", [0.0, 0.3, 40.0])
def test_layers_that_quantise_their_input_as_it_comes(scale: float) -> None:
    torch.manual_seed(3)
    model = quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), {nn.Linear})
    lower_and_compare(model, (torch.randn(3, 8) * scale,), other_inputs=[(torch.rand(3, 8) - 2,)])
