"""fuse-pad-into-conv: which padding a Conv or a pool takes over."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.fuse_pad_into_conv import FusePadIntoConv
from tests.passes.harness import run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


PADS = """<int64[8] p = {0, 0, 1, 2, 0, 0, 1, 0}, int64[8] channel = {0, 1, 0, 0, 0, 0, 0, 0},
  int64[8] crop = {0, 0, -1, 0, 0, 0, 0, 0}, float one = {1}, int64[4] two = {1, 1, 0, 2}, int64[2] axes = {2, 3}>"""


@pytest.mark.parametrize(
    "body",
    [
        "a = Pad(x, p) y = Conv(a, w)",
        "a = Pad(x, two, , axes) y = Conv<pads=[1,0,0,1]>(a, w)",
        "a = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(a)",
        "r = Relu(x) a = Pad(r, p) y = MaxPool<kernel_shape=[3,3]>(a)",
    ],
)
def test_padding_fuses(body: str) -> None:
    outcome = run(
        [FusePadIntoConv(), EliminateDeadCode()],
        f"g (float[1,4,6,6] x) => (float[A,B,C,D] y) {PADS} {{ {body} }}",
        weights={"w": floats(4, 4, 3, 3)},
    )
    assert "Pad" not in outcome.ops


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('a = Pad<mode="reflect">(x, p) y = Conv(a, w)', "the Pad is of mode reflect"),
        ("a = Pad(x, p, one) y = Conv(a, w)", "Conv pads zeros, not 1.0"),
        ("a = Pad(x, crop) y = Conv(a, w)", "the Pad crops"),
        ("a = Pad(x, channel) y = Conv(a, v)", "the Pad also pads the batch or the channels"),
        ('a = Pad(x, p) y = Conv<auto_pad="SAME_UPPER">(a, w)', "the operator pads by its own rule (auto_pad)"),
        ("a = Pad(x, p) y = MaxPool<kernel_shape=[3,3]>(a)", "what is padded may win in the MaxPool"),
        ("a = Pad(x, p) y = AveragePool<kernel_shape=[2,2]>(a)", "the padding is as wide as the window"),
        (
            "a = Pad(x, p) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
            "the AveragePool counts one padding and not the other",
        ),
        ("a = Pad(x, p) y = Conv(a, w) z = Relu(a)", "the result of Pad is read elsewhere"),
    ],
)
def test_padding_stays(body: str, reason: str) -> None:
    result = "float[A,B,C,D] y, float[E,F,G,H] z" if "z = " in body else "float[A,B,C,D] y"
    outcome = run(
        FusePadIntoConv(),
        f"g (float[1,4,6,6] x) => ({result}) {PADS} {{ {body} }}",
        weights={"w": floats(4, 4, 3, 3), "v": floats(4, 5, 3, 3)},
    )
    assert reason in outcome.reasons
    assert "Pad" in outcome.ops


def test_padding_of_an_input_stays() -> None:
    outcome = run(
        FusePadIntoConv(),
        "g (float[1,4,6,6] x, int64[8] q) => (float[A,B,C,D] y) { a = Pad(x, q) y = Conv(a, w) }",
        weights={"w": floats(4, 4, 3, 3)},
        feeds={"x": floats(1, 4, 6, 6), "q": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )
    assert outcome.reasons == ["how much is padded is not constant, or the rank is unknown"]
