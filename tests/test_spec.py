"""Input and shape specs: what is read, what is refused, and with which words."""

from __future__ import annotations

import pytest

from graphforge.errors import UsageError
from graphforge.spec import DimRange, ShapeSpec, TensorSpec, parse_dynamic, parse_input


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:1x3x224x224", TensorSpec("x", (1, 3, 224, 224))),
        ("ids:1x128:int64", TensorSpec("ids", (1, 128), "int64")),
        ("pair.0:5", TensorSpec("pair.0", (5,))),
        ("step::int64", TensorSpec("step", (), "int64")),
        ("scale:scalar", TensorSpec("scale", ())),
        ("empty:0x4", TensorSpec("empty", (0, 4))),
    ],
)
def test_reads_inputs(text: str, expected: TensorSpec) -> None:
    assert parse_input(text) == expected


@pytest.mark.parametrize("text", ["x", "x:1,3", "x:1x3x", "1x3", ":1x3", "x:1x-3", "x:1x3:float31"])
def test_refuses_other_inputs_with_a_way_out(text: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_input(text)
    assert failure.value.notes


def test_reads_dynamic_dims() -> None:
    assert parse_dynamic(["x:0=1..8,2=128..512/32", "ids:-1=length:4..64"]) == {
        "x": {0: DimRange("x_0", 1, 8), 2: DimRange("x_2", 128, 512, 32)},
        "ids": {-1: DimRange("length", 4, 64)},
    }


@pytest.mark.parametrize("text", ["x", "x:", "x:0", "x:0=8", "x:0=8..1", "x:0=1..8/0", "x:a=1..8", "x:2=33..40/32"])
def test_refuses_other_dynamic_dims(text: str) -> None:
    with pytest.raises(UsageError):
        parse_dynamic([text])


def test_sizes_are_the_multiples_inside_the_range() -> None:
    dim = DimRange("h", 100, 200, 32)
    assert dim.sizes() == [128, 160, 192]
    assert 160 in dim
    assert 150 not in dim
    assert 224 not in dim


SPEC = ShapeSpec((TensorSpec("x", (2, 3, 64, 64)), TensorSpec("mask", (2, 10), "bool")))


def test_one_name_is_one_size_everywhere() -> None:
    batch = DimRange("batch", 1, 8)
    spec = SPEC.with_dynamic({"x": {0: batch}, "mask": {0: batch}})
    assert spec.example_sizes() == {"batch": 2}
    assert spec.shapes_at({"batch": 5}) == {"x": (5, 3, 64, 64), "mask": (5, 10)}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"y": {0: DimRange("b", 1, 8)}}, "the inputs are: x, mask"),
        ({"x": {4: DimRange("b", 1, 8)}}, "axis 4 does not exist"),
        ({"x": {0: DimRange("b", 4, 8)}}, "outside the promised range 4..8"),
        ({"x": {2: DimRange("h", 32, 96, 48)}}, "outside the promised range 32..96/48"),
        ({"x": {0: DimRange("b", 1, 8)}, "mask": {0: DimRange("b", 1, 9)}}, "two different ranges"),
        ({"x": {0: DimRange("b", 1, 80)}, "mask": {1: DimRange("b", 1, 80)}}, "size 2 in one input and 10 in another"),
    ],
)
def test_refuses_what_cannot_be_promised(wanted: dict[str, dict[int, DimRange]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SPEC.with_dynamic(wanted)


def test_negative_axes_count_from_the_end() -> None:
    spec = SPEC.with_dynamic({"x": {-1: DimRange("w", 32, 96)}})
    assert set(spec.inputs[0].dims) == {3}
