"""Keypoints from undecoded heatmaps, as MMPose's ``MSRAHeatmap`` and the SDK's decoder of heatmaps have them.

A keypoint is where its map is highest, a quarter of a cell towards the higher of the two neighbours on either axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphforge.errors import GraphForgeError, argument

__all__ = ["poses_of_heatmaps"]

Array = NDArray[Any]


def poses_of_heatmaps(maps: Array, size: tuple[int, int], codec: Mapping[str, Any]) -> dict[str, Array]:
    """``keypoints`` [B, P, 2] in pixels of the input, and ``keypoint_scores`` [B, P].

    Args:
        maps: [B, P, H, W].
        size: width and height of the input.
        codec: what the model's config says of it.

    Raises:
        GraphForgeError: it is another codec, or MSRA's with DARK's refinement.
    """
    kind = str(codec.get("type", ""))
    if kind != "MSRAHeatmap" or codec.get("unbiased"):
        raise GraphForgeError(
            f"heatmaps of codec {kind}{' with unbiased' * bool(codec.get('unbiased'))} are not decoded here",
            f"compile the model with its decoding in the graph: {argument('decode', 'full')}",
        )
    height, width = maps.shape[2:]
    flat = maps.reshape(*maps.shape[:2], -1)
    best, scores = flat.argmax(-1), flat.max(-1)
    x, y = best % width, best // width
    x, y = np.where(scores > 0, x, -1), np.where(scores > 0, y, -1)  # found nowhere

    def at(rows: Array, columns: Array) -> Array:
        inside = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
        return np.take_along_axis(flat, inside[..., None], axis=-1)[..., 0]

    # the second cell is left alone, too, as the framework does it
    across = np.where((x > 1) & (x < width - 1) & (y > 0), np.sign(at(y, x + 1) - at(y, x - 1)), 0)
    down = np.where((y > 1) & (y < height - 1) & (x > 0), np.sign(at(y + 1, x) - at(y - 1, x)), 0)
    cells = np.stack([x + across * 0.25, y + down * 0.25], axis=-1).astype(np.float32)
    return {"keypoints": cells * (np.array(size) / (width, height)).astype(np.float32), "keypoint_scores": scores}
