"""fuse-rms-norm: its forms, and what is not one."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.passes.fuse_rms_norm import FuseRmsNorm
from tests.passes.harness import run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


RMS = """g (float[2,5,8] x) => (float[2,5,8] y)
<int64[1] last = {-1}, float two = {2}, float one = {1}, float epsilon = {0.00001}> {
   p = %s v = ReduceMean<keepdims=1>(p, last) e = Add(v, epsilon) s = Sqrt(e) %s %s
}"""


@pytest.mark.parametrize("square", ["Pow(x, two)", "Mul(x, x)"])
@pytest.mark.parametrize("norm", ["n = Div(x, s)", "r = Reciprocal(s) n = Mul(x, r)", "r = Div(one, s) n = Mul(x, r)"])
@pytest.mark.parametrize("tail", ["y = Identity(n)", "y = Mul(w, n)"])
def test_rms_norm(square: str, norm: str, tail: str) -> None:
    outcome = run(FuseRmsNorm(), RMS % (square, norm, tail), weights={"w": floats(8)})
    assert outcome.ops[0] == "RMSNormalization"
    assert len(outcome.ops) == 1 + ("Identity" in tail)


def test_a_mean_that_is_read_elsewhere_stays() -> None:
    text = RMS.replace("(float[2,5,8] y)", "(float[2,5,8] y, float[2,5,1] z)")
    outcome = run(FuseRmsNorm(), text % ("Mul(x, x)", "n = Div(x, s)", "y = Identity(n) z = Neg(v)"))
    assert outcome.reasons == ["the result of ReduceMean is read elsewhere"]
