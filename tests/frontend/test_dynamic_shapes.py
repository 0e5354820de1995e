"""dynamic_shapes in every form that users write: ours, torch.export's, text; what cannot be meant is told in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.export import Dim

from graphforge.errors import UsageError
from graphforge.frontend.dynamic_shapes import read_dynamic_shapes
from graphforge.prepare import prepare
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

SPEC = ShapeSpec((TensorSpec("x", (2, 3, 32)), TensorSpec("pair.0", (2, 4)), TensorSpec("pair.1", (2, 4))))
PARAMETERS = ("x", "pair")
BATCH = Dim("batch", min=1, max=8)
ONE = {"x": {0: DimRange("batch", 1, 8)}}


def read(given: Any) -> dict[str, dict[int, DimRange]]:
    return read_dynamic_shapes(given, SPEC, PARAMETERS)[0]


@pytest.mark.parametrize(
    "given",
    [
        {"x": {0: DimRange("batch", 1, 8)}},
        {"x": {0: BATCH}},
        {"x": (BATCH, None, None)},
        {"x": [BATCH, 3, Dim.STATIC]},
        ({0: BATCH},),
        ({0: BATCH}, None),
        [(BATCH, None, None), None],
        "x:0=batch:1..8",
        ["x:0=batch:1..8"],
        {"x": {0: "batch:1..8"}, "pair": None},
    ],
)
def test_the_same_range_in_every_form(given: Any) -> None:
    assert read(given) == ONE


def test_ranges_without_a_name_are_called_after_input_and_axis() -> None:
    assert read({"x": {0: (1, 8), -1: (32, 64, 32)}}) == {
        "x": {0: DimRange("x_0", 1, 8), -1: DimRange("x_2", 32, 64, 32)}
    }
    assert read({"x": {2: "32..64/32"}}) == {"x": {2: DimRange("x_2", 32, 64, 32)}}


def test_nested_inputs_take_nested_shapes() -> None:
    wanted = {"pair.0": {0: DimRange("batch", 1, 8)}, "pair.1": {0: DimRange("batch", 1, 8)}}
    assert read({"pair": ({0: BATCH}, {0: BATCH})}) == wanted
    assert read({"pair.0": {0: BATCH}, "pair.1": {0: BATCH}}) == wanted


@pytest.mark.parametrize(
    ("dim", "wanted"),
    [
        (Dim("batch"), DimRange("batch", 1, 8)),
        (Dim("batch", min=2), DimRange("batch", 2, 8)),
        (Dim.AUTO, DimRange("x_0", 1, 8)),
        (Dim.DYNAMIC(max=5), DimRange("x_0", 1, 5)),
    ],
)
def test_an_open_dim_says_what_is_promised(dim: Any, wanted: DimRange) -> None:
    ranges, notes = read_dynamic_shapes({"x": {0: dim}}, SPEC, PARAMETERS)
    assert ranges == {"x": {0: wanted}}
    promised = f"dynamic_shapes['x'][0] has no largest size, so {wanted.low}..8 is what is tried and promised"
    assert notes == ([] if wanted.high == 5 else [promised])


@pytest.mark.parametrize(
    ("given", "message", "way_out"),
    [
        ({"x": {0: 2 * Dim("half")}}, "dynamic_shapes['x'][0]: 2*half is computed from another dim", "DimRange with a"),
        ({"x": {0: 5}}, "dynamic_shapes['x'][0] is the fixed size 5, but the example has 2", "(2, 5)"),
        (
            {"x": (1, 8)},
            "dynamic_shapes['x']: expected a dict by axis, or one entry for each of its 3 axes",
            "{0: (1, 8)}",
        ),
        ({"x": {0: 1.5}}, "dynamic_shapes['x'][0]: expected (low, high), (low, high, step), a DimRange", "for example"),
        ({"x": {"0": (1, 8)}}, "dynamic_shapes['x']: axis '0' is not a whole number", "{0: (1, 8)}"),
        ({"x": 8}, "dynamic_shapes['x']: expected a dict by axis, got 8", "{0: (1, 8)}"),
        ({"pair": 3}, "dynamic_shapes['pair']: expected a dict or tuple", "pair.0, pair.1"),
        (7, "dynamic_shapes: expected a dict by input name, got int 7", "'x:0=1..8'"),
        (({}, {}, {}), "dynamic_shapes has 3 entries, but the model takes 2 inputs", "x, pair"),
    ],
)
def test_what_cannot_be_meant_is_told_in_the_callers_words(given: Any, message: str, way_out: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(given)
    assert caught.value.message.startswith(message)
    assert way_out in caught.value.notes[0]


class Sum(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image + mask


def test_wrong_name_lists_the_inputs() -> None:
    with pytest.raises(UsageError, match="dynamic_shapes names input 'x', but the inputs are: image, mask"):
        prepare(Sum(), (torch.rand(2), torch.rand(2)), dynamic_shapes={"x": {0: (1, 8)}})


@pytest.mark.parametrize(
    "inputs", [("a:2x3", "b:2x3"), {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, ["a:2x3", "b:2x3"]]
)
@pytest.mark.parametrize("dynamic", [{"b": {0: (1, 4)}}, "b:0=1..4"])
def test_names_that_are_no_parameters_go_by_position_and_it_is_said(inputs: Any, dynamic: Any) -> None:
    prepared = prepare(Sum(), inputs, dynamic_shapes=dynamic)
    assert [tensor.name for tensor in prepared.shapes.inputs] == ["image", "mask"]
    assert [dict(tensor.dims) != {} for tensor in prepared.shapes.inputs] == [False, True]
    assert prepared.notes == [
        "inputs went by position, since their names are not those of the model's parameters: a is image, b is mask"
    ]


def test_names_of_parameters_go_by_name_without_a_word() -> None:
    prepared = prepare(Sum(), {"mask": torch.ones(2), "image": torch.zeros(2)})
    assert prepared.notes == []
    assert prepared.inputs is not None
    assert prepared.inputs.tensors["mask"].sum() == 2


def test_one_wrong_name_among_right_ones_is_refused() -> None:
    with pytest.raises(UsageError, match="the model has no input 'b'"):
        prepare(Sum(), {"image": torch.ones(2), "b": torch.zeros(2)})
