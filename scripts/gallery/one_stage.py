"""Figures in one stage, boxes and keypoints at once, with a suppression that no exporter follows.

    python -m scripts.gallery.one_stage out/figures      # ten pictures, and what is on them in COCO's form

`new_model.md` walks from here to a bundle.  The network is one without a training, as in `figures.py`; its head ends as
YOLOX-Pose's does, in a function that counts boxes in Python.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scripts.gallery.figures import COLOURS, Figure, limbs, picture

__all__ = ["OneStage", "build", "nms", "save_pictures"]

_HALF = torch.tensor([12.0, 22.0])  # of a box, in pixels of the input
_CANDIDATES = 24


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """What stays of the boxes, the best first: numpy in a loop, in the place of a compiled operator."""
    corners, order = boxes.numpy(), list(np.argsort(-scores.numpy(), kind="stable"))
    kept = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[order, :2])
        high = np.minimum(corners[best, 2:], corners[order, 2:])
        shared = np.prod((high - low).clip(0), axis=1)
        areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        overlap = shared / (areas[best] + areas[order] - shared)
        order = [other for other, share in zip(order, overlap, strict=True) if share <= iou_threshold]
    return torch.tensor(kept, dtype=torch.int64)


class OneStage(nn.Module):
    """Boxes around white middles on [1, 3, 96, 160], 0 to 1, red first, and the place of each colour in each box."""

    def __init__(self, score_threshold: float = 0.4, iou_threshold: float = 0.5) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.register_buffer("colours", torch.tensor(COLOURS, dtype=torch.float32)[:, :, None, None] / 255)
        y, x = torch.meshgrid(torch.arange(96.0) + 0.5, torch.arange(160.0) + 0.5, indexing="ij")
        self.register_buffer("places", torch.stack([x, y], dim=-1).reshape(-1, 2))

    colours: Tensor
    places: Tensor

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``boxes``, ``scores``, ``labels``, ``keypoints`` and ``keypoint_scores``, as many as there are."""
        white = nn.functional.avg_pool2d(image.amin(1, keepdim=True), 3, 1, 1).flatten()
        # no two are equal, so that their order is not a matter of taste
        scores, cells = (white - torch.arange(96 * 160) * 1e-7).topk(_CANDIDATES)
        boxes = torch.cat([self.places[cells] - _HALF, self.places[cells] + _HALF], dim=1)
        apart = (image - self.colours).abs().amax(1, keepdim=True)
        heat = nn.functional.avg_pool2d((1 - 2 * apart).clamp(min=0), 3, 1, 1).reshape(1, 5, -1)
        inside = ((self.places > boxes[:, None, :2]) & (self.places < boxes[:, None, 2:])).all(dim=2)
        best, where = (heat * inside[:, None]).max(dim=2)
        return self.predict_by_feat(boxes, scores, self.places[where], best)

    def predict_by_feat(self, boxes: Tensor, scores: Tensor, points: Tensor, sure: Tensor) -> dict[str, Tensor]:
        """The candidates above the threshold that suppression keeps."""
        found = scores > self.score_threshold
        boxes, scores, points, sure = boxes[found], scores[found], points[found], sure[found]
        kept = nms(boxes, scores, self.iou_threshold)
        labels = torch.zeros_like(kept)
        named = {"boxes": boxes[kept], "scores": scores[kept], "labels": labels}
        return {**named, "keypoints": points[kept], "keypoint_scores": sure[kept]}


def build() -> tuple[OneStage, tuple[Tensor]]:
    """The model, and a picture of two figures."""
    small = Image.fromarray(picture([(80, 90, 1.0), (220, 100, 0.9)])).resize((160, 96))
    return OneStage().eval(), (torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255,)


def save_pictures(folder: Path, count: int = 10) -> None:
    """Pictures of two figures each, and ``figures.json``, whose annotations are a little off."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        left = (random.uniform(40, 120), random.uniform(50, 140), 1.0)
        pair: list[Figure] = [left, (250, 100, random.uniform(0.8, 1))]
        Image.fromarray(picture(pair)).save(folder / "pictures" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 192})
        for figure in pair:
            points = limbs(figure) + random.normal(0, 2.5, (5, 2))
            low, high = limbs(figure).min(0) - 5, limbs(figure).max(0) + 5
            seen = np.concatenate([points, np.full((5, 1), 2)], 1)
            box = {"bbox": [*low.tolist(), *(high - low).tolist()], "area": float(np.prod(high - low)), "iscrowd": 0}
            keypoints = {"num_keypoints": 5, "keypoints": seen.ravel().tolist()}
            known.append({"id": len(known) + 1, "image_id": number, "category_id": 1, **box, **keypoints})
    data = {"categories": [{"id": 1, "name": "figure"}], "images": images, "annotations": known}
    (folder / "figures.json").write_text(json.dumps(data))


if __name__ == "__main__":
    save_pictures(Path(sys.argv[1]))
