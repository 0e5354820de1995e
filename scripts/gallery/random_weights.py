"""What heads without training need: pictures, and layers scaled so that scores are apart as in a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["SIZE", "pictures", "spread"]

SIZE = 160


def pictures(count: int) -> Tensor:
    """Smooth pictures of different contrast, [count, 3, 160, 160] in 0..1."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 3, 10, 10, generator=generator)
    contrast = torch.linspace(1.0, 0.3, count).reshape(-1, 1, 1, 1)
    fine = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=False)
    return ((fine - 0.5) * contrast + 0.5).clamp(0, 1)


def spread(
    forward: Callable[[Tensor], object], layers: Sequence[nn.Conv2d | nn.Linear], deviation: float, shift: float = 0.0
) -> None:
    """Scale layers so that their outputs on three pictures have this standard deviation around ``shift``.

    Args:
        forward: runs the layers.
        layers: those to scale, each on its own.
        deviation, shift: of a layer's outputs afterwards.
    """
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    handles = [
        layer.register_forward_hook(lambda module, _, out: seen[module].append(out.flatten())) for layer in layers
    ]
    with torch.no_grad():
        forward(pictures(3))
        for handle in handles:
            handle.remove()
        for layer in layers:
            flat = torch.cat(seen[layer])
            factor = float(deviation / flat.std())
            layer.weight.mul_(factor)
            assert layer.bias is not None
            layer.bias.mul_(factor).add_(shift - float(flat.mean()) * factor)
