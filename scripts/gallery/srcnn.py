"""SRCNN, the network of MMDeploy's first tutorial: a bicubic upsampling in front of three convolutions.

    graphforge compile scripts/gallery/srcnn.py:three_times --dynamic 'image:2=16..256,3=16..256' --opset 11
    graphforge compile scripts/gallery/srcnn.py:any_times --range factor=1..4

`three_times` has its factor in the code; `any_times` takes it as a second input, which is where the tutorial goes next.
`srcnn.md` is the walk through both.  `srcnn.pth` was trained by `train_srcnn.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["CHECKPOINT", "SuperResolution", "any_times", "small_and_large", "three_times", "trained"]

CHECKPOINT = Path(__file__).resolve().parent / "srcnn.pth"
FACTOR = 3


class SuperResolution(nn.Module):
    """A picture [B, 3, H, W], 0 to 1, larger: bicubic, then sharpened by three convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 9, padding=4)
        self.conv2 = nn.Conv2d(32, 16, 1)
        self.conv3 = nn.Conv2d(16, 3, 5, padding=2)

    def sharpened(self, image: Tensor) -> Tensor:
        """What the convolutions add to a picture of its final size."""
        more: Tensor = self.conv3(self.conv2(self.conv1(image).relu()).relu())
        return image + more

    def forward(self, image: Tensor, factor: Tensor | None = None) -> Tensor:
        """The picture, larger: three times, or so many times as the tensor says."""
        if factor is None:
            large = nn.functional.interpolate(image, scale_factor=FACTOR, mode="bicubic", align_corners=False)
        else:
            times = int(factor.item())
            size = (image.shape[2] * times, image.shape[3] * times)
            large = nn.functional.interpolate(image, size=size, mode="bicubic", align_corners=False)
        return self.sharpened(large)


def trained() -> SuperResolution:
    """The network with the weights of `srcnn.pth`."""
    model = SuperResolution()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return model.eval()


def three_times() -> tuple[SuperResolution, tuple[Tensor]]:
    """One small picture."""
    return trained(), (as_tensor(small_and_large()[0][:32, :48]),)


def any_times() -> tuple[SuperResolution, tuple[Tensor, Tensor]]:
    """One small picture, and how many times."""
    return trained(), (as_tensor(small_and_large()[0][:32, :48]), torch.tensor(2))


def small_and_large(left: int = 170, top: int = 50, side: int = 144) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A part of scikit-image's astronaut a third as large, and as it was; no part of it was trained on."""
    import skimage.data
    from PIL import Image

    large = skimage.data.astronaut()[top : top + side, left : left + side]
    small = Image.fromarray(large).resize((side // FACTOR, side // FACTOR), Image.Resampling.BICUBIC)
    return np.asarray(small), np.ascontiguousarray(large)


def as_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """[1, 3, H, W], 0 to 1."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255
