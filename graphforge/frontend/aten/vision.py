"""Sampling: grid_sample, affine_grid, and torchvision's roi_align, roi_pool and deform_conv2d."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_MODES = {0: "linear", 1: "nearest", 2: "cubic"}
_PADDING = {0: "zeros", 1: "border", 2: "reflection"}


@lowers(
    "aten.grid_sampler.default",
    "aten.grid_sampler_2d.default",
    "aten.grid_sampler_3d.default",
)
def grid_sampler(
    op: Emitter,
    x: ir.Value,
    grid: ir.Value,
    interpolation_mode: int = 0,
    padding_mode: int = 0,
    align_corners: bool = False,
) -> ir.Value:
    """GridSample."""
    result: ir.Value = op.GridSample(
        x,
        grid,
        mode=_MODES[interpolation_mode],
        padding_mode=_PADDING[padding_mode],
        align_corners=int(align_corners),
    )
    return result


@lowers("aten.cudnn_grid_sampler.default")
def cudnn_grid_sampler(op: Emitter, x: ir.Value, grid: ir.Value) -> ir.Value:
    """The only form that cuDNN has: bilinear, zeros outside, corners aligned."""
    return grid_sampler(op, x, grid, align_corners=True)


@lowers("aten.affine_grid_generator.default")
def affine_grid(op: Emitter, theta: ir.Value, size: Sequence[Dim], align_corners: bool) -> ir.Value:
    """AffineGrid."""
    result: ir.Value = op.AffineGrid(theta, op.vector(list(size)), align_corners=int(align_corners))
    return result


@lowers("torchvision.roi_align.default")
def roi_align(
    op: Emitter,
    x: ir.Value,
    rois: ir.Value,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> ir.Value:
    """RoiAlign."""
    images = op.cast(op.Gather(rois, 0, axis=1), ir.DataType.INT64)
    result: ir.Value = op.RoiAlign(
        x,
        op.Slice(rois, [1], [5], [1]),
        images,
        output_height=pooled_height,
        output_width=pooled_width,
        sampling_ratio=max(sampling_ratio, 0),
        spatial_scale=float(spatial_scale),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    return result


@lowers("torchvision.roi_pool.default")
def roi_pool(
    op: Emitter, x: ir.Value, rois: ir.Value, spatial_scale: float, pooled_height: int, pooled_width: int
) -> list[ir.Value | None]:
    """MaxRoiPool, which rounds, clips and fills empty bins as torchvision does; without the argmax."""
    if op.wants(1):
        raise GraphForgeError(  # no LoweringError: torch's own translation would hand out something else in its place
            "the places of the largest values (argmax) of roi_pool have no ONNX form",
            "use the pooled values only, as torchvision.ops.roi_pool does",
        )
    pooled: ir.Value = op.MaxRoiPool(
        op.cast(x, ir.DataType.FLOAT),
        op.cast(rois, ir.DataType.FLOAT),
        pooled_shape=[pooled_height, pooled_width],
        spatial_scale=float(spatial_scale),
    )
    return [pooled, None]


@lowers("torchvision.deform_conv2d.default")
def deform_conv2d(
    op: Emitter,
    x: ir.Value,
    weight: ir.Value,
    offset: ir.Value,
    mask: ir.Value,
    bias: ir.Value,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> ir.Value:
    """DeformConv."""
    result: ir.Value = op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w] * 2,
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
        kernel_shape=[op.static_size(weight, 2), op.static_size(weight, 3)],
    )
    return result
