"""More networks for the sabotage suite: code in `forward`, shared modules, learned scales, heads of detectors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MORE"]

Example: TypeAlias = tuple[nn.Module, tuple[Any, ...]]


def _mixed(x: Tensor, weight: Tensor) -> Tensor:
    """A helper away from any module: two orders of a concatenation, and a slice."""
    both = torch.cat([x, x.flip(-1) * weight], 1)
    return both[:, 1:-1]


class _Functional(nn.Module):
    """Everything in `forward`: no module but itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.kernel = nn.Parameter(torch.randn(12)), nn.Parameter(torch.randn(6, 10, 3, 3) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        y = _mixed(x, self.weight)
        y = F.conv2d(y, self.kernel, padding=1)
        y = F.layer_norm(y, y.shape[-1:])
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        y = torch.where(y > 0.1, y, y * 0.3)
        return F.softmax(y.flatten(2), dim=1).amax(1) - y.mean((1, 2, 3))[:, None]


class _Window(nn.Module):
    """Attention in windows with a bias and a shifted mask, as in Swin."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(2, 16, 16) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        b, h, w, c = x.shape
        windows = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(windows).reshape(-1, 16, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q * 8**-0.5) @ k.transpose(-2, -1) + self.bias
        y = (attention.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c)
        y = self.proj(y).view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, (self.shift, self.shift), (1, 2))


class _Swin(nn.Module):
    """Two blocks and a merge of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(4))
        self.windows = nn.ModuleList([_Window(0), _Window(2)])
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(2))
        self.merge_norm, self.merge = nn.LayerNorm(64), nn.Linear(64, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        for index, (window, mlp) in enumerate(zip(self.windows, self.mlps, strict=True)):
            x = x + window(self.norms[2 * index](x))
            x = x + mlp(self.norms[2 * index + 1](x))
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        out: Tensor = self.merge(self.merge_norm(torch.cat(parts, -1)))
        return out


class _Shared(nn.Module):
    """One block called three times, one activation called in turn with it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6))
        self.act = nn.LeakyReLU(0.1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.act(self.block(x)) + x
        out: Tensor = self.head(self.act(x).mean((2, 3)))
        return out


class _Scale(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Pyramid(nn.Module):
    """A head over three levels with a learned scale for each, as in FCOS, and a layer scale, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.down = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))
        self.lateral = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
        self.gamma = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.tower = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU())
        self.scales = nn.ModuleList(_Scale(value) for value in (0.7, 1.3, 2.1))
        self.boxes = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [F.relu(self.stem(x))]
        for down in self.down:
            levels.append(F.relu(down(levels[-1])) * self.gamma)
        maps = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for index in (1, 0):
            maps[index] = maps[index] + F.interpolate(maps[index + 1], scale_factor=2, mode="nearest")
        found = [scale(self.boxes(self.tower(one))).exp() for scale, one in zip(self.scales, maps, strict=True)]
        return torch.cat([one.flatten(2) for one in found], 2)


class _Bert(nn.Module):
    """Two layers of attention with scores divided by a root and a mask added, as transformers write them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(40, 24), nn.Embedding(12, 24)
        self.norm = nn.LayerNorm(24, eps=1e-12)
        self.layers = nn.ModuleList(_BertLayer() for _ in range(2))
        self.pooler = nn.Linear(24, 24)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])[None]))
        hidden = (1.0 - mask[:, None, None].float()) * -10000.0
        for layer in self.layers:
            x = layer(x, hidden)
        return x, torch.tanh(self.pooler(x[:, 0]))


class _BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.dense, self.first = nn.Linear(24, 24), nn.LayerNorm(24, eps=1e-12)
        self.up, self.down, self.second = nn.Linear(24, 48), nn.Linear(48, 24), nn.LayerNorm(24, eps=1e-12)

    def heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], 3, 8).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self.heads(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(-1, -2)) / 8**0.5 + mask
        context = torch.matmul(scores.softmax(-1), value).permute(0, 2, 1, 3).flatten(2)
        x = self.first(self.dense(context) + x)
        out: Tensor = self.second(self.down(F.gelu(self.up(x))) + x)
        return out


class _Pose(nn.Module):
    """Keypoints by two rows of bins, scaled and normalised, with a gated unit: as RTMPose's head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.SiLU())
        self.final = nn.Conv2d(12, 5, 7, padding=3)
        self.g = nn.Parameter(torch.ones(1))
        self.mlp = nn.Linear(64, 24, bias=False)
        self.uv, self.out = nn.Linear(24, 72, bias=False), nn.Linear(24, 24, bias=False)
        self.gamma, self.beta = nn.Parameter(torch.rand(2, 24)), nn.Parameter(torch.rand(2, 24))
        self.scale = nn.Parameter(torch.full((24,), 0.9))
        self.x, self.y = nn.Linear(24, 32, bias=False), nn.Linear(24, 32, bias=False)

    def normalised(self, x: Tensor) -> Tensor:
        norm = torch.linalg.norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        out: Tensor = x / norm.clamp(min=1e-5) * self.g
        return out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.mlp(self.normalised(self.final(self.features(x)).flatten(2)))
        u, v, base = F.silu(self.uv(self.normalised(f))).split([24, 24, 24], -1)
        q, k = (base.unsqueeze(2) * self.gamma + self.beta).unbind(2)
        kernel = torch.square(F.relu(torch.bmm(q, k.permute(0, 2, 1)) / 24**0.5))
        f = f * self.scale + self.out(u * torch.bmm(kernel, v))
        return self.x(f), self.y(f)


def _made(kind: Callable[[], nn.Module], *inputs: Tensor) -> Example:
    model = kind()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:  # statistics of these very inputs, so that no layer fades
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(*inputs)
    return model.eval(), inputs


@functools.cache
def _seeded(name: str) -> Example:
    torch.manual_seed(7)
    builders: dict[str, Callable[[], Example]] = {
        "functional": lambda: _made(_Functional, torch.randn(2, 6, 12, 12)),
        "swin": lambda: _made(_Swin, torch.randn(1, 3, 32, 32)),
        "shared_modules": lambda: _made(_Shared, torch.randn(2, 6, 8, 8)),
        "pyramid": lambda: _made(_Pyramid, torch.randn(1, 3, 32, 32)),
        "bert": lambda: _made(
            _Bert, torch.randint(0, 40, (2, 9)), torch.tensor([[1] * 9, [1] * 6 + [0] * 3], dtype=torch.int64)
        ),
        "pose_head": lambda: _made(_Pose, torch.randn(1, 3, 16, 16)),
    }
    return builders[name]()


MORE: dict[str, Callable[[], Example]] = {
    name: functools.partial(_seeded, name)
    for name in ("functional", "swin", "shared_modules", "pyramid", "bert", "pose_head")
}
