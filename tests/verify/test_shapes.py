"""Which sizes are tried: at least two others for every dim, never the full product, never more than the budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphforge.spec import DimRange, ShapeSpec, TensorSpec, parse_dynamic
from graphforge.verify import plan_sizes


def spec(shape: tuple[int, ...], *dynamic: str) -> ShapeSpec:
    return ShapeSpec((TensorSpec("x", shape),)).with_dynamic(parse_dynamic(dynamic))


def others(shapes: ShapeSpec, name: str) -> list[int]:
    example = shapes.example_sizes()[name]
    return sorted({a.sizes[name] for a in plan_sizes(shapes).assignments} - {example})


def test_static_spec_has_the_example_only() -> None:
    plan = plan_sizes(spec((1, 3, 8, 8)))
    assert [a.label for a in plan.assignments] == ["example"]
    assert plan.notes == ()


def test_batch_one_an_odd_one_and_the_end() -> None:
    assert others(spec((2, 3, 8, 8), "x:0=1..8"), "x_0") == [1, 3, 8]
    assert others(spec((1, 3, 8, 8), "x:0=1..8"), "x_0") == [3, 8]


def test_steps_are_kept_and_the_odd_one_is_an_odd_multiple() -> None:
    sizes = others(spec((1, 3, 224, 224), "x:2=128..512/32"), "x_2")
    assert sizes == [128, 288, 512]
    assert 288 // 32 % 2 == 1


def test_short_ranges_give_what_there_is() -> None:
    assert others(spec((1, 4), "x:0=1..2"), "x_0") == [2]
    assert others(spec((1, 4), "x:0=1..3"), "x_0") == [2, 3]
    assert others(spec((4, 4), "x:0=4..4"), "x_0") == []


def test_large_ranges_are_capped_and_say_so() -> None:
    shapes = spec((1, 3, 2560, 2560), "x:0=1..64")
    plan = plan_sizes(shapes)
    elements = [math.prod(shapes.shapes_at(a.sizes)["x"]) for a in plan.assignments]
    assert max(elements) <= 4 * 3 * 2560 * 2560
    assert others(shapes, "x_0") == [3, 4]
    assert plan.notes == ("x_0: promised up to 64, tried up to 4 (78,643,200 input elements at most per run)",)


def test_equal_dims_become_unequal() -> None:
    plan = plan_sizes(spec((1, 3, 64, 64), "x:2=32..128,3=32..128"))
    assert any(a.sizes["x_2"] != a.sizes["x_3"] for a in plan.assignments)


def test_dims_of_one_name_vary_together() -> None:
    shapes = ShapeSpec((TensorSpec("a", (2, 8)), TensorSpec("b", (2,)))).with_dynamic(
        parse_dynamic(["a:0=n:1..8", "b:0=n:1..8"])
    )
    for assignment in plan_sizes(shapes).assignments:
        found = shapes.shapes_at(assignment.sizes)
        assert found["a"][0] == found["b"][0]


def test_not_the_full_product() -> None:
    shapes = spec((2, 3, 64, 64), "x:0=1..8,2=32..128,3=32..128")
    assert len(plan_sizes(shapes).assignments) <= 5


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(0, 5000), st.integers(1, 64), st.integers(0, 10_000)),
        min_size=1,
        max_size=4,
    )
)
def test_every_dim_gets_two_other_sizes_of_its_range(drawn: list[tuple[int, int, int, int]]) -> None:
    dims, shape = {}, []
    for axis, (low, extent, step, pick) in enumerate(drawn):
        low, high = low * step, low * step + extent
        dim = DimRange(f"d{axis}", low, high, step)
        sizes = dim.sizes()
        dims[axis] = dim
        shape.append(sizes[pick % len(sizes)])
    shapes = ShapeSpec((TensorSpec("x", tuple(shape), dims=dims),))
    plan = plan_sizes(shapes)
    for axis, dim in dims.items():
        tried = {a.sizes[dim.name] for a in plan.assignments}
        assert all(size in dim for size in tried)
        possible = len(dim.sizes(limit=3))
        assert len(tried - {shape[axis]}) >= min(2, possible - 1)
        if dim.low == 1:
            assert 1 in tried
    assert len({tuple(a.sizes.items()) for a in plan.assignments}) == len(plan.assignments)
    assert len(plan.assignments) <= 4 + 2 * len(dims)


def test_budget_can_be_given() -> None:
    shapes = spec((1, 100), "x:0=1..1000")
    assert max(a.sizes["x_0"] for a in plan_sizes(shapes, max_elements=50_000).assignments) == 500


@pytest.mark.parametrize("low", [0, 1])
def test_the_low_end_is_promised_too(low: int) -> None:
    assert others(spec((4, 4), f"x:0={low}..8"), "x_0")[0] == low


def test_what_capture_asks_for_is_tried_within_the_budget() -> None:
    shapes = spec((1, 100), "x:0=1..1000")
    sizes = [{"x_0": size} for size in (2, 7, 7, 30, 900)]
    plan = plan_sizes(shapes, max_elements=50_000, also=sizes)
    assert [a.sizes["x_0"] for a in plan.assignments if a.label == "asked"] == [2, 7, 30]
    assert any("of 4 sizes that capture could not settle 3 were tried" in note for note in plan.notes)


def test_too_many_sizes_that_capture_asks_for_are_thinned_out_evenly() -> None:
    shapes = spec((1, 1000), "x:0=1..64")
    plan = plan_sizes(shapes, max_elements=64_000, also=[{"x_0": size} for size in range(1, 65)])
    asked = [a.sizes["x_0"] for a in plan.assignments if a.label == "asked"]
    assert 20 < len(asked) < 60
    assert sum(asked) * 1000 <= 17 * 64_000
