"""Measure: the ends of every value, what float16 cannot hold, and what is not looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ranges import SAMPLES, Samples, measure, samples_of
from graphforge.ranges import values as values_of_a_model
from tests.passes.harness import parse

_SQUARES = "g (float[N,3] x) => (float[N] y) <int64[1] axes = {1}> { s = Mul(x, x) y = ReduceSum<keepdims=0>(s, axes) }"


def _samples(*arrays: Any) -> Samples:
    return Samples(tuple({"x": np.asarray(array, np.float32)} for array in arrays), "these")


def test_ends_and_shares_of_every_value_over_all_samples() -> None:
    ranges = measure(parse(_SQUARES), _samples([[1, -2, 3]], [[300, 0, 1e-4], [1, 1, 1]]))
    assert (ranges["x"].low, ranges["x"].high, ranges["x"].count) == (-2.0, 300.0, 9)
    squares = ranges["s"]
    assert squares.high == 90000.0
    assert (squares.above, squares.below) == (1, 1)  # 300 squared, and 1e-4 squared
    assert "above 65504" in squares.describe()
    assert squares.where.startswith("Mul node")
    assert ranges["y"].count == 3  # one row, then two


def test_nan_and_infinities_are_counted_and_left_out_of_the_ends() -> None:
    ranges = measure(parse("g (float[4] x) => (float[4] y) { y = Log(x) }"), _samples([0.0, -1.0, 1.0, np.e]))
    assert ranges["y"].strange == 2
    assert (ranges["y"].low, ranges["y"].high) == pytest.approx((0.0, 1.0))


def test_sizes_that_depend_on_data() -> None:
    model = parse("g (float[5] x) => (float[M] y) { n = NonZero(x) t = Transpose(n) p = GatherND(x, t) y = Abs(p) }")
    ranges = measure(model, _samples([0, 0, 7, 0, -9], [0, 0, 0, 0, 0]))
    assert (ranges["p"].low, ranges["p"].high, ranges["p"].count) == (-9.0, 7.0, 2)


def test_many_values_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Abs(x) b = Exp(a) c = Neg(b) y = Abs(c) }")
    samples = _samples([[1, 2, 3], [-4, 5, 6]])
    whole = measure(model, samples, histograms=True)
    monkeypatch.setattr(values_of_a_model, "_MEMORY", 24)  # one value of six floats at a time
    pieces = measure(model, samples, histograms=True)
    assert list(pieces) == list(whole)
    assert [(one.low, one.high, one.squares) for one in pieces.values()] == [
        (one.low, one.high, one.squares) for one in whole.values()
    ]


def test_what_stands_in_a_body_is_said_to_be_left_out() -> None:
    model = parse(
        "g (bool c, float[2] x) => (float[2] y) {"
        " y = If(c)<then_branch = t () => (float[2] a) { a = Exp(x) },"
        " else_branch = e () => (float[2] b) { b = Abs(x) }> }"
    )
    samples = Samples(({"c": np.asarray(True), "x": np.ones(2, np.float32)},), "these")
    ranges = measure(model, samples)
    assert list(ranges) == ["x", "y"]
    assert len(ranges.left_out) == 1
    assert "2 values inside If node" in ranges.left_out[0]


def test_a_graph_without_samples_gets_seeded_ones() -> None:
    model = parse(_SQUARES)
    one, other = samples_of(model), samples_of(model)
    assert len(one.feeds) == 4
    assert np.array_equal(one.feeds[2]["x"], other.feeds[2]["x"])
    assert "random" in one.source
    assert not one.given


def test_samples_in_meta_are_made_once() -> None:
    model = parse(_SQUARES)
    made: list[Samples] = []

    def make() -> Samples:
        made.append(_samples([[1, 2, 3]]))
        return made[-1]

    model.meta[SAMPLES] = make
    assert samples_of(model) is samples_of(model)
    assert len(made) == 1


def test_no_samples_at_all_is_an_error() -> None:
    with pytest.raises(GraphForgeError, match="there are none"):
        measure(parse(_SQUARES), Samples((), "nothing"))
