"""Train `srcnn.py`'s network on patches of three photos of scikit-image: 1,500 steps, some minutes on one core.

.venv/bin/python scripts/gallery/train_srcnn.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.srcnn import CHECKPOINT, FACTOR, SuperResolution, as_tensor, small_and_large

PATCH = 36


def main() -> None:
    """Train, tell the gain over bicubic on a photo that is held out, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = SuperResolution()
    assert model.conv3.bias is not None
    nn.init.normal_(model.conv3.weight, std=1e-3)  # begin near to bicubic
    nn.init.zeros_(model.conv3.bias)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, options.steps, pct_start=0.1)
    photos = _photos()
    draw = np.random.default_rng(0)
    for step in range(options.steps):
        small, large = _patches(photos, draw, 12)
        loss = ((model(small) - large) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{step}: {loss.item():.5f}, held out {gain(model):+.3f} dB", flush=True)
    print(f"held out: {gain(model):+.3f} dB over bicubic")
    torch.save(model.state_dict(), CHECKPOINT)


def gain(model: SuperResolution) -> float:
    """How much nearer to the astronaut than bicubic the network comes, in decibels."""
    small, large = (as_tensor(pixels) for pixels in small_and_large())
    with torch.no_grad():
        bicubic = nn.functional.interpolate(small, scale_factor=FACTOR, mode="bicubic", align_corners=False)
        errors = [((made.clamp(0, 1) - large) ** 2).mean().item() for made in (bicubic, model(small))]
    return float(10 * np.log10(errors[0] / errors[1]))


def _photos() -> list[Tensor]:
    import skimage.data

    return [as_tensor(photo()) for photo in (skimage.data.chelsea, skimage.data.coffee, skimage.data.rocket)]


def _patches(photos: list[Tensor], draw: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    large = []
    for _ in range(count):
        photo = photos[draw.integers(len(photos))]
        top, left = (int(draw.integers(side - PATCH)) for side in photo.shape[2:])
        large.append(photo[:, :, top : top + PATCH, left : left + PATCH])
    whole = torch.cat(large)
    # as Pillow makes pictures smaller: bicubic with the taps spread over all of the pixels
    size = (PATCH // FACTOR, PATCH // FACTOR)
    small = nn.functional.interpolate(whole, size=size, mode="bicubic", align_corners=False, antialias=True)
    return small.clamp(0, 1), whole


if __name__ == "__main__":
    main()
