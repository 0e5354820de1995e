"""torchvision's operators in plain torch, for machines where its compiled library does not load (torchvision_fix)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from graphforge.ops.batched_nms import batched_nms

__all__ = [
    "deform_conv2d",
    "deform_conv2d_fake",
    "nms",
    "ps_roi_align",
    "ps_roi_align_fake",
    "ps_roi_pool",
    "ps_roi_pool_fake",
    "refuse",
    "roi_align",
    "roi_align_fake",
    "roi_pool",
    "roi_pool_fake",
]


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


def roi_pool(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """The largest value in every bin of every box, and where it stands in its plane (-1: nowhere).

    The largest of a rectangle is the largest of its rows' largest: rows are gone through first, then columns, of all
    bins at once.
    """
    corners = _rounded(rois[:, 1:] * spatial_scale)
    x1, y1, x2, y2 = corners.unbind(1)
    height, width = input.shape[2:]
    rows = _bins(y1, (y2 - y1 + 1).clamp(min=1), pooled_height, height)
    columns = _bins(x1, (x2 - x1 + 1).clamp(min=1), pooled_width, width)
    empty = (rows[1] <= rows[0])[:, :, None] | (columns[1] <= columns[0])[:, None, :]
    output = input.new_zeros(len(rois), input.shape[1], pooled_height, pooled_width)
    places = torch.full_like(output, -1, dtype=torch.int64)
    images = rois[:, 0].long()
    lowest = torch.finfo(torch.float32).min  # what torchvision starts from in double precision as well
    for image in images.unique().tolist():
        chosen = (images == image).nonzero()[:, 0]
        first, last = rows[0][chosen], rows[1][chosen]
        best = input.new_full((input.shape[1], len(chosen), pooled_height, width), lowest)
        where = torch.full_like(best, -1, dtype=torch.int64)
        for step in range(_most(first, last)):
            row = (first + step).clamp(max=height - 1)
            values = input[image][:, row]
            better = (first + step < last)[None, :, :, None] & (values > best)
            best = torch.where(better, values, best)
            where = torch.where(better, row[None, :, :, None] * width + torch.arange(width), where)
        first, last = columns[0][chosen], columns[1][chosen]
        largest = input.new_full((input.shape[1], len(chosen), pooled_height, pooled_width), lowest)
        place = torch.full_like(largest, -1, dtype=torch.int64)
        for step in range(_most(first, last)):
            column = (first + step).clamp(max=width - 1)
            index = column[None, :, None, :].expand(largest.shape)
            values, found = best.gather(3, index), where.gather(3, index)
            # of equal values the first one, row by row
            better = (values > largest) | ((values == largest) & (found < place))
            better &= (first + step < last)[None, :, None, :] & (found >= 0)
            largest, place = torch.where(better, values, largest), torch.where(better, found, place)
        output[chosen], places[chosen] = largest.transpose(0, 1), place.transpose(0, 1)
    output = torch.where(empty[:, None], 0.0, output)
    places = torch.where(empty[:, None], -1, places)
    return output, places.int()


def roi_pool_fake(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """The results' shapes and dtypes."""
    output = input.new_empty(rois.shape[0], input.shape[1], pooled_height, pooled_width)
    return output, torch.empty_like(output, dtype=torch.int32)


def ps_roi_align(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int
) -> tuple[Tensor, Tensor]:
    """RoIAlign (aligned) whose every bin reads channels of its own; and which channel each result was read from."""
    x1, y1, x2, y2 = (rois[:, 1:] * spatial_scale - 0.5).unbind(1)
    rows = _sampling_matrix(y1, y2 - y1, pooled_height, input.shape[2], sampling_ratio)
    columns = _sampling_matrix(x1, x2 - x1, pooled_width, input.shape[3], sampling_ratio)
    output, channels = _position_sensitive(input, rois, rows, columns)
    if sampling_ratio <= 0:  # torchvision divides by the number of samples, 0 of a box without extent
        none = ((y2 - y1).div(pooled_height).ceil() * (x2 - x1).div(pooled_width).ceil()) == 0
        output[none] = torch.nan
    return output, channels


def ps_roi_align_fake(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int
) -> tuple[Tensor, Tensor]:
    """The results' shapes and dtypes."""
    return ps_roi_pool_fake(input, rois, spatial_scale, pooled_height, pooled_width)


def ps_roi_pool(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """The mean of every bin of every box, each bin in channels of its own; and which channel each was read from.

    Bins end before the last row and column of the image, as torchvision's kernel has it.
    """
    x1, y1, x2, y2 = _rounded(rois[:, 1:] * spatial_scale).unbind(1)
    height, width = input.shape[2:]
    rows = _bins(y1, (y2 - y1).clamp(min=1), pooled_height, height - 1)
    columns = _bins(x1, (x2 - x1).clamp(min=1), pooled_width, width - 1)
    output, channels = _position_sensitive(
        input, rois, _mean_matrix(*rows, height, input.dtype), _mean_matrix(*columns, width, input.dtype)
    )
    return output, channels


def ps_roi_pool_fake(
    input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int
) -> tuple[Tensor, Tensor]:
    """The results' shapes and dtypes."""
    channels = input.shape[1] // (pooled_height * pooled_width)
    output = input.new_empty(rois.shape[0], channels, pooled_height, pooled_width)
    return output, torch.empty_like(output, dtype=torch.int32)


def deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """Convolution whose every tap is read bilinearly at a place of its own (Zhu et al., Deformable ConvNets v2, 2018).

    All taps of all windows are gathered at once, then one matrix product per group.
    """
    images, channels, height, width = input.shape
    kernel_h, kernel_w = weight.shape[2:]
    out_h, out_w = offset.shape[2:]
    taps, windows = kernel_h * kernel_w, out_h * out_w
    shifts = offset.reshape(images, offset_groups, kernel_h, kernel_w, 2, out_h, out_w)
    dtype = input.dtype
    tap_y = torch.arange(kernel_h, dtype=dtype)[:, None, None, None] * dilation_h - pad_h
    tap_x = torch.arange(kernel_w, dtype=dtype)[:, None, None] * dilation_w - pad_w
    y = tap_y + torch.arange(out_h, dtype=dtype)[:, None] * stride_h + shifts[:, :, :, :, 0]
    x = tap_x + torch.arange(out_w, dtype=dtype) * stride_w + shifts[:, :, :, :, 1]
    top, left = y.floor(), x.floor()
    below, beside = y - top, x - left
    planes = input.reshape(images, offset_groups, channels // offset_groups, height * width)
    sampled = planes.new_zeros(images, offset_groups, channels // offset_groups, taps * windows)
    for row, column, part in (
        (top, left, (1 - below) * (1 - beside)),
        (top, left + 1, (1 - below) * beside),
        (top + 1, left, below * (1 - beside)),
        (top + 1, left + 1, below * beside),
    ):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        index = index.reshape(images, offset_groups, 1, -1).expand(sampled.shape)
        share = torch.where(inside, part, 0.0).reshape(images, offset_groups, 1, -1)
        sampled += planes.gather(3, index) * share
    if use_mask:
        sampled = sampled * mask.reshape(images, offset_groups, 1, -1)
    columns = sampled.reshape(images, groups, channels // groups * taps, windows)
    rows = weight.reshape(groups, weight.shape[0] // groups, channels // groups * taps)
    result = (rows @ columns).reshape(images, weight.shape[0], out_h, out_w)
    return result + bias[:, None, None]


def deform_conv2d_fake(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *geometry: int
) -> Tensor:
    """The result's shape and dtype."""
    return input.new_empty(input.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])


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


def _rounded(numbers: Tensor) -> Tensor:
    """Nearest whole number, halves away from zero: as C rounds, not as torch does."""
    whole = numbers.trunc()
    return torch.where((numbers - whole).abs() >= 0.5, whole + numbers.sign(), whole)


def _bins(start: Tensor, length: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """int64 [boxes, bins]: the first pixel of each bin and the one after its last, within the image."""
    step = (length / bins)[:, None]
    place = torch.arange(bins, dtype=start.dtype)
    first, last = (place * step).floor(), ((place + 1) * step).ceil()
    bounds = [(one + start[:, None]).clamp(0, limit).long() for one in (first, last)]
    return bounds[0], bounds[1]


def _most(first: Tensor, last: Tensor) -> int:
    return max(int((last - first).max()), 0) if first.numel() else 0


def _mean_matrix(first: Tensor, last: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """[boxes, bins, size]: the share of each pixel of an axis in each bin of each box, 0 in empty bins."""
    pixel = torch.arange(size)
    inside = (pixel >= first[..., None]) & (pixel < last[..., None])
    return inside.to(dtype) / (last - first).clamp(min=1)[..., None].to(dtype)


def _position_sensitive(input: Tensor, rois: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Bin (p, q) of result channel c from input channel (c P + p) Q + q, through one matrix per axis and box."""
    bins = rows.shape[1], columns.shape[1]
    if input.shape[1] % (bins[0] * bins[1]):
        raise GraphForgeError(
            f"position-sensitive pooling of {input.shape[1]} channels into {bins[0]} x {bins[1]} bins",
            "the channels must be a multiple of the bins",
        )
    channels = input.shape[1] // (bins[0] * bins[1])
    output = input.new_zeros(len(rois), channels, *bins)
    images = rois[:, 0].long()
    for image in images.unique().tolist():
        chosen = images == image
        planes = input[image].reshape(channels, *bins, *input.shape[2:])
        along_rows = torch.einsum("kph,cpqhw->kcpqw", rows[chosen], planes)
        output[chosen] = torch.einsum("kcpqw,kqw->kcpq", along_rows, columns[chosen])
    read = torch.arange(input.shape[1], dtype=torch.int32).reshape(channels, *bins)
    return output, read.expand(output.shape).clone()
