"""merge-slices: slices of slices, bounds and steps composed."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.passes.merge_slices import MergeSlices
from tests.passes.harness import run


@pytest.mark.parametrize(
    ("first", "second", "ops"),
    [
        ("s1, e9, a0", "s2, e9, a1", 1),
        ("s1, e9, a0", "s2, e9, a0", 1),
        ("s1, e4, a0", "s1, e9, a0", 1),
        ("s1, e4, a1", "s0, e2, am1", 1),
        ("sm3, e9, a0", "s1, e9, a0", 1),
        ("s0, e9, a0, st2", "s1, e9, a0", 2),
        ("s0, e9, a0, st2", "s1, e9, a1", 1),
        ("s4, em9, a0, stm1", "s1, e9, a1", 1),
    ],
)
def test_slices(first: str, second: str, ops: int) -> None:
    constants = """<int64[1] s0 = {0}, int64[1] s1 = {1}, int64[1] s2 = {2}, int64[1] s4 = {4}, int64[1] sm3 = {-3},
      int64[1] e2 = {2}, int64[1] e4 = {4}, int64[1] e9 = {9223372036854775807}, int64[1] em9 = {-9},
      int64[1] a0 = {0}, int64[1] a1 = {1}, int64[1] am1 = {-1}, int64[1] st2 = {2}, int64[1] stm1 = {-1}>"""
    text = (
        f"g (float[5,6] x) => (float[A,B] y) {constants} {{ a = Slice(x, {first}) b = Slice(a, {second}) y = Relu(b) }}"
    )
    outcome = run(MergeSlices(), text)
    assert outcome.ops == ["Slice"] * ops + ["Relu"]
    # Of a size that is not known, bounds that count from the start still compose.
    run(MergeSlices(), text.replace("float[5,6]", "float[N,M]"), sizes={"N": 5, "M": 6})


def test_slices_with_bounds_of_an_input_stay() -> None:
    outcome = run(
        MergeSlices(),
        """g (float[5] x, int64[1] s) => (float[A] y) <int64[1] e = {9}> {
           a = Slice(x, s, e) b = Slice(a, s, e) y = Relu(b)
        }""",
        feeds={"x": np.arange(5, dtype=np.float32), "s": np.array([1])},
    )
    assert outcome.ops == ["Slice", "Slice", "Relu"]
    assert outcome.reasons == ["the bounds are not constant, or the rank is unknown"]
