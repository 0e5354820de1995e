"""Models that differentiate inside their forward: by torch.func, also through their own layers, and by autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.frontend.helpers import lower_and_compare


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


class Forces(nn.Module):
    """A potential and its slope."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Any:
        def potential(y: Tensor) -> Tensor:
            result: Tensor = self.layers(y).sum()
            return result

        return torch.func.grad(potential)(x), potential(x)


def test_the_gradient_of_a_function() -> None:
    def forward(x: Tensor) -> Any:
        return torch.func.grad(lambda y: (y**2).sin().sum())(x)

    lower_and_compare(
        forward, (_random(2, 5),), dynamic={"x": {0: (1, 6)}}, other_inputs=[(_random(6, 5),)], method="auto"
    )


def test_the_gradient_of_the_models_own_layers() -> None:
    torch.manual_seed(0)
    lower_and_compare(
        Forces(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))), (_random(4, 3),), method="auto"
    )
    strided = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.SiLU(), nn.Conv2d(6, 1, 3))
    lower_and_compare(Forces(strided), (_random(2, 3, 9, 10),), method="auto")


def test_a_gradient_by_autograd() -> None:
    def forward(x: Tensor) -> Any:
        with torch.enable_grad():
            y = x.detach().requires_grad_(True)
            return torch.autograd.grad((y**3).sum(), y)[0]

    lower_and_compare(forward, (_random(2, 5),))
