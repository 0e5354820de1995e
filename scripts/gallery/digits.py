"""A small detector of handwritten digits, written the way users write detectors: masks, then class-aware NMS.

`DigitDetector` is anchor-free and single-shot: a convolutional backbone of stride 8, and per cell ten class logits and
the four distances to the box's sides.  What it detects are scikit-learn's digits (8x8 pixels), scaled, contrasted and
strewn over noisy canvases of 128x128; `train_digits.py` trains it, `digits.pth` holds what came of it.

    graphforge compile scripts/gallery/digits.py:detector
    graphforge compile scripts/gallery/digits.py:detector_batch3
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = [
    "BATCH3",
    "CANVAS",
    "CHECKPOINT",
    "Canvas",
    "DigitDetector",
    "canvas",
    "canvases",
    "detector",
    "detector_batch3",
    "stacked",
    "trained",
]

CANVAS = 128
BATCH3 = (0, 11, 1)  # three validation canvases with unequal counts: 7, 2 and 4 digits
CHECKPOINT = Path(__file__).resolve().parent / "digits.pth"

_CLASSES = 10
_STRIDE = 8
_SIZES = (16, 48)  # of a digit's longer side, in pixels
_MOST_DIGITS = 8
_OVERLAP = 0.12  # the share of the smaller of two boxes that may lie under the other

_VALIDATION_SHARE = 5  # one digit in so many is never trained on

Digit = NDArray[np.float32]


class DigitDetector(nn.Module):
    """Boxes, scores and labels of the digits on each image, in the form of torchvision's detectors.

    Args:
        width: channels of the backbone's last stage.
        score_threshold: candidates must score more.
        iou_threshold: of two candidates of one class that overlap more, the lower goes.
        max_detections: most detections of an image.
    """

    grid: Tensor

    def __init__(
        self,
        width: int = 64,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.backbone = nn.Sequential(
            _block(1, width // 4, stride=2),
            _block(width // 4, width // 2, stride=2),
            _block(width // 2, width, stride=2),
            _block(width, width),
            _block(width, width),
        )
        self.class_tower = _block(width, width)
        self.box_tower = _block(width, width)
        self.classes = nn.Conv2d(width, _CLASSES, 1)
        self.distances = nn.Conv2d(width, 4, 1)
        assert self.classes.bias is not None
        assert self.distances.bias is not None
        nn.init.constant_(self.classes.bias, -4.0)  # few cells hold a digit: begin with that (focal loss, 2017)
        nn.init.constant_(self.distances.bias, 0.5)
        centres = (torch.arange(CANVAS // _STRIDE) + 0.5) * _STRIDE
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        self.register_buffer("grid", torch.stack([columns, rows], dim=-1).flatten(0, 1), persistent=False)

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [B, N, 10] and boxes [B, N, 4] (xyxy, pixels) of every cell."""
        features = self.backbone(images)
        logits = self.classes(self.class_tower(features)).flatten(2).transpose(1, 2)
        left_top, right_bottom = (
            self.distances(self.box_tower(features)).flatten(2).transpose(1, 2).exp().mul(_STRIDE).split(2, dim=2)
        )
        boxes = torch.cat([self.grid - left_top, self.grid + right_bottom], dim=2)
        return logits, boxes.clamp(0, CANVAS)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """One dict for each image of [B, 1, 128, 128]: boxes [K, 4], scores [K], labels [K], best first."""
        import torchvision  # here: importing this file shall cost little

        logits, all_boxes = self.candidates(images)
        results = []
        for probs, boxes in zip(logits.sigmoid(), all_boxes, strict=True):
            scores, labels = probs.max(1)
            mask = scores > self.score_threshold
            boxes, scores, labels = boxes[mask], scores[mask], labels[mask]
            keep = torchvision.ops.batched_nms(boxes, scores, labels, self.iou_threshold)[: self.max_detections]
            results.append({"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]})
        return results


def detector() -> tuple[DigitDetector, tuple[Tensor]]:
    """The trained detector and one canvas it was not trained on."""
    return trained(), (stacked(canvases(1)),)


def detector_batch3() -> tuple[DigitDetector, tuple[Tensor]]:
    """The trained detector and three canvases with unequal counts of digits."""
    return trained(), (stacked([canvas(index) for index in BATCH3]),)


def trained() -> DigitDetector:
    """The detector with the weights of `digits.pth`."""
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    model = DigitDetector()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return model.eval()


# -- canvases ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture and what is on it.

    Attributes:
        image: [1, 128, 128], between 0 and 1.
        boxes: [K, 4], xyxy in pixels, tight around the ink.
        labels: [K].
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


def canvases(count: int, *, train: bool = False, first: int = 0) -> list[Canvas]:
    """The canvases numbered ``first`` and up, of the validation digits or of the training digits."""
    return [canvas(index, train=train) for index in range(first, first + count)]


def canvas(index: int, *, train: bool = False) -> Canvas:
    """Canvas number ``index``; the same number gives the same canvas, asked for in any order."""
    random = np.random.default_rng([index, int(train)])
    inks, labels = _digits(train=train)
    page = np.zeros((CANVAS, CANVAS), np.float32)
    boxes: list[tuple[int, int, int, int]] = []
    chosen: list[int] = []
    wanted = int(random.integers(1, _MOST_DIGITS, endpoint=True))
    for _ in range(4 * wanted):  # a digit that finds no room is drawn anew, a few times
        if len(boxes) == wanted:
            break
        number = int(random.integers(len(inks)))
        ink = _scaled(inks[number], int(random.integers(*_SIZES, endpoint=True)))
        height, width = ink.shape
        x = int(random.integers(0, CANVAS - width, endpoint=True))
        y = int(random.integers(0, CANVAS - height, endpoint=True))
        box = (x, y, x + width, y + height)
        strength = np.float32(random.uniform(0.6, 1.0))
        if any(_share_covered(box, other) > _OVERLAP for other in boxes):
            continue
        place = page[y : y + height, x : x + width]
        np.maximum(place, ink * strength, out=place)
        boxes.append(box)
        chosen.append(int(labels[number]))
    paper = random.uniform(0.0, 0.35)
    contrast = random.uniform(0.4, 1.0 - paper)
    noise = random.standard_normal(page.shape).astype(np.float32) * np.float32(random.uniform(0.02, 0.10))
    picture = np.clip(np.float32(paper) + page * np.float32(contrast) + noise, 0, 1)
    return Canvas(
        torch.from_numpy(picture)[None],
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(chosen, dtype=torch.int64),
    )


def stacked(pages: Sequence[Canvas]) -> Tensor:
    """The images of some canvases as one batch."""
    return torch.stack([page.image for page in pages])


@functools.cache
def _digits(*, train: bool) -> tuple[list[Digit], NDArray[np.int64]]:
    """Digits cropped to their ink, between 0 and 1, and what they are; no digit is in both parts."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    held_out = len(order) // _VALIDATION_SHARE
    mine = order[held_out:] if train else order[:held_out]
    return [_cropped(data.images[index]) for index in mine], data.target[mine].astype(np.int64)


def _cropped(image: NDArray[np.float64]) -> Digit:
    rows, columns = np.nonzero(image > 0)
    inside = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return (inside / 16).astype(np.float32)


def _scaled(ink: Digit, size: int) -> Digit:
    """The digit with its longer side ``size`` pixels, bilinear."""
    factor = size / max(ink.shape)
    shape = [max(1, round(side * factor)) for side in ink.shape]
    scaled = nn.functional.interpolate(torch.from_numpy(ink)[None, None], shape, mode="bilinear", align_corners=False)
    array: Digit = scaled[0, 0].numpy()
    return array


def _share_covered(one: Sequence[int], other: Sequence[int]) -> float:
    """The intersection of two boxes as a share of the smaller."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(0, width) * max(0, height) / min(areas)


def _block(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
