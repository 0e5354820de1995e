"""RoiAlign in plain operators, for targets that have none: four gathers over the pixels of all feature maps together.

Every sample of every box is bilinear between four pixels.  The maps are laid out as rows of one matrix, [pixels, C], in
which a sample's pixels are found by level, image, row and column: no box is pooled from a level that is not its own,
and no size depends on data.  Borders are those of ONNX's RoiAlign: nothing further than a pixel outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder

__all__ = ["roi_align_of_levels"]

_INT64 = int(ir.DataType.INT64)
_FLOAT = int(ir.DataType.FLOAT)


def roi_align_of_levels(
    op: Builder,
    features: Sequence[ir.Value],
    corners: ir.Value,
    images: ir.Value,
    levels: ir.Value | None,
    *,
    scales: Sequence[float],
    size: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> ir.Value:
    """Boxes pooled from the map of their level, [R, C, height, width].

    Args:
        op: where to build.
        features: float [B, C, H_i, W_i], one per level, of fixed shape.
        corners: float [R, 4], x1 y1 x2 y2.
        images: int64 [R]
        levels: int64 [R]; None where there is one level only.
        scales: factor from box to map pixels, per level.
        size: pooled height and width.
        sampling_ratio: samples per bin and axis, above 0.
        aligned: pixel centres at .5.

    Raises:
        GraphForgeError: the number of samples depends on the boxes, or a map has no fixed shape.
    """
    if sampling_ratio <= 0:
        raise GraphForgeError(
            "RoiAlign in plain operators needs a fixed number of samples, this one adapts it to each box",
            "set the layer's sampling_ratio to a number above 0, such as 2",
        )
    shapes = [_fixed_shape(feature) for feature in features]
    channels, planes = shapes[0][1], [shape[2] * shape[3] for shape in shapes]
    bases = np.cumsum([0, *(shape[0] * plane for shape, plane in zip(shapes, planes, strict=True))])[:-1]
    pixels = [
        op.Reshape(op.Transpose(feature, perm=[0, 2, 3, 1]), [shape[0] * plane, channels])
        for feature, shape, plane in zip(features, shapes, planes, strict=True)
    ]
    matrix = pixels[0] if len(pixels) == 1 else op.Concat(*pixels, axis=0)
    if levels is not None:
        levels = op.Min(op.Max(levels, 0), len(features) - 1)

    def of_level(numbers: Sequence[float], dtype: ir.DataType) -> ir.Value:
        """[R, 1], or [1, 1] for one level: a number that each level has."""
        table = op.constant(np.array(numbers).reshape(-1, 1), dtype)
        found: ir.Value = table if levels is None else op.Gather(table, levels, axis=0)
        return found

    heights, widths = ([shape[axis] for shape in shapes] for axis in (2, 3))
    scaled = op.Mul(corners, of_level(scales, ir.DataType.FLOAT))
    if aligned:
        scaled = op.Sub(scaled, 0.5)
    x1, y1, x2, y2 = op.Split(scaled, axis=1, num_outputs=4, _outputs=4)
    rows = _samples(op, y1, y2, of_level(heights, ir.DataType.FLOAT), size[0], sampling_ratio, aligned)
    columns = _samples(op, x1, x2, of_level(widths, ir.DataType.FLOAT), size[1], sampling_ratio, aligned)
    first = op.Add(
        of_level(bases.tolist(), ir.DataType.INT64),
        op.Mul(op.Unsqueeze(images, [1]), of_level(planes, ir.DataType.INT64)),
    )
    across = of_level(widths, ir.DataType.INT64)
    total: ir.Value | None = None
    for row, row_share in rows:
        start = op.Unsqueeze(op.Add(first, op.Mul(row, across)), [2])  # [R, rows, 1]
        for column, column_share in columns:
            values = op.Gather(matrix, op.Add(start, op.Unsqueeze(column, [1])), axis=0)  # [R, rows, columns, C]
            share = op.Mul(op.Unsqueeze(row_share, [2]), op.Unsqueeze(column_share, [1]))
            part = op.Mul(values, op.Unsqueeze(share, [3]))
            total = part if total is None else op.Add(total, part)
    bins = op.Reshape(total, [-1, size[0], sampling_ratio, size[1], sampling_ratio, channels])
    pooled: ir.Value = op.Transpose(op.ReduceMean(bins, [2, 4], keepdims=0), perm=[0, 3, 1, 2])
    return pooled


def _samples(
    op: Builder, start: ir.Value, end: ir.Value, size: ir.Value, bins: int, ratio: int, aligned: bool
) -> list[tuple[ir.Value, ir.Value]]:
    """The pixels before and behind every sample of an axis, int64 [R, bins * ratio], each with its share."""
    length = op.Sub(end, start)
    if not aligned:
        length = op.Max(length, 1.0)
    places = (np.arange(bins)[:, None] + (np.arange(ratio) + 0.5) / ratio).reshape(1, -1) / bins
    position = op.Add(start, op.Mul(length, op.constant(places, ir.DataType.FLOAT)))
    counted = op.Cast(op.And(op.GreaterOrEqual(position, -1.0), op.LessOrEqual(position, size)), to=_FLOAT)
    last = op.Sub(size, 1.0)
    position = op.Min(op.Max(position, 0.0), last)
    before = op.Floor(position)
    fraction = op.Sub(position, before)
    behind = op.Min(op.Add(before, 1.0), last)
    return [
        (op.Cast(before, to=_INT64), op.Mul(op.Sub(1.0, fraction), counted)),
        (op.Cast(behind, to=_INT64), op.Mul(fraction, counted)),
    ]


def _fixed_shape(feature: ir.Value) -> list[int]:
    if feature.shape is None or not all(isinstance(dim, int) for dim in feature.shape):
        raise GraphForgeError(
            f"RoiAlign in plain operators needs feature maps of a fixed shape, {feature.name!r} has {feature.shape}",
            "compile with inputs of a fixed size",
        )
    return [int(dim) for dim in feature.shape.numpy()]
