"""Coloured figures, a detector that finds them and a SimCC head that finds their limbs: two stages without a training.

    .venv/bin/python scripts/gallery/figures.py out/figures
    graphforge compile scripts/gallery/figures.py:detector --preprocess scripts/gallery/figures_detector.toml -o out/det
    graphforge compile scripts/gallery/figures.py:pose --dynamic 'image:0=1..8' \
        --preprocess scripts/gallery/figures_pose.toml -o out/pose
    graphforge pipeline out/det out/pose out/figures --draw out/seen

A figure has a white middle, which the detector looks for, and a head, two hands and two feet of colours of their own,
which the pose estimator looks for: peaks by construction, in the place of a trained network's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

__all__ = ["COLOURS", "FigureDetector", "FigurePose", "detector", "frame", "limbs", "picture", "pose"]

SIZE = (320, 192)  # of a picture, width and height
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))  # head, hands, feet; red first

_LIMBS = np.array([(0, -34), (-16, -6), (16, -6), (-9, 34), (9, 34)], np.float64)  # from the middle, at factor 1
_HALF_BOX = (22, 42)
_BODY = (12, 28)
_DOT = 4

Figure = tuple[float, float, float]  # x and y of its middle, and its factor


class FigureDetector(nn.Module):
    """The white middles on each picture [B, 3, 96, 160], 0 to 1, red first; a box of one size around each."""

    def __init__(self, most: int = 6) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("order", torch.arange(96 * 160.0).reshape(96, 160) * 1e-7, persistent=False)

    order: Tensor

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``boxes`` [B, K, 4], ``scores`` [B, K] and ``labels`` [B, K], the best first."""
        heat = nn.functional.avg_pool2d(image.amin(1, keepdim=True), 3, 1, 1)
        heat = heat - self.order  # no two are equal, so that their order is not a matter of taste
        peaks = torch.where(heat == nn.functional.max_pool2d(heat, 9, 1, 4), heat, heat * 0.01)
        scores, places = peaks.flatten(1).topk(self.most)
        x, y = (places % 160) + 0.5, torch.div(places, 160, rounding_mode="floor") + 0.5
        half_width, half_height = (side / 2 for side in _HALF_BOX)  # the picture is twice as large as the input
        boxes = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=2)
        return {"boxes": boxes, "scores": scores, "labels": torch.zeros_like(places)}


class FigurePose(nn.Module):
    """Where each colour is in a crop [B, 3, 64, 48], 0 to 1, blue first."""

    colours: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("colours", torch.tensor(COLOURS, dtype=torch.float32).flip(1) / 255)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``simcc_x`` [B, 5, 96] and ``simcc_y`` [B, 5, 128], twice as fine as the pixels."""
        apart = (image[:, None] - self.colours[None, :, :, None, None]).abs().amax(2)
        heat = nn.functional.avg_pool2d((1 - 2 * apart).clamp(min=0), 5, 1, 2)
        across, down = heat.amax(2), heat.amax(3)
        return {
            "simcc_x": nn.functional.interpolate(across, scale_factor=2.0, mode="linear"),
            "simcc_y": nn.functional.interpolate(down, scale_factor=2.0, mode="linear"),
        }


def detector() -> tuple[FigureDetector, tuple[Tensor]]:
    """One picture."""
    small = Image.fromarray(picture([(80, 90, 1.0), (220, 100, 0.9)])).resize((160, 96))
    return FigureDetector().eval(), (torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255,)


def pose() -> tuple[FigurePose, tuple[Tensor]]:
    """One crop."""
    crop = Image.fromarray(picture([(80, 90, 1.0)])).crop((50, 50, 110, 130)).resize((48, 64))
    return FigurePose().eval(), (
        torch.from_numpy(np.array(crop)[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255,
    )


def limbs(figure: Figure) -> NDArray[np.float64]:
    """Head, left and right hand, left and right foot, [5, 2], in the picture's pixels."""
    x, y, factor = figure
    places: NDArray[np.float64] = _LIMBS * factor + (x, y)
    return places


def picture(figures: Sequence[Figure], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Figures on a dark wall, [H, W, 3], red first."""
    canvas = Image.new("RGB", size, (24, 28, 32))
    pen = ImageDraw.Draw(canvas)
    for x, y, factor in figures:
        wide, high = (side * factor for side in _BODY)
        pen.rectangle((x - wide, y - high, x + wide, y + high), fill=(70, 70, 80))
        for (left, top), colour in zip(limbs((x, y, factor)), COLOURS, strict=True):
            pen.line((x, y, left, top), fill=(70, 70, 80), width=3)
            _dot(pen, left, top, 4 * factor, colour)
        _dot(pen, x, y, _DOT * factor, (255, 255, 255))
    return np.asarray(canvas)


def frame(number: int, count: int = 30) -> list[Figure]:
    """Where two figures are that walk towards each other on two heights, in a video of so many frames."""
    share = number / max(count - 1, 1)
    return [(60 + 70 * share, 70 + 8 * np.sin(number / 3), 1.0), (260 - 60 * share, 120, 0.9)]


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def main() -> None:
    """Write the frames as pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=30)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        Image.fromarray(picture(frame(number, options.count))).save(options.folder / f"{number:04d}.png")
    print(f"{options.count} pictures in {options.folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
