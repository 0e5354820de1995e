"""Pooling and deformable convolution in plain torch, against the definitions spelled out in Python numbers.

The definitions are those of torchvision's CPU kernels (torchvision/csrc/ops/cpu), rounding and borders included.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from graphforge.frontend.torchvision_fix import TorchvisionState, ensure_torchvision, torchvision_state
from graphforge.ops import _torchvision_kernels as kernels

DOUBLE = torch.float64


def images_of(channels: int, *, whole: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if whole:  # many equal values
        return torch.randint(-3, 3, (2, channels, 11, 9), generator=generator).to(DOUBLE)
    return torch.randn(2, channels, 11, 9, dtype=DOUBLE, generator=generator)


def rois_like(count: int, seed: int) -> Tensor:
    """Boxes inside, across and beyond the borders; halves that round; thin, empty and swapped ones."""
    random = np.random.default_rng(seed)
    corner = random.integers(-12, 44, (count, 2)) / 2
    rows = np.concatenate(
        [random.integers(0, 2, (count, 1)), corner, corner + random.integers(-4, 40, (count, 2)) / 2], 1
    )
    return torch.from_numpy(rows)


def c_round(number: float) -> int:
    return int(math.copysign(math.floor(abs(number) + 0.5), number))


def bounds(start: int, length: int, bins: int, place: int, limit: int) -> tuple[int, int]:
    step = length / bins
    low, high = math.floor(place * step) + start, math.ceil((place + 1) * step) + start
    return min(max(low, 0), limit), min(max(high, 0), limit)


@pytest.mark.parametrize("whole", [False, True])
def test_roi_pool_is_the_largest_of_each_bin(whole: bool) -> None:
    images, rois = images_of(3, whole=whole), rois_like(40, 0)
    output, places = kernels.roi_pool(images, rois, 0.5, 3, 2)
    assert output.dtype == DOUBLE
    assert places.dtype == torch.int32
    empty = 0
    for k, c, p, q in np.ndindex(40, 3, 3, 2):
        x1, y1, x2, y2 = (c_round(value * 0.5) for value in rois[k, 1:].tolist())
        top, bottom = bounds(y1, max(y2 - y1 + 1, 1), 3, p, 11)
        left, right = bounds(x1, max(x2 - x1 + 1, 1), 2, q, 9)
        plane = images[int(rois[k, 0]), c]
        best, place = -math.inf, -1
        for h in range(top, bottom):
            for w in range(left, right):
                if float(plane[h, w]) > best:
                    best, place = float(plane[h, w]), h * 9 + w
        empty += place < 0
        assert (float(output[k, c, p, q]), int(places[k, c, p, q])) == (0.0 if place < 0 else best, place)
    assert 0 < empty < 40 * 18


def test_ps_roi_pool_is_the_mean_of_each_bin_in_its_own_channel() -> None:
    images, rois = images_of(12), rois_like(40, 1)
    output, channels = kernels.ps_roi_pool(images, rois, 0.5, 3, 2)
    empty = 0
    for k, c, p, q in np.ndindex(40, 2, 3, 2):
        x1, y1, x2, y2 = (c_round(value * 0.5) for value in rois[k, 1:].tolist())
        top, bottom = bounds(y1, max(y2 - y1, 1), 3, p, 10)
        left, right = bounds(x1, max(x2 - x1, 1), 2, q, 8)
        channel = (c * 3 + p) * 2 + q
        assert int(channels[k, c, p, q]) == channel
        inside = images[int(rois[k, 0]), channel, top:bottom, left:right]
        empty += not inside.numel()
        expected = float(inside.mean()) if inside.numel() else 0.0
        assert float(output[k, c, p, q]) == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert 0 < empty < 40 * 12


def bilinear(plane: Tensor, y: float, x: float) -> float:
    """Zero further than a pixel outside, the border's value nearer."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, over = y - top, x - left
    upper = (1 - over) * float(plane[top, left]) + over * float(plane[top, right])
    lower = (1 - over) * float(plane[bottom, left]) + over * float(plane[bottom, right])
    return (1 - down) * upper + down * lower


@pytest.mark.parametrize("ratio", [2, -1])
def test_ps_roi_align_is_the_average_of_samples_in_its_own_channel(ratio: int) -> None:
    images, rois = images_of(12), rois_like(30, 2)
    output, channels = kernels.ps_roi_align(images, rois, 0.5, 3, 2, ratio)
    without = 0
    for k, c, p, q in np.ndindex(30, 2, 3, 2):
        x1, y1, x2, y2 = (value * 0.5 - 0.5 for value in rois[k, 1:].tolist())
        step_y, step_x = (y2 - y1) / 3, (x2 - x1) / 2
        grid_y, grid_x = (ratio, ratio) if ratio > 0 else (math.ceil(step_y), math.ceil(step_x))
        channel = (c * 3 + p) * 2 + q
        assert int(channels[k, c, p, q]) == channel
        total = 0.0
        for i in range(grid_y):
            for j in range(grid_x):
                y, x = y1 + p * step_y + (i + 0.5) * step_y / grid_y, x1 + q * step_x + (j + 0.5) * step_x / grid_x
                total += bilinear(images[int(rois[k, 0]), channel], y, x)
        found = float(output[k, c, p, q])
        if grid_y * grid_x == 0:
            without += 1
            assert math.isnan(found)
        else:
            assert found == pytest.approx(total / (grid_y * grid_x), rel=1e-10, abs=1e-12)
    assert (without > 0) == (ratio < 0)


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(GraphForgeError, match="position-sensitive pooling of 5 channels"):
        kernels.ps_roi_pool(images_of(5), rois_like(2, 0), 1.0, 2, 2)


def test_no_boxes() -> None:
    none = torch.zeros(0, 5, dtype=DOUBLE)
    assert kernels.roi_pool(images_of(4), none, 1.0, 2, 2)[0].shape == (0, 4, 2, 2)
    assert kernels.ps_roi_pool(images_of(4), none, 1.0, 2, 2)[0].shape == (0, 1, 2, 2)
    assert kernels.ps_roi_align(images_of(4), none, 1.0, 2, 2, -1)[0].shape == (0, 1, 2, 2)


@pytest.mark.parametrize("masked", [False, True])
def test_deform_conv2d_reads_every_tap_at_its_place(masked: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x, weight, bias = (
        torch.randn(*shape, dtype=DOUBLE, generator=generator) for shape in ((2, 4, 6, 7), (6, 2, 3, 2), (6,))
    )
    offset = torch.randn(2, 2 * 2 * 6, 3, 4, dtype=DOUBLE, generator=generator) * 2
    offset[:, ::5] = offset[:, ::5].round()  # exactly on pixels and on the border's edge
    mask = torch.rand(2, 2 * 6, 3, 4, dtype=DOUBLE, generator=generator)
    found = kernels.deform_conv2d(x, weight, offset, mask, bias, 2, 1, 1, 0, 1, 3, 2, 2, masked)
    assert found.shape == (2, 6, 3, 4)
    for n, o, i, j in np.ndindex(2, 6, 3, 4):
        total = float(bias[o])
        for c, r, s in np.ndindex(2, 3, 2):
            channel = o // 3 * 2 + c
            tap = (channel // 2) * 6 + r * 2 + s
            y = i * 2 - 1 + r + float(offset[n, 2 * tap, i, j])
            z = j + s * 3 + float(offset[n, 2 * tap + 1, i, j])
            value = 0.0
            for u in (math.floor(y), math.floor(y) + 1):
                for v in (math.floor(z), math.floor(z) + 1):
                    if 0 <= u < 6 and 0 <= v < 7:
                        value += float(x[n, channel, u, v]) * (1 - abs(y - u)) * (1 - abs(z - v))
            total += float(weight[o, c, r, s]) * value * (float(mask[n, tap, i, j]) if masked else 1.0)
        assert float(found[n, o, i, j]) == pytest.approx(total, rel=1e-10, abs=1e-10)


def test_without_offsets_it_is_a_convolution() -> None:
    x, weight, bias = torch.randn(1, 4, 9, 8), torch.randn(6, 4, 3, 3), torch.randn(6)
    none = torch.zeros(1, 18, 9, 8)
    found = kernels.deform_conv2d(x, weight, none, none[:0], bias, 1, 1, 1, 1, 1, 1, 1, 1, False)
    torch.testing.assert_close(found, torch.nn.functional.conv2d(x, weight, bias, padding=1), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(torchvision_state() is TorchvisionState.MISSING, reason="torchvision is not installed")
def test_torchvisions_functions_run_and_are_captured_as_one_node_each() -> None:
    ensure_torchvision()
    import torchvision

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torchvision.ops.DeformConv2d(8, 4, 3, padding=1)

        def forward(self, x: Tensor, rois: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
            return (
                torchvision.ops.roi_pool(x, rois, 2),
                torchvision.ops.ps_roi_align(x, rois, 2),
                torchvision.ops.ps_roi_pool(x, rois, 2),
                self.convolution(x, offset),
            )

    inputs = torch.randn(2, 8, 9, 9), rois_like(5, 0).float(), torch.randn(2, 18, 9, 9)
    head = Head().eval()
    program = torch.export.export(head, inputs)
    names = sorted(str(node.target) for node in program.graph.nodes if "torchvision" in str(node.target))
    assert names == [
        f"torchvision.{name}.default" for name in ("deform_conv2d", "ps_roi_align", "ps_roi_pool", "roi_pool")
    ]
    for found, expected in zip(program.module()(*inputs), head(*inputs), strict=True):
        torch.testing.assert_close(found, expected, equal_nan=True)
