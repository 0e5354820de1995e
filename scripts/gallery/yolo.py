"""YOLO-style heads the way users write them: objectness times class scores, a mask, suppression, the best so many.

    graphforge compile scripts/gallery/yolo.py:yolo --outputs padded --nms portable
    graphforge compile scripts/gallery/yolo.py:yolo_offset_batch3

`yolo` keeps classes apart with torchvision's ``batched_nms``; `yolo_offset` shifts the boxes by class and calls the
plain ``nms``, and hands out rows of (box, score, class), as the post-processing of YOLOv5 does.  Weights are random,
from a fixed seed; ``_batch3`` functions take three pictures, whose numbers of detections differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.random_weights import SIZE, pictures, spread

__all__ = ["OffsetYolo", "Yolo", "yolo", "yolo_batch3", "yolo_offset", "yolo_offset_batch3"]

_CLASSES = 12
_STRIDES = (8, 16)
_LARGEST_SIDE = 7680  # what classes are shifted by: wider than any picture


class Yolo(nn.Module):
    """Boxes, scores and labels of each image, in the form of torchvision's detectors.

    Args:
        score_threshold: objectness times class score must be more.
        iou_threshold: of two candidates of one class that overlap more, the lower goes.
        max_detections: most detections of an image.
    """

    grid: Tensor
    strides: Tensor

    def __init__(self, score_threshold: float = 0.5, iou_threshold: float = 0.45, max_detections: int = 70) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.stem = nn.Sequential(_block(3, 16), _block(16, 24), _block(24, 32))
        self.deeper = _block(32, 48)
        self.boxes = nn.ModuleList([nn.Conv2d(32, 4, 1), nn.Conv2d(48, 4, 1)])
        self.objectness = nn.ModuleList([nn.Conv2d(32, 1, 1), nn.Conv2d(48, 1, 1)])
        self.classes = nn.ModuleList([nn.Conv2d(32, _CLASSES, 1), nn.Conv2d(48, _CLASSES, 1)])
        cells = [_cells(stride) for stride in _STRIDES]
        self.register_buffer("grid", torch.cat([grid for grid, _ in cells]), persistent=False)
        self.register_buffer("strides", torch.cat([strides for _, strides in cells]), persistent=False)

    def candidates(self, images: Tensor) -> Tensor:
        """[B, N, 5 + classes]: centre, width and height in pixels, objectness, a score of each class."""
        fine = self.stem(images)
        levels = []
        for level, features in enumerate((fine, self.deeper(fine))):
            heads = (self.boxes[level], self.objectness[level], self.classes[level])
            levels.append(torch.cat([head(features) for head in heads], dim=1).flatten(2))
        raw = torch.cat(levels, dim=2).transpose(1, 2)
        centre = (raw[..., :2] + self.grid) * self.strides
        size = raw[..., 2:4].exp() * self.strides
        return torch.cat([centre, size, raw[..., 4:].sigmoid()], dim=2)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """One dict for each image of [B, 3, 160, 160]: boxes [K, 4], scores [K], labels [K], best first."""
        from torchvision.ops import batched_nms  # here: importing this file shall cost little

        results = []
        for found in self.candidates(images):
            scores, labels = (found[:, 4:5] * found[:, 5:]).max(1)
            mask = scores > self.score_threshold
            boxes, scores, labels = _corners(found[mask]), scores[mask], labels[mask]
            keep = batched_nms(boxes, scores, labels, self.iou_threshold)[: self.max_detections]
            results.append({"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]})
        return results


class OffsetYolo(Yolo):
    """The same head; rows (x1, y1, x2, y2, score, class) of each image."""

    max_candidates = 300

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """[K, 6] for each image of [B, 3, 160, 160], best first."""
        from torchvision.ops import nms

        results = []
        for found in self.candidates(images):
            found = found[found[:, 4] > self.score_threshold]
            found[:, 5:] *= found[:, 4:5]
            scores, labels = found[:, 5:].max(1, keepdim=True)
            rows = torch.cat([_corners(found), scores, labels.float()], dim=1)[scores.view(-1) > self.score_threshold]
            rows = rows[rows[:, 4].argsort(descending=True)[: self.max_candidates]]
            offsets = rows[:, 5:6] * _LARGEST_SIDE
            keep = nms(rows[:, :4] + offsets, rows[:, 4], self.iou_threshold)[: self.max_detections]
            results.append(rows[keep])
        return results


def yolo(images: int = 1) -> tuple[Yolo, tuple[Tensor]]:
    """Class-aware suppression."""
    return _weighted(Yolo()), (pictures(images),)


def yolo_offset(images: int = 1) -> tuple[OffsetYolo, tuple[Tensor]]:
    """Suppression of boxes that are shifted by class."""
    model = OffsetYolo()
    _weighted(model)
    return model, (pictures(images),)


def yolo_batch3() -> tuple[Yolo, tuple[Tensor]]:
    """Three pictures."""
    return yolo(3)


def yolo_offset_batch3() -> tuple[OffsetYolo, tuple[Tensor]]:
    """Three pictures."""
    return yolo_offset(3)


def _weighted(model: Yolo) -> Yolo:
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    torch.manual_seed(11)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    model.eval()
    for heads, deviation, shift in ((model.boxes, 0.4, 0.8), (model.objectness, 1.5, 0.0), (model.classes, 1.5, -1.5)):
        spread(model.candidates, [head for head in heads if isinstance(head, nn.Conv2d)], deviation, shift)
    return model


def _cells(stride: int) -> tuple[Tensor, Tensor]:
    """The cells' places [N, 2] as (x, y), and the stride of each [N, 1]."""
    side = torch.arange(SIZE // stride, dtype=torch.float32)
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).flatten(0, 1)
    return grid, torch.full((len(grid), 1), float(stride))


def _corners(found: Tensor) -> Tensor:
    """Centre, width and height as x1, y1, x2, y2."""
    half = found[:, 2:4] / 2
    return torch.cat([found[:, :2] - half, found[:, :2] + half], dim=1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())
