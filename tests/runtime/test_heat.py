"""Heatmaps on a picture: they lie where the model saw what they show, and what is no map is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.runtime.feeds import Page
from graphforge.runtime.heat import heated, heatmaps_among
from graphforge.runtime.placement import Placement
from graphforge.runtime.result import Call, RunReport


def _map(channels: int, height: int, width: int, *peaks: tuple[int, int, int]) -> np.ndarray:
    maps = np.zeros((channels, height, width), np.float32)
    for channel, y, x in peaks:
        maps[channel, y, x] = 1
    return maps


def test_a_peak_is_at_its_place_in_the_picture_and_channels_have_colours_of_their_own() -> None:
    # a picture 400 wide lies in the right half of an input of 400x200, at half its size
    picture = Image.new("RGB", (480, 480), "black")
    placement = Placement((0.25, 0.25), (120.0, 0.0))
    maps = _map(2, 15, 30, (0, 3, 18), (1, 10, 25))
    seen = np.asarray(heated(picture, maps, placement, (240, 120))).astype(int)
    assert seen.shape == (480, 480, 3)
    # cell 3, 18 of 8 pixels: the input's 148, 28; the picture's (148 - 120) / 0.25, 28 / 0.25
    first, second = seen[112, 112], seen[336, 336]
    assert first.max() > 150
    assert second.max() > 150
    assert np.abs(first - second).max() > 50
    assert seen[112, 336].max() == 0
    assert seen[336, 112].max() == 0


def test_what_is_a_map_of_the_picture() -> None:
    outputs: dict[str, Array] = {
        "heatmaps": np.ones((1, 17, 64, 48), np.float32),
        "features": np.ones((1, 17, 64, 64), np.float32),
        "larger": np.ones((1, 3, 256, 192), np.float32),
        "logits": np.ones((1, 1000), np.float32),
        "counts": np.ones((1, 17, 64, 48), np.int64),
        "strange": np.full((1, 17, 64, 48), np.nan, np.float32),
    }
    assert list(heatmaps_among(outputs, (192, 256), 1)) == ["heatmaps"]
    assert list(heatmaps_among(outputs, (192, 256), 2)) == []


def test_a_flat_map_leaves_the_picture_as_it_is() -> None:
    picture = Image.new("RGB", (480, 480), "grey")
    assert np.array_equal(np.asarray(heated(picture, np.ones((1, 4, 4)), Placement(), (480, 480))), np.asarray(picture))


def test_a_run_draws_its_heatmaps() -> None:
    page = Page("a.png", Image.new("RGB", (448, 448)), (64, 64), Placement.stretched((448, 448), (64, 64)))
    call = Call((page,), {"heatmaps": _map(2, 16, 16, (1, 4, 4))[None]}, ())
    report = RunReport("out", "ONNX Runtime", (call,), 0.3)
    ((told, picture),) = report.drawings()
    assert told == "a.png: heatmaps, the highest of 2 maps"
    assert np.asarray(picture).max() > 150
    assert report.pictures()[0].startswith(b"\x89PNG")
    nothing = RunReport("out", "ONNX Runtime", (Call((page,), {"logits": np.ones((1, 9))}, ()),), 0.3)
    assert nothing.drawings() == []
    with pytest.raises(GraphForgeError, match="nothing to draw"):
        nothing.picture()
