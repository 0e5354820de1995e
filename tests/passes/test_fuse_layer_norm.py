"""fuse-layer-norm: its forms, and what is not one."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.passes.fuse_layer_norm import FuseLayerNorm
from tests.passes.harness import run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


LAYER_NORM = """g (float[2,5,8] x, float[2,5,8] u) => (float[2,5,8] y)
<int64[1] last = {-1}, int64[1] second = {1}, float two = {2}, float epsilon = {0.00001}> {
   m = ReduceMean<keepdims=1>(x, last) d = Sub(x, m) p = %s v = ReduceMean<keepdims=1>(p, %s)
   e = Add(v, epsilon) s = Sqrt(e) n = Div(d, s) %s
}"""


@pytest.mark.parametrize("square", ["Pow(d, two)", "Mul(d, d)"])
@pytest.mark.parametrize("tail", ["y = Identity(n)", "y = Mul(n, w)", "y = Mul(w, n)", "k = Mul(n, w) y = Add(k, b)"])
def test_layer_norm(square: str, tail: str) -> None:
    outcome = run(FuseLayerNorm(), LAYER_NORM % (square, "last", tail), weights={"w": floats(8), "b": floats(8)})
    expected = ["LayerNormalization", "Identity"] if "Identity" in tail else ["LayerNormalization"]
    assert outcome.ops == expected
    assert outcome.model.graph[0].attributes["epsilon"].as_float() == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAYER_NORM % ("Pow(d, two)", "second", "y = Identity(n)"), "mean and variance are over different axes"),
        (
            LAYER_NORM.replace("(x, last)", "(x, second)") % ("Pow(d, two)", "second", "y = Identity(n)"),
            "the mean is not over the last axes",
        ),
        (
            LAYER_NORM.replace("float[2,5,8] x,", "float[2,5,N] x,") % ("Pow(d, two)", "last", "y = Identity(n)"),
            "the normalised dims are not known",
        ),
    ],
)  # fmt: skip
def test_what_is_no_layer_norm(text: str, reason: str) -> None:
    outcome = run(FuseLayerNorm(), text, sizes={"N": 8})
    assert outcome.reasons == [reason]
    assert "LayerNormalization" not in outcome.ops


def test_a_factor_of_another_shape_stays_behind_the_norm() -> None:
    outcome = run(FuseLayerNorm(), LAYER_NORM % ("Mul(d, d)", "last", "y = Mul(n, u)"))
    assert outcome.ops == ["LayerNormalization", "Mul"]
    assert outcome.reasons == ["the factor has not the shape of what is normalised"]
