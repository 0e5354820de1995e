"""Networks with one place that float16 does not bear, though it bears what their calibration data shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["LOUD", "Example"]

# A network, quiet inputs and those that it gets.
Example: TypeAlias = tuple[nn.Module, Tensor, Tensor]


class _ScaleNorm(nn.Module):
    """The norm of RTMPose's gated unit: a sum of squares, which is beyond float16 long before its root is."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale, self.size = nn.Parameter(torch.ones(1)), size

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.sum(x * x, -1, keepdim=True).sqrt() * self.size**-0.5
        return x / norm.clamp(min=1e-5) * self.scale


class _Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(16, 64), _ScaleNorm(64)
        self.up, self.down, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = y + self.down(torch.relu(self.up(y / 100)))
        out: Tensor = self.head(self.norm(y))
        return out


class _Square(nn.Module):
    """The squared ReLU of Primer and RTMPose."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 2


class _Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.square = nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish(), _Square()
        self.body, self.pool, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(4), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.square(self.body(self.act(self.stem(x))))
        out: Tensor = self.head(self.pool(y * 1e-3).flatten(1))
        return out


class _Attention(nn.Module):
    """Scores that nobody has divided: among thousands float16 has steps of one, and nothing overflows."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(-2, -1)
        out: Tensor = scores.softmax(-1) @ self.value(x)
        return out


class _Sharp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.norm = nn.Linear(8, 16), _Attention(), nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.attention(self.embed(x))))
        return out


def _of(kind: Callable[[], nn.Module], shape: tuple[int, ...], loud: float) -> Callable[[], Example]:
    def build() -> Example:
        torch.manual_seed(0)
        return kind().eval(), torch.randn(shape), torch.randn(shape) * loud

    return build


# By name: how it is built.
LOUD: dict[str, Callable[[], Example]] = {
    "scale_norm": _of(_Gated, (4, 9, 16), 60.0),
    "squared_relu": _of(_Squared, (2, 3, 8, 8), 1500.0),
    "large_scores": _of(_Sharp, (2, 12, 8), 12.0),
}
