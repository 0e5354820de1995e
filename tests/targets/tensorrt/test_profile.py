"""The optimisation profile out of the shape spec."""

from __future__ import annotations

import pytest

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange
from graphforge.targets.tensorrt.profile import InputRange, profile_of
from tests.targets.models import spec

BATCH = DimRange("batch", 1, 8)


def test_static_inputs_need_no_profile() -> None:
    assert profile_of(spec("x", 1, 3, 4, 4), {"x": (1, 3, 4, 4)}) == {}


def test_optimum_is_the_example() -> None:
    shapes = spec("x", 2, 3, 64, 64, axis0=BATCH, axis3=DimRange("width", 32, 128))
    assert profile_of(shapes, {"x": (-1, 3, 64, -1)}) == {
        "x": InputRange((1, 3, 64, 32), (2, 3, 64, 64), (8, 3, 64, 128))
    }


def test_bounds_are_promised_sizes_when_there_is_a_step() -> None:
    shapes = spec("x", 1, 3, 64, 64, axis3=DimRange("width", 30, 130, 32))
    assert profile_of(shapes, {"x": (1, 3, 64, -1)})["x"].minimum[3] == 32
    assert profile_of(shapes, {"x": (1, 3, 64, -1)})["x"].maximum[3] == 128


def test_dynamic_dim_without_a_range_is_refused_with_the_flag_to_give() -> None:
    with pytest.raises(GraphForgeError, match="dynamic on axis 0, but no range") as caught:
        profile_of(spec("x", 1, 3), {"x": (-1, 3)})
    assert "dynamic_shapes='x:0=1..8'" in str(caught.value)


def test_baked_in_size_is_refused() -> None:
    with pytest.raises(GraphForgeError, match=r"promised 1\.\.8 on axis 0, but the model has the size 2 baked in"):
        profile_of(spec("x", 2, 3, axis0=BATCH), {"x": (2, 3)})


def test_input_that_nobody_described_is_refused() -> None:
    with pytest.raises(GraphForgeError, match="has input 'z' with 2 dims"):
        profile_of(spec("x", 1, 3), {"z": (1, 3)})
