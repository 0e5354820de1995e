"""Networks of the shapes that deployments have, written out here so that they are small and need no package.

Weights are random from a fixed seed and scaled so that signals neither die nor explode.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SRCNN", "GroupNormMish", "RTMPose", "Segmenter", "SpeechLSTM", "calm"]


def calm(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with seeded weights, its norms with statistics that are not the identity."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    return module.eval()


class SRCNN(nn.Module):
    """Super resolution: bicubic upsampling by three, then three convolutions (9, 1, 5)."""

    def __init__(self, width: int = 64, factor: int = 3) -> None:
        super().__init__()
        self.factor = factor
        self.patch = nn.Conv2d(3, width, 9, padding=4)
        self.mapping = nn.Conv2d(width, width // 2, 1)
        self.reconstruction = nn.Conv2d(width // 2, 3, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate(image, scale_factor=self.factor, mode="bicubic", align_corners=False)
        x = functional.relu(self.patch(x))
        result: torch.Tensor = self.reconstruction(functional.relu(self.mapping(x)))
        return result


class SpeechLSTM(nn.Module):
    """Frames to classes: a bidirectional LSTM of two layers and a log-softmax over every frame."""

    def __init__(self, features: int = 40, width: int = 64, classes: int = 30) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features, width, num_layers=2, bidirectional=True, batch_first=True)
        self.classify = nn.Linear(2 * width, classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(frames)
        return functional.log_softmax(self.classify(states), dim=-1)


class GroupNormMish(nn.Module):
    """Residual blocks with GroupNorm and Mish, then a global maximum."""

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, width),
                nn.Mish(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.GroupNorm(8, width),
                nn.Mish(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = x + block(x)
        result: torch.Tensor = self.head(x.amax(dim=(2, 3)))
        return result


class Segmenter(nn.Module):
    """An encoder, pooled context, and logits resized (bilinear, align_corners off and on) to the size of the image."""

    def __init__(self, width: int = 24, classes: int = 5) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.Hardswish()
            )

        self.stages = nn.ModuleList([stage(3, width), stage(width, 2 * width), stage(2 * width, 4 * width)])
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4 * width, 2 * width, 1), nn.Hardsigmoid())
        self.high = nn.Conv2d(4 * width, 2 * width, 1)
        self.low = nn.Conv2d(2 * width, classes, 1)
        self.logits = nn.Conv2d(2 * width, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = []
        x = image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.high(x) * self.context(x)
        x = functional.interpolate(x, size=maps[1].shape[-2:], mode="bilinear", align_corners=True)
        x = self.logits(x) + self.low(maps[1])
        return functional.interpolate(x, size=image.shape[-2:], mode="bilinear", align_corners=False)


class _ScaleNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=2, keepdim=True) * self.scale
        result: torch.Tensor = x / norm.clamp(min=1e-5) * self.gain
        return result


class _GatedAttention(nn.Module):
    """Gated attention unit over keypoints: squared-ReLU attention, gated by a second branch."""

    def __init__(self, width: int, keys: int = 32, expansion: int = 2) -> None:
        super().__init__()
        self.inner, self.keys = expansion * width, keys
        self.norm = _ScaleNorm(width)
        self.project = nn.Linear(width, 2 * self.inner + keys, bias=False)
        self.gain = nn.Parameter(torch.rand(2, keys))
        self.shift = nn.Parameter(torch.rand(2, keys))
        self.out = nn.Linear(self.inner, width, bias=False)
        self.residual = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = functional.silu(self.project(self.norm(x)))
        gate, values, base = torch.split(mixed, [self.inner, self.inner, self.keys], dim=2)
        queries, keys = torch.unbind(base.unsqueeze(2) * self.gain + self.shift, dim=2)
        weights = functional.relu(torch.bmm(queries, keys.transpose(1, 2)) / self.keys**0.5).square()
        result: torch.Tensor = self.residual * x + self.out(gate * torch.bmm(weights, values))
        return result


class RTMPose(nn.Module):
    """Of RTMPose's shape: a small SiLU backbone, a large-kernel convolution to one map a keypoint, gated attention over
    keypoints, and one classifier for each coordinate (SimCC)."""

    def __init__(
        self, keypoints: int = 17, size: tuple[int, int] = (64, 48), width: int = 48, hidden: int = 64
    ) -> None:
        super().__init__()
        height, breadth = size

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
            )

        self.backbone = nn.Sequential(block(3, width), block(width, width), block(width, 2 * width))
        cells = (height // 8) * (breadth // 8)
        self.maps = nn.Conv2d(2 * width, keypoints, 7, padding=3)
        self.mlp = nn.Sequential(_ScaleNorm(cells), nn.Linear(cells, hidden, bias=False))
        self.attention = _GatedAttention(hidden)
        self.x = nn.Linear(hidden, 2 * breadth, bias=False)
        self.y = nn.Linear(hidden, 2 * height, bias=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.maps(self.backbone(image))
        tokens = self.attention(self.mlp(features.flatten(2)))
        return self.x(tokens), self.y(tokens)
