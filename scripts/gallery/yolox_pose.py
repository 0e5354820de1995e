"""A YOLOX-Pose-style head: persons with 17 keypoints, which follow the boxes that suppression keeps.

    graphforge compile scripts/gallery/yolox_pose.py:yolox_pose --outputs padded

Weights are random, from a fixed seed; `yolox_pose_batch3` takes three pictures, whose numbers of persons differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.gallery.random_weights import SIZE, pictures, spread

__all__ = ["YoloxPose", "yolox_pose", "yolox_pose_batch3"]

_KEYPOINTS = 17
_STRIDES = (8, 16)


class YoloxPose(nn.Module):
    """Boxes, scores and keypoints of the persons on each image.

    Args:
        score_threshold: objectness times class score must be more.
        iou_threshold: of two candidates that overlap more, the lower goes.
        max_detections: most persons of an image.
    """

    grid: Tensor
    strides: Tensor

    def __init__(self, score_threshold: float = 0.6, iou_threshold: float = 0.65, max_detections: int = 55) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.stem = nn.Sequential(_block(3, 16), _block(16, 24), _block(24, 32))
        self.deeper = _block(32, 48)
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleList([nn.Conv2d(32, channels, 1), nn.Conv2d(48, channels, 1)])
                for name, channels in (
                    ("classes", 1),
                    ("objectness", 1),
                    ("boxes", 4),
                    ("offsets", 2 * _KEYPOINTS),
                    ("visibility", _KEYPOINTS),
                )
            }
        )
        cells = [_cells(stride) for stride in _STRIDES]
        self.register_buffer("grid", torch.cat([grid for grid, _ in cells]), persistent=False)
        self.register_buffer("strides", torch.cat([strides for _, strides in cells]), persistent=False)

    def layers(self, name: str) -> list[nn.Conv2d]:
        """One head's layer of each level."""
        levels = self.heads[name]
        assert isinstance(levels, nn.ModuleList)
        return [layer for layer in levels if isinstance(layer, nn.Conv2d)]

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [B, N, 4], scores [B, N] and keypoints [B, N, 17, 3] as (x, y, visibility), in pixels."""
        fine = self.stem(images)
        levels = (fine, self.deeper(fine))

        def flat(name: str) -> Tensor:
            outputs = [layer(features).flatten(2) for layer, features in zip(self.layers(name), levels, strict=True)]
            return torch.cat(outputs, dim=2).transpose(1, 2)

        scores = (flat("classes").sigmoid() * flat("objectness").sigmoid()).squeeze(2)
        raw = flat("boxes")
        centre = (raw[..., :2] + self.grid) * self.strides
        half = raw[..., 2:].exp() * self.strides / 2
        boxes = torch.cat([centre - half, centre + half], dim=2)
        places = (flat("offsets").unflatten(2, (_KEYPOINTS, 2)) + self.grid[:, None]) * self.strides[:, None]
        keypoints = torch.cat([places, flat("visibility").sigmoid().unsqueeze(3)], dim=3)
        return boxes, scores, keypoints

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """One dict for each image of [B, 3, 160, 160]: boxes [K, 4], scores [K], keypoints [K, 17, 3], best first."""
        from torchvision.ops import nms  # here: importing this file shall cost little

        results = []
        for boxes, scores, keypoints in zip(*self.candidates(images), strict=True):
            mask = scores > self.score_threshold
            boxes, scores, keypoints = boxes[mask], scores[mask], keypoints[mask]
            keep = nms(boxes, scores, self.iou_threshold)[: self.max_detections]
            results.append({"boxes": boxes[keep], "scores": scores[keep], "keypoints": keypoints[keep]})
        return results


def yolox_pose(images: int = 1) -> tuple[YoloxPose, tuple[Tensor]]:
    """One picture."""
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    torch.manual_seed(12)
    model = YoloxPose().eval()
    for name, deviation, shift in (
        ("classes", 1.5, 1.0),
        ("objectness", 1.5, 0.0),
        ("boxes", 0.4, 1.0),
        ("offsets", 1.5, 0.0),
        ("visibility", 1.5, 0.0),
    ):
        spread(model.candidates, model.layers(name), deviation, shift)
    return model, (pictures(images),)


def yolox_pose_batch3() -> tuple[YoloxPose, tuple[Tensor]]:
    """Three pictures."""
    return yolox_pose(3)


def _cells(stride: int) -> tuple[Tensor, Tensor]:
    """The cells' places [N, 2] as (x, y), and the stride of each [N, 1]."""
    side = torch.arange(SIZE // stride, dtype=torch.float32)
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).flatten(0, 1)
    return grid, torch.full((len(grid), 1), float(stride))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())
