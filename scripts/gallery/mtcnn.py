"""MTCNN's stages as modules of their own, with facenet-pytorch's trained weights and the suppression inside.

    graphforge compile scripts/gallery/mtcnn.py:p_stage --dynamic image:2=13..640,3=13..640
    graphforge compile scripts/gallery/mtcnn.py:o_stage --outputs padded

`p_stage` proposes boxes on one scale of the picture, `m_stage` merges the scales, `r_stage` and `o_stage` look at a
crop of each box.  What is between them, scaling the picture and cutting crops out of it, is `find_faces`; it takes the
stages in any form.  The arithmetic is that of facenet-pytorch's ``detect_face`` (Zhang et al., 2016, "Joint Face
Detection and Alignment using Multi-task Cascaded Convolutional Networks").
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from graphforge.frontend.substitution import substitute

__all__ = [
    "STAGES",
    "Merge",
    "Output",
    "Proposals",
    "Refine",
    "astronaut",
    "find_faces",
    "kept_by_smaller",
    "m_stage",
    "o_stage",
    "p_stage",
    "r_stage",
]

Stage = Callable[..., Mapping[str, Tensor]]
Example = tuple[nn.Module, tuple[Tensor, ...]]

_SMALLEST_FACE = 20
_CELL = 12  # side of what P-Net sees of the picture for one cell of its map, and of the smallest picture
_STRIDE = 2
_FACTOR = 0.709  # from one scale to the next
_THRESHOLDS = (0.6, 0.7, 0.7)


class Proposals(nn.Module):
    """P-Net on one scale of the picture: boxes in the picture's pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _detector().pnet

    def forward(self, image: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """Candidates of an image [1, 3, h, w] in 0..255 that is ``scale`` (a float) times the picture.

        Returns:
            boxes [K, 4], scores [K], regressions [K, 4]; best first.
        """
        from torchvision.ops import nms

        regressions, probabilities = self.network(_normalised(image))
        width = probabilities.shape[3]
        scores = probabilities[0, 1].flatten()
        keep = torch.where(scores >= _THRESHOLDS[0])[0]
        cells = torch.stack([keep % width, keep // width], dim=1).to(image.dtype)
        start = ((_STRIDE * cells + 1) / scale).floor()
        end = ((_STRIDE * cells + _CELL) / scale).floor()
        boxes, scores = torch.cat([start, end], dim=1), scores[keep]
        regressions = regressions[0].flatten(1)[:, keep].t()
        kept = nms(boxes, scores, 0.5)
        return {"boxes": boxes[kept], "scores": scores[kept], "regressions": regressions[kept]}


class Merge(nn.Module):
    """The proposals of all scales: those that are left, moved to where P-Net says and made square."""

    def forward(self, boxes: Tensor, scores: Tensor, regressions: Tensor) -> dict[str, Tensor]:
        """boxes [K, 4] of boxes [n, 4], scores [n] and regressions [n, 4]."""
        from torchvision.ops import nms

        kept = nms(boxes, scores, 0.7)
        boxes, regressions = boxes[kept], regressions[kept]
        size = boxes[:, 2:] - boxes[:, :2]
        return {"boxes": _square(boxes + regressions * size.repeat(1, 2)), "scores": scores[kept]}


class Refine(nn.Module):
    """R-Net on a crop of each box."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _detector().rnet

    def forward(self, crops: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """boxes [K, 4] and scores [K] of crops [n, 3, 24, 24] in 0..255 and their boxes [n, 4]."""
        from torchvision.ops import nms

        regressions, probabilities = self.network(_normalised(crops))
        scores = probabilities[:, 1]
        mask = scores > _THRESHOLDS[1]
        boxes, scores, regressions = boxes[mask], scores[mask], regressions[mask]
        kept = nms(boxes, scores, 0.7)
        return {"boxes": _square(_moved(boxes[kept], regressions[kept])), "scores": scores[kept]}


class Output(nn.Module):
    """O-Net on a crop of each box: faces with five landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _detector().onet

    def forward(self, crops: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """boxes [K, 4], scores [K], keypoints [K, 5, 2] of crops [n, 3, 48, 48] in 0..255 and their boxes [n, 4]."""
        regressions, landmarks, probabilities = self.network(_normalised(crops))
        scores = probabilities[:, 1]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        keypoints = landmarks.unflatten(1, (2, 5)).transpose(1, 2) * size[:, None] + boxes[:, None, :2] - 1
        boxes = _moved(boxes, regressions)
        order = scores.argsort(descending=True)
        boxes, scores, keypoints = boxes[order], scores[order], keypoints[order]
        keep = kept_by_smaller(boxes, scores > _THRESHOLDS[2], 0.7)
        return {"boxes": boxes[keep], "scores": scores[keep], "keypoints": keypoints[keep]}


def p_stage() -> Example:
    """The astronaut at the scale at which the face is about twelve pixels wide."""
    levels = list(_pyramid(_planes(astronaut())))
    image, scale = levels[4]
    return Proposals().eval(), (image, torch.tensor(scale))


def m_stage() -> Example:
    """The proposals on the astronaut at twice as many scales as MTCNN takes: its own are too far apart to overlap."""
    stage, image = Proposals(), _planes(astronaut())
    levels = [*_pyramid(image), *_pyramid(image, smallest_face=_SMALLEST_FACE * 1.1)]
    with torch.no_grad():
        found = [stage(scaled, torch.tensor(scale)) for scaled, scale in levels]
    boxes, scores, regressions = (
        torch.cat([one[name] for one in found]) for name in ("boxes", "scores", "regressions")
    )
    return Merge().eval(), (boxes, scores, regressions)


def r_stage() -> Example:
    """The crops of the proposals on the astronaut."""
    return Refine().eval(), _given("refine")


def o_stage() -> Example:
    """The crops of what R-Net left on the astronaut."""
    return Output().eval(), _given("output")


STAGES: dict[str, Callable[[], nn.Module]] = {
    "proposals": Proposals,
    "merge": Merge,
    "refine": Refine,
    "output": Output,
}


def find_faces(stages: Mapping[str, Stage], picture: NDArray[np.uint8]) -> dict[str, Tensor]:
    """boxes [K, 4], scores [K], keypoints [K, 5, 2] of the faces on a picture [h, w, 3], the largest first.

    Args:
        stages: by the names of ``STAGES``: the modules, or whatever does the same.
        picture: red, green, blue.
    """
    image = _planes(picture)
    levels = [stages["proposals"](scaled, torch.tensor(scale)) for scaled, scale in _pyramid(image)]
    found = {name: torch.cat([level[name] for level in levels]) for name in ("boxes", "scores", "regressions")}
    for name, side in (("merge", 0), ("refine", 24), ("output", 48)):
        if not len(found["boxes"]):  # no stage is ever asked about nothing
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "keypoints": torch.zeros(0, 5, 2)}
        given = _cut_out(image, found["boxes"], side) if side else tuple(found.values())
        found = dict(stages[name](*given))
    sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
    order = sides.prod(dim=1).argsort(descending=True)
    return {name: found[name][order] for name in ("boxes", "scores", "keypoints")}


def astronaut() -> NDArray[np.uint8]:
    """scikit-image's portrait of Eileen Collins, [512, 512, 3]."""
    import skimage.data

    picture: NDArray[np.uint8] = skimage.data.astronaut()
    return picture


# -- between the stages ------------------------------------------------------------------------------------------------


def _planes(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()


def _pyramid(image: Tensor, smallest_face: float = _SMALLEST_FACE) -> Iterator[tuple[Tensor, float]]:
    """The image at every scale, and the scale."""
    height, width = image.shape[2:]
    scale = _CELL / smallest_face
    shorter = min(height, width) * scale
    while shorter >= _CELL:
        yield _resized(image, int(height * scale + 1), int(width * scale + 1)), scale
        scale *= _FACTOR
        shorter *= _FACTOR


def _cut_out(image: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """A crop of each box [n, 3, side, side], and the boxes; those that lie outside of the image are left out."""
    height, width = image.shape[2:]
    corners = boxes.trunc().int()
    start = corners[:, :2].clamp(min=1) - 1
    ends = torch.minimum(corners[:, 2:], torch.tensor([width, height], dtype=torch.int32))
    inside = (ends > start).all(dim=1)
    crops = [
        _resized(image[:, :, y:end_y, x:end_x], side, side)
        for (x, y), (end_x, end_y) in zip(start[inside].tolist(), ends[inside].tolist(), strict=True)
    ]
    return torch.cat([image.new_zeros(0, 3, side, side), *crops]), boxes[inside]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return nn.functional.interpolate(image, size=(height, width), mode="area")


# -- inside of them ----------------------------------------------------------------------------------------------------


def _normalised(image: Tensor) -> Tensor:
    return (image - 127.5) * 0.0078125


def _square(boxes: Tensor) -> Tensor:
    """Around the same centre, with the longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    longer = size.amax(dim=1, keepdim=True)
    start = boxes[:, :2] + size * 0.5 - longer * 0.5
    return torch.cat([start, start + longer], dim=1)


def _moved(boxes: Tensor, regressions: Tensor) -> Tensor:
    """Every side moved by a share of the box's size; a box from pixel 3 to pixel 3 is one wide."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + regressions * size.repeat(1, 2)


def kept_by_smaller(boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """Greedy suppression where an overlap counts as a share of the smaller box: bool [n]; boxes come best first.

    torchvision has no such operator, so it is a loop over boxes, as everybody writes it.
    """
    covers = _covers(boxes, threshold)
    keep = candidates.clone()
    for one in range(len(keep)):
        if keep[one]:
            keep &= ~covers[one]
    return keep


@substitute(f"{__name__}.kept_by_smaller", required=False)  # only one of the stages calls it
def _kept_by_smaller(boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """The same for capture, which a Python loop over boxes defeats.

    A box stays unless one that stays, and comes before it, covers it: iterated until nothing changes, which is after at
    most as many rounds as a chain of suppressions is long.
    """
    covers = _covers(boxes, threshold).float()

    def unsettled(keep: Tensor, changed: Tensor) -> Tensor:
        return changed.clone()

    def once_more(keep: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        following = candidates & ~((keep.float() @ covers) > 0)
        return following, (following != keep).any()

    keep, _ = while_loop(unsettled, once_more, (candidates.clone(), torch.tensor(True)))
    kept: Tensor = keep
    return kept


def _covers(boxes: Tensor, threshold: float) -> Tensor:
    """bool [n, n]: the row's box comes first, and its overlap with the column's is too large a share of the smaller."""
    start = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    end = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inter = (end - start + 1).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1)
    place = torch.arange(boxes.shape[0])
    shares = inter / torch.minimum(area[:, None], area[None])
    return (shares > threshold) & (place[:, None] < place[None])


# -- weights and examples ----------------------------------------------------------------------------------------------


@functools.cache
def _detector() -> Any:
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()  # facenet-pytorch imports torchvision
    import facenet_pytorch

    return facenet_pytorch.MTCNN(keep_all=True).eval()


@functools.cache
def _given(name: str) -> tuple[Tensor, ...]:
    """What a stage is given while the astronaut's face is looked for."""
    seen: list[tuple[Tensor, ...]] = []
    stages: dict[str, Stage] = {key: build() for key, build in STAGES.items()}
    stage = stages[name]

    def watched(*args: Tensor, **kwargs: Tensor) -> Mapping[str, Tensor]:
        seen.append((*args, *kwargs.values()))
        return stage(*args, **kwargs)

    with torch.no_grad():
        find_faces({**stages, name: watched}, astronaut())
    return seen[0]
