"""torchvision's operators in plain torch, for machines where its compiled library does not load (torchvision_fix)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from graphforge.ops.batched_nms import batched_nms

__all__ = ["nms", "refuse", "roi_align", "roi_align_fake"]


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: indices of the kept boxes, best score first, ties by index."""
    return batched_nms(dets, scores, None, iou_threshold)


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Average of bilinear samples on a grid in every bin of every box.

    Bilinear sampling is separable, and so is averaging over a grid: each box is one matrix per axis, and the result
    is rows @ image @ columns, computed image by image for all of its boxes at once.
    """
    offset = 0.5 if aligned else 0.0
    corners = rois[:, 1:] * spatial_scale - offset
    x1, y1, x2, y2 = corners.unbind(1)
    least = 0.0 if aligned else 1.0  # the unaligned form never lets a box be thinner than a pixel
    width = x2 - x1 if aligned else (x2 - x1).clamp(min=least)
    height = y2 - y1 if aligned else (y2 - y1).clamp(min=least)
    rows = _sampling_matrix(y1, height, pooled_height, input.shape[2], sampling_ratio)
    columns = _sampling_matrix(x1, width, pooled_width, input.shape[3], sampling_ratio)
    output = input.new_zeros(len(rois), input.shape[1], pooled_height, pooled_width)
    images = rois[:, 0].long()
    for image in images.unique().tolist():
        chosen = images == image
        along_rows = torch.einsum("kph,chw->kcpw", rows[chosen], input[image])
        output[chosen] = torch.einsum("kcpw,kqw->kcpq", along_rows, columns[chosen])
    return output


def roi_align_fake(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The result's shape and dtype."""
    return input.new_empty(rois.shape[0], input.shape[1], pooled_height, pooled_width)


def refuse(name: str) -> Callable[..., NoReturn]:
    """A kernel for an operator that has none here."""

    def kernel(*args: object, **kwargs: object) -> NoReturn:
        raise GraphForgeError(
            f"torchvision::{name} cannot run here: torchvision's compiled library does not load beside this torch",
            "install a torchvision built for this torch (a CPU build beside a CPU torch)",
        )

    return kernel


def _sampling_matrix(start: Tensor, length: Tensor, bins: int, size: int, sampling_ratio: int) -> Tensor:
    """[boxes, bins, size]: what each pixel of an axis gives to each bin of each box."""
    step = length / bins
    if sampling_ratio > 0:
        counts = torch.full_like(start, float(sampling_ratio))
    else:
        counts = step.ceil()
    most = max(int(counts.max()), 1) if len(counts) else 1
    sample = torch.arange(most, dtype=start.dtype)
    used = sample < counts[:, None]  # [boxes, most]
    inside_bin = (sample + 0.5) * (step / counts.clamp(min=1))[:, None]
    position = (
        start[:, None, None]
        + torch.arange(bins, dtype=start.dtype)[:, None] * step[:, None, None]
        + inside_bin[:, None]
    )
    counted = used[:, None] & (position >= -1.0) & (position <= size)  # further out counts as zero
    position = position.clamp(0.0, size - 1.0)
    low = position.floor()
    fraction = position - low
    weight = counted.to(start.dtype) / counts.clamp(min=1)[:, None, None]
    matrix = start.new_zeros(len(start), bins, size)
    matrix.scatter_add_(2, low.long(), weight * (1 - fraction))
    matrix.scatter_add_(2, (low.long() + 1).clamp(max=size - 1), weight * fraction)
    return matrix
