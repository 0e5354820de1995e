"""Optimisation profiles out of the shape spec and of what is asked for."""

from __future__ import annotations

import pytest

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange
from graphforge.targets.tensorrt.options import _profiles
from graphforge.targets.tensorrt.profile import InputRange, Sizes, profile_of, profiles_of
from graphforge.targets.tensorrt.runner import profile_for
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


WIDE = spec("x", 2, 3, 64, 64, axis0=BATCH, axis3=DimRange("width", 32, 128, 32))
DYNAMIC = {"x": (-1, 3, 64, -1)}


def test_each_profile_has_its_own_sizes_and_optimum() -> None:
    asked = [{"batch": Sizes(1, 1)}, {"batch": Sizes(2, 8, 4), "width": Sizes(32, 128)}]
    assert profiles_of(WIDE, DYNAMIC, {"width": 96}, asked) == [
        {"x": InputRange((1, 3, 64, 32), (1, 3, 64, 96), (1, 3, 64, 128))},
        {"x": InputRange((2, 3, 64, 32), (4, 3, 64, 96), (8, 3, 64, 128))},
    ]
    assert profiles_of(WIDE, DYNAMIC) == [profile_of(WIDE, DYNAMIC)]
    assert profiles_of(spec("x", 1, 3), {"x": (1, 3)}) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([{"n": Sizes(1, 8)}], "names the dim 'n', which is not dynamic"),
        ([{"batch": Sizes(1, 9)}], r"batch=9, which is not among the sizes promised: 1\.\.8"),
        ([{"width": Sizes(32, 100)}], r"width=100, which is not among .* in steps of 32"),
        (
            [{"batch": Sizes(1, 4, 6)}, {"batch": Sizes(5, 8)}],
            r"batch=1\.\.4 and is to be fastest at 6, which is outside",
        ),
        ([{"batch": Sizes(1, 2)}, {"batch": Sizes(4, 8)}], "batch=3 is promised, and no profile has it"),
        (
            [{"batch": Sizes(1, 1), "width": Sizes(32, 64)}, {"batch": Sizes(2, 8)}],
            "batch=1, width=96 is promised, and no profile has it",
        ),
    ],
)
def test_profiles_that_do_not_hold_what_was_promised(asked: list[dict[str, Sizes]], message: str) -> None:
    with pytest.raises(GraphForgeError, match=message):
        profiles_of(WIDE, DYNAMIC, None, asked)


def test_profiles_are_read_as_people_write_them() -> None:
    wanted = ({"batch": Sizes(1, 1)}, {"batch": Sizes(2, 8, 4), "width": Sizes(32, 64)})
    assert _profiles("batch=1; batch=2..8@4, width=32..64") == wanted
    assert _profiles([{"batch": 1}, {"batch": (2, 8, 4), "width": "32..64"}]) == wanted
    for bad, message in (("batch", "cannot be read"), ("batch=few", "sizes 'few'"), ("batch=8..2", "run backwards")):
        with pytest.raises(ValueError, match=message):
            _profiles(bad)


def test_the_profile_to_run_with_is_the_first_that_has_the_sizes() -> None:
    written = [
        {"x": {"min": [1, 3], "opt": [1, 3], "max": [1, 3]}},
        {"x": {"min": [2, 3], "opt": [4, 3], "max": [8, 3]}},
    ]
    assert [profile_for(written, {"x": (size, 3)}) for size in (1, 2, 8, 9)] == [0, 1, 1, None]
