"""MMPose's codecs in tensors: from heatmaps, axes or coordinates of a batch to keypoints in pixels of the input.

Each takes the stock codec object and the head's batch of outputs, and returns keypoints [B, K, 2], scores [B, K], and
visibilities or None.  `tests/openmmlab/test_codecs.py` holds each against the stock one in numpy, on seeded peaks too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphforge.errors import GraphForgeError

__all__ = ["DECODERS"]

Decoded = tuple[Tensor, Tensor, "Tensor | None"]


# -- SimCC -------------------------------------------------------------------------------------------------------------


def simcc(codec: Any, simcc_x: Tensor, simcc_y: Tensor) -> Decoded:
    """The largest element along each axis."""
    keypoints, scores = _simcc_maximum(simcc_x, simcc_y)
    if codec.use_dark:
        parts = [
            _dark_along(keypoints[..., axis], values, _dark_kernel(codec.sigma[axis]))
            for axis, values in enumerate((simcc_x, simcc_y))
        ]
        keypoints = torch.stack(parts, dim=-1)
    keypoints = keypoints / codec.simcc_split_ratio
    if not codec.decode_visibility:
        return keypoints, scores, None
    soft = [
        functional.softmax(values * codec.decode_beta * float(codec.sigma[axis]), dim=-1)
        for axis, values in enumerate((simcc_x, simcc_y))
    ]
    return keypoints, scores, _simcc_maximum(*soft)[1]


def _simcc_maximum(simcc_x: Tensor, simcc_y: Tensor) -> tuple[Tensor, Tensor]:
    best_x, x = simcc_x.max(dim=-1)
    best_y, y = simcc_y.max(dim=-1)
    scores = torch.minimum(best_x, best_y)
    places = torch.stack([x, y], dim=-1).to(scores.dtype)
    return torch.where((scores > 0)[..., None], places, -1.0), scores


def _dark_kernel(sigma: float) -> int:
    kernel = int((sigma * 20 - 7) // 3)
    return kernel - int(kernel % 2 == 0)


def _dark_along(places: Tensor, values: Tensor, kernel: int) -> Tensor:
    """Refined along one axis: a parabola through the logarithm around the largest element."""
    weights = _gaussian(kernel, values)
    length = values.shape[-1]
    rows = values.reshape(-1, 1, length)
    blurred = functional.conv1d(rows, weights[None, None], padding=kernel // 2).reshape(values.shape)
    blurred = blurred * (values.amax(dim=-1, keepdim=True) / blurred.amax(dim=-1, keepdim=True))
    logs = blurred.clamp(1e-3, 50.0).log()
    logs = torch.cat([logs[..., :1]] * 2 + [logs] + [logs[..., -1:]] * 2, dim=-1)
    # as numpy does it: half a place is added before truncation, and then the two places of the border
    index = (places + 2.5).to(torch.int64)[..., None]
    # numpy counts a place before the first one from the end
    steps = [index + step for step in (-2, -1, 0, 1, 2)]
    at = [logs.gather(-1, torch.where(step < 0, step + logs.shape[-1], step))[..., 0] for step in steps]
    slope = 0.5 * (at[3] - at[1])
    curve = 1e-9 + 0.25 * (at[4] - 2 * at[2] + at[0])
    return places - slope / curve


# -- heatmaps ----------------------------------------------------------------------------------------------------------


def msra(codec: Any, heatmaps: Tensor) -> Decoded:
    """The largest element of each heatmap, a quarter of a pixel towards the second largest, or refined (DARK)."""
    keypoints, scores = _heatmap_maximum(heatmaps)
    if codec.unbiased:
        keypoints = _refined_dark(keypoints, _modulated(heatmaps, codec.blur_kernel_size).clamp(min=1e-10).log())
    else:
        keypoints = keypoints + 0.25 * _towards_second(keypoints, heatmaps)
    return keypoints * _factor(codec.scale_factor, keypoints), scores, None


def megvii(codec: Any, heatmaps: Tensor) -> Decoded:
    """The largest element of each blurred heatmap, moved by a quarter and a half of a pixel."""
    blurred = _modulated(heatmaps, codec.kernel_size)
    keypoints, scores = _heatmap_maximum(blurred)
    x, y, inside = _inside(keypoints, blurred, low=1, margin=1)
    offset = _signs(blurred, x, y) * 0.25 + 0.5
    keypoints = keypoints + torch.where(inside[..., None], offset, 0.0)
    return keypoints * _factor(codec.scale_factor, keypoints), scores / 255.0 + 0.5, None


def udp(codec: Any, heatmaps: Tensor) -> Decoded:
    """Unbiased data processing: gaussian heatmaps refined by their curvature, or class maps with offsets."""
    width, height = codec.heatmap_size
    if codec.heatmap_type == "gaussian":
        keypoints, scores = _heatmap_maximum(heatmaps)
        keypoints = _refined_udp(keypoints, _modulated(heatmaps, codec.blur_kernel_size).clamp(1e-3, 50.0).log())
    elif codec.heatmap_type == "combined":
        batch, _, rows, columns = heatmaps.shape
        parts = heatmaps.reshape(batch, -1, 3, rows, columns)
        kernel = 2 * codec.blur_kernel_size + 1
        # OpenCV continues the picture here by its mirror, border left out
        classes = _blurred(functional.pad(parts[:, :, 0], [kernel // 2] * 4, mode="reflect"), kernel)
        keypoints, scores = _heatmap_maximum(classes)
        radius = codec.radius_factor * max(columns, rows)
        # where nothing is above nought, the place is (-1, -1), and numpy counts that from the end
        index = (keypoints[..., 0] + keypoints[..., 1] * columns).to(torch.int64)
        if_none = torch.arange(index.shape[1], device=index.device) * (rows * columns) + index
        total = index.shape[1] * rows * columns
        flat = torch.where(if_none < 0, if_none + total, if_none)
        offsets = [parts[:, :, one].reshape(batch, -1).gather(1, flat) * radius for one in (1, 2)]
        keypoints = keypoints + torch.stack(offsets, dim=-1)
    else:
        raise GraphForgeError(f"UDP heatmaps of type {codec.heatmap_type!r} have no decoding")
    size = _factor((width - 1, height - 1), keypoints)
    return keypoints / size * _factor(codec.input_size, keypoints), scores, None


def _heatmap_maximum(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    columns = heatmaps.shape[-1]
    scores, index = heatmaps.flatten(-2).max(dim=-1)
    places = torch.stack([index % columns, torch.div(index, columns, rounding_mode="floor")], dim=-1)
    return torch.where((scores > 0)[..., None], places.to(scores.dtype), -1.0), scores


def _at(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[B, K]: the element of each heatmap at a place that is inside of it."""
    rows, columns = heatmaps.shape[-2:]
    index = y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)
    return heatmaps.flatten(-2).gather(-1, index[..., None])[..., 0]


def _inside(keypoints: Tensor, heatmaps: Tensor, *, low: int, margin: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places as whole numbers, and whether they are further than ``low`` and ``margin`` from the edges."""
    rows, columns = heatmaps.shape[-2:]
    x, y = keypoints.to(torch.int64).unbind(dim=-1)
    return x, y, (x > low) & (x < columns - margin) & (y > low) & (y < rows - margin)


def _signs(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    dx = _at(heatmaps, x + 1, y) - _at(heatmaps, x - 1, y)
    dy = _at(heatmaps, x, y + 1) - _at(heatmaps, x, y - 1)
    return torch.stack([dx, dy], dim=-1).sign()


def _towards_second(keypoints: Tensor, heatmaps: Tensor) -> Tensor:
    """The signs of the slopes, nought where the stock codec does not look."""
    rows, columns = heatmaps.shape[-2:]
    x, y = keypoints.to(torch.int64).unbind(dim=-1)
    signs = _signs(heatmaps, x, y)
    along_x = (x > 1) & (x < columns - 1) & (y > 0) & (y < rows)
    along_y = (y > 1) & (y < rows - 1) & (x > 0) & (x < columns)
    return torch.where(torch.stack([along_x, along_y], dim=-1), signs, 0.0)


def _refined_dark(keypoints: Tensor, logs: Tensor) -> Tensor:
    """A Newton step on the logarithm of the heatmap."""
    x, y, inside = _inside(keypoints, logs, low=1, margin=2)

    def at(dx: int, dy: int) -> Tensor:
        return _at(logs, x + dx, y + dy)

    here = at(0, 0)
    dx, dy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    dxx = 0.25 * (at(2, 0) - 2 * here + at(-2, 0))
    dyy = 0.25 * (at(0, 2) - 2 * here + at(0, -2))
    dxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    determinant = dxx * dyy - dxy**2
    usable = inside & (determinant != 0)
    offset = _newton(dx, dy, dxx, dxy, dyy, torch.where(usable, determinant, 1.0))
    return keypoints - torch.where(usable[..., None], offset, 0.0)


def _refined_udp(keypoints: Tensor, logs: Tensor) -> Tensor:
    """The same step with neighbours beyond the edge taken from the edge."""
    rows, columns = logs.shape[-2:]
    padded = functional.pad(logs, [1, 1, 1, 1], mode="replicate")
    x, y = keypoints.unbind(dim=-1)
    batch, count = x.shape
    # a place of (-1, -1) is the padding's corner, whose neighbours before it are those of the heatmap before
    index = (x + 1 + (y + 1) * (columns + 2)).to(torch.int64)
    size = (rows + 2) * (columns + 2)
    index = index + torch.arange(count, device=index.device) * size
    flat = padded.reshape(batch, count * size)

    def at(step: int) -> Tensor:
        place = index + step
        return flat.gather(1, torch.where(place < 0, place + count * size, place))

    here, right, below = at(0), at(1), at(columns + 2)
    left, above = at(-1), at(-2 - columns)
    dx, dy = 0.5 * (right - left), 0.5 * (below - above)
    dxx, dyy = right - 2 * here + left, below - 2 * here + above
    dxy = 0.5 * (at(columns + 3) - right - below + here + here - left - above + at(-columns - 3))
    epsilon = float(torch.finfo(torch.float32).eps)
    dxx, dyy = dxx + epsilon, dyy + epsilon
    return keypoints - _newton(dx, dy, dxx, dxy, dyy, dxx * dyy - dxy * dxy)


def _newton(dx: Tensor, dy: Tensor, dxx: Tensor, dxy: Tensor, dyy: Tensor, determinant: Tensor) -> Tensor:
    return torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], dim=-1) / determinant[..., None]


def _modulated(heatmaps: Tensor, kernel: int) -> Tensor:
    """Blurred, with noughts beyond the edge, and scaled to the largest element that there was."""
    blurred = _blurred(functional.pad(heatmaps, [kernel // 2] * 4), kernel)
    largest, now = (one.amax(dim=(-2, -1), keepdim=True) for one in (heatmaps, blurred))
    return blurred * (largest / now)


def _blurred(padded: Tensor, kernel: int) -> Tensor:
    """A gaussian over each heatmap, which has its border already: first along rows, then along columns."""
    weights = _gaussian(kernel, padded)
    batch, count, rows, columns = padded.shape
    maps = padded.reshape(-1, 1, rows, columns)
    maps = functional.conv2d(functional.conv2d(maps, weights[None, None, None, :]), weights[None, None, :, None])
    return maps.reshape(batch, count, maps.shape[-2], maps.shape[-1])


def _gaussian(kernel: int, like: Tensor) -> Tensor:
    """OpenCV's weights: for short kernels a fixed table, for others a deviation that follows from the length."""
    if kernel in _SHORT:
        return like.new_tensor(_SHORT[kernel])
    deviation = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    weights = [math.exp(-((place - (kernel - 1) / 2) ** 2) / (2 * deviation**2)) for place in range(kernel)]
    return like.new_tensor([weight / sum(weights) for weight in weights])


_SHORT = {
    1: [1.0],
    3: [0.25, 0.5, 0.25],
    5: [0.0625, 0.25, 0.375, 0.25, 0.0625],
    7: [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125],
    9: [4 / 256, 13 / 256, 30 / 256, 51 / 256, 60 / 256, 51 / 256, 30 / 256, 13 / 256, 4 / 256],
}


def _factor(values: Any, like: Tensor) -> Tensor:
    return like.new_tensor([float(value) for value in values])


# -- coordinates -------------------------------------------------------------------------------------------------------


def regression(codec: Any, coordinates: Tensor) -> Decoded:
    """Shares of the input's size, with a score from the deviation where the head gives one."""
    one = coordinates[:, 0]  # [B, 1, K, 2 or 4]: one person in a picture
    keypoints = one[..., :2] * _factor(codec.input_size, one)
    if one.shape[-1] == 2:
        return keypoints, torch.ones_like(one[..., 0]), None
    return keypoints, (1 - one[..., 2:4]).mean(dim=-1), None


def integral_regression(codec: Any, coordinates: Tensor, *_: Tensor) -> Decoded:
    """As of plain regression."""
    return regression(codec.keypoint_codec, coordinates)


DECODERS: dict[str, Callable[..., Decoded]] = {
    "SimCCLabel": simcc,
    "MSRAHeatmap": msra,
    "UDPHeatmap": udp,
    "MegviiHeatmap": megvii,
    "RegressionLabel": regression,
    "IntegralRegressionLabel": integral_regression,
}
