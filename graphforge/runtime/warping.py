"""Resize and crop pictures as OpenCV does, with it or without it.

`resized` gives what ``cv2.resize`` gives with INTER_LINEAR, to the bit on bytes: OpenCV's own integers are followed.
`warped` is exact bilinear interpolation, as ``cv2.warpAffine`` of OpenCV 5 has it (a byte may round the other way where
a value lies in the middle of two).  OpenCV 4 rounds every place to 1/32 of a pixel there, which is up to 6 of 255
off; it is not asked, so that a bundle sees the same pixels wherever it runs.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np

from graphforge.runtime.files import Array
from graphforge.runtime.placement import Placement

__all__ = ["opencv", "resized", "warped"]

_BITS = 11  # OpenCV's weights of a resize are whole numbers of 1/2048


@functools.cache
def opencv() -> ModuleType | None:
    """OpenCV, where it is installed."""
    try:
        import cv2
    except ImportError:
        return None
    module: ModuleType = cv2
    return module


def resized(pixels: Array, size: tuple[int, int]) -> Array:
    """[H, W, C] at another size (width, height), bilinear, without looking at what lies between the taps."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    library = opencv()
    if library is not None:
        array: Array = library.resize(np.ascontiguousarray(pixels), size, interpolation=library.INTER_LINEAR)
        return array.reshape(size[1], size[0], pixels.shape[2])  # it drops an axis of one channel
    left, right, across = _taps(size[0], pixels.shape[1], at_edges=True)
    above, below, down = _taps(size[1], pixels.shape[0], at_edges=False)
    if pixels.dtype != np.uint8:
        wide = _mixed(pixels[:, left], pixels[:, right], across[None, :, None])
        return _mixed(wide[above], wide[below], down[:, None, None])
    unit = np.float32(1 << _BITS)
    near, far = (np.rint(part * unit).astype(np.int32)[None, :, None] for part in (1 - across, across))
    lines = np.right_shift(pixels[:, left] * near + pixels[:, right] * far, 4)
    near, far = (np.rint(part * unit).astype(np.int32)[:, None, None] for part in (1 - down, down))
    sums = np.right_shift(lines[above] * near, 16) + np.right_shift(lines[below] * far, 16)
    rounded: Array = np.clip(np.right_shift(sums + 2, 2), 0, 255).astype(np.uint8)
    return rounded


def warped(pixels: Array, placement: Placement, size: tuple[int, int], value: Array) -> Array:
    """[H, W, C] laid into an input (width, height), bilinear; ``value`` [C] where the picture does not reach.

    The placement is OpenCV's here: it speaks of the middles of pixels.
    """
    library = opencv()
    if library is not None and int(library.__version__.partition(".")[0]) >= 5:
        matrix = np.array(
            [[placement.scale[0], 0, placement.shift[0]], [0, placement.scale[1], placement.shift[1]]], np.float64
        )
        array: Array = library.warpAffine(
            np.ascontiguousarray(pixels),
            matrix,
            size,
            flags=library.INTER_LINEAR,
            borderMode=library.BORDER_CONSTANT,
            borderValue=[float(one) for one in value],
        )
        return array.reshape(size[1], size[0], pixels.shape[2])
    wide = np.asarray(pixels, np.float32)
    value = np.asarray(value, np.float32)
    for axis, cells, scale, shift in (
        (0, size[1], placement.scale[1], placement.shift[1]),
        (1, size[0], placement.scale[0], placement.shift[0]),
    ):
        places = (np.arange(cells) - shift) / scale
        whole = np.floor(places)
        share = (places - whole).astype(np.float32).reshape(-1, 1, 1)
        side = wide.shape[axis]
        # one line of the border's value before and behind stands for all that lies outside
        first, second = (np.clip(whole + step, -1, side).astype(np.int64) + 1 for step in (0, 1))
        line = np.broadcast_to(value, (1, *wide.shape[1:]) if axis == 0 else (len(wide), 1, wide.shape[2]))
        low, high = int(first.min(initial=0)), int(second.max(initial=0)) + 1
        bordered = np.concatenate([line, wide, line], axis=axis).take(range(low, high), axis=axis)
        near, far = bordered.take(first - low, axis=axis), bordered.take(second - low, axis=axis)
        wide = _mixed(near, far, share if axis == 0 else share.reshape(1, -1, 1))
    if pixels.dtype != np.uint8:
        return wide
    return np.clip(np.rint(wide), 0, 255).astype(np.uint8)


def _taps(cells: int, side: int, *, at_edges: bool) -> tuple[Array, Array, Array]:
    """For each cell the two lines it lies between, and how far towards the second it is.

    Args:
        cells: how many are wanted.
        side: how many lines there are.
        at_edges: outside the picture the share is 0; else both lines are the edge, which rounds a little differently.
    """
    scale = 1.0 / (cells / side)  # in this order, as OpenCV rounds it
    places = ((np.arange(cells) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int64)
    share = places - first.astype(np.float32)
    if at_edges:
        share[(first < 0) | (first >= side - 1)] = 0
    return first.clip(0, side - 1), (first + 1).clip(0, side - 1), share


def _mixed(near: Array, far: Array, share: Array) -> Array:
    near = near.astype(np.float32)
    mixed: Array = near + (far.astype(np.float32) - near) * share
    return mixed
