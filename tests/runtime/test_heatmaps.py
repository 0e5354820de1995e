"""Heatmaps that come undecoded are read as MMPose's codec reads them; tests/openmmlab holds them to its own code."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.runtime.heatmaps import poses_of_heatmaps

MSRA = {"type": "MSRAHeatmap", "unbiased": False}


def test_a_peak_moves_a_quarter_towards_its_higher_neighbour() -> None:
    maps = np.zeros((1, 3, 16, 12), np.float32)
    maps[0, 0, 5, 7], maps[0, 0, 5, 8], maps[0, 0, 4, 7] = 1, 0.5, 0.25
    maps[0, 1, 0, 0] = 0.5  # on the edge: stays
    found = poses_of_heatmaps(maps, (48, 64), MSRA)
    np.testing.assert_array_equal(found["keypoints"][0], [[29, 19], [0, 0], [-4, -4]])  # the third is nowhere
    np.testing.assert_array_equal(found["keypoint_scores"], [[1, 0.5, 0]])


@pytest.mark.parametrize("codec", [{"type": "UDPHeatmap"}, {**MSRA, "unbiased": True}])
def test_other_codecs_are_refused(codec: dict[str, object]) -> None:
    with pytest.raises(GraphForgeError, match="are not decoded here"):
        poses_of_heatmaps(np.zeros((1, 1, 4, 4), np.float32), (16, 16), codec)
