"""Each codec in tensors gives what MMPose's own gives in numpy: on noise, on seeded peaks, where there are none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graphforge.frontend.openmmlab.stubs import stand_in_for_compiled_operators
from graphforge.frontend.substitutes.mmpose_codecs import DECODERS
from graphforge.runtime.heatmaps import poses_of_heatmaps

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")
stand_in_for_compiled_operators()
codecs: Any = importlib.import_module("mmpose.codecs")

Array = NDArray[Any]

SIZE = (96, 128)
SMALL = (24, 32)
KEYPOINTS = 7


def noise(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def peaks(seed: int, *, deviation: float = 2.0) -> Array:
    """Heatmaps of two pictures with a gaussian each: inside, at the borders, in the corners, and one without any."""
    generator = np.random.default_rng(seed)
    width, height = SMALL
    places = generator.uniform((0, 0), (width, height), size=(2, KEYPOINTS, 2))
    edges = [[0.0, 0.0], [width - 1.0, height - 1.0], [0.4, height / 2], [width / 2, height - 1.4]]
    places[0, :4] = edges
    x, y = np.arange(width), np.arange(height)
    along_x = np.exp(-((x - places[..., :1]) ** 2) / (2 * deviation**2))
    along_y = np.exp(-((y - places[..., 1:]) ** 2) / (2 * deviation**2))
    maps: Array = along_y[..., :, None] * along_x[..., None, :]
    maps += generator.normal(size=maps.shape) * 1e-3
    maps[1, 6] = -np.abs(maps[1, 6])
    return maps.astype(np.float32)


def stock(codec: Any, *outputs: Array) -> tuple[Array, Array]:
    # of several outputs each keeps an axis for people, as `BaseHead.decode` hands them over
    rows = [[one[row : row + 1] if len(outputs) > 1 else one[row] for one in outputs] for row in range(len(outputs[0]))]
    decoded = [codec.decode(*(one.copy() for one in row)) for row in rows]
    return np.concatenate([one[0] for one in decoded]), np.concatenate([np.atleast_2d(one[1]) for one in decoded])


def ours(codec: Any, *outputs: Array) -> tuple[Array, Array]:
    keypoints, scores, _ = DECODERS[type(codec).__name__](codec, *(torch.from_numpy(one.copy()) for one in outputs))
    return keypoints.numpy(), scores.numpy()


def agree(codec: Any, *outputs: Array, within: float = 1e-3) -> None:
    (expected, scores), (came, own) = stock(codec, *outputs), ours(codec, *outputs)
    assert came.shape == expected.shape
    np.testing.assert_allclose(came, expected, rtol=0, atol=within)
    np.testing.assert_allclose(own, scores, rtol=1e-5, atol=1e-6)


HEATMAPS: dict[str, Callable[[], Any]] = {
    "msra": lambda: codecs.MSRAHeatmap(input_size=SIZE, heatmap_size=SMALL, sigma=2),
    "msra, dark": lambda: codecs.MSRAHeatmap(input_size=SIZE, heatmap_size=SMALL, sigma=2, unbiased=True),
    "msra, dark, short kernel": lambda: codecs.MSRAHeatmap(
        input_size=SIZE, heatmap_size=SMALL, sigma=2, unbiased=True, blur_kernel_size=7
    ),
    "megvii": lambda: codecs.MegviiHeatmap(input_size=SIZE, heatmap_size=SMALL, kernel_size=11),
    "megvii, short kernel": lambda: codecs.MegviiHeatmap(input_size=SIZE, heatmap_size=SMALL, kernel_size=5),
    "udp": lambda: codecs.UDPHeatmap(input_size=SIZE, heatmap_size=SMALL, heatmap_type="gaussian", sigma=2),
}


@pytest.mark.parametrize("name", HEATMAPS)
@pytest.mark.parametrize("seed", range(4))
def test_heatmaps_with_peaks(name: str, seed: int) -> None:
    agree(HEATMAPS[name](), peaks(seed))


@pytest.mark.parametrize("name", ["msra", "megvii"])
@pytest.mark.parametrize("seed", range(2))
def test_heatmaps_of_noise(name: str, seed: int) -> None:
    agree(HEATMAPS[name](), noise((3, KEYPOINTS, SMALL[1], SMALL[0]), seed))


@pytest.mark.parametrize("seed", range(4))
def test_udp_with_offsets(seed: int) -> None:
    codec = codecs.UDPHeatmap(input_size=SIZE, heatmap_size=SMALL, heatmap_type="combined")
    maps = noise((2, KEYPOINTS * 3, SMALL[1], SMALL[0]), seed) * 0.1
    maps[:, ::3] = peaks(seed)
    agree(codec, maps)


@pytest.mark.parametrize("dark", [False, True], ids=["plain", "dark"])
@pytest.mark.parametrize("seed", range(4))
def test_axes(seed: int, dark: bool) -> None:
    codec = codecs.SimCCLabel(input_size=SIZE, sigma=(4.9, 5.66), simcc_split_ratio=2.0, normalize=False, use_dark=dark)
    generator = np.random.default_rng(seed)
    places = generator.uniform(4, 188, size=(2, KEYPOINTS, 1))
    axes = [np.exp(-((np.arange(2 * side) - places) ** 2) / 60) + 1e-4 for side in SIZE]
    axes[1][0, 2] *= -1  # a keypoint that is not there
    agree(codec, *(axis.astype(np.float32) for axis in axes))


def test_visibility_of_axes() -> None:
    codec = codecs.SimCCLabel(input_size=SIZE, sigma=6.0, simcc_split_ratio=2.0, decode_visibility=True)
    axes = [noise((2, KEYPOINTS, 2 * side), 3) * 1e-2 for side in SIZE]
    decoded = [codec.decode(*(axis[row : row + 1].copy() for axis in axes)) for row in range(2)]
    _, _, visible = DECODERS["SimCCLabel"](codec, *(torch.from_numpy(axis) for axis in axes))
    assert visible is not None
    np.testing.assert_allclose(visible.numpy(), np.stack([one[1][1].reshape(-1) for one in decoded]), rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 4])
def test_coordinates(depth: int) -> None:
    for codec in (
        codecs.RegressionLabel(input_size=SIZE),
        codecs.IntegralRegressionLabel(input_size=SIZE, heatmap_size=SMALL, sigma=2),
    ):
        agree(codec, noise((3, 1, KEYPOINTS, depth), 5), within=1e-4)


def test_the_runtime_reads_heatmaps_of_the_sdk_the_same() -> None:
    codec = codecs.MSRAHeatmap(SIZE, SMALL, sigma=2.0)
    for maps in (peaks(5), noise((2, KEYPOINTS, SMALL[1], SMALL[0]), 6)):
        keypoints, scores = stock(codec, maps)
        found = poses_of_heatmaps(maps, SIZE, {"type": "MSRAHeatmap"})
        np.testing.assert_allclose(found["keypoints"], keypoints, atol=1e-4)
        np.testing.assert_array_equal(found["keypoint_scores"], scores)
