"""fuse-gelu: its forms, and what is not one."""

from __future__ import annotations

import math

import pytest

from graphforge.passes.fuse_gelu import FuseGelu
from tests.passes.harness import run

GELU = f"""g (float[3,4] x) => (float[3,4] y)
<float root = {{{math.sqrt(2)}}}, float inverse = {{{math.sqrt(0.5)}}}, float one = {{1}}, float half = {{0.5}},
 float third = {{0.3}}, float three = {{3}}, float small = {{0.044715}},
 float pi = {{{math.sqrt(2 / math.pi)}}}> {{ %s }}"""


INNER = [
    "a = Div(x, root) e = Erf(a)",
    "a = Mul(x, inverse) e = Erf(a)",
    "c = Pow(x, three) t = Mul(c, small) s = Add(x, t) a = Mul(s, pi) e = Tanh(a)",
    "q = Mul(x, x) c = Mul(q, x) t = Mul(small, c) s = Add(x, t) a = Mul(pi, s) e = Tanh(a)",
]
OUTER = [
    "g1 = Add(e, one) h = Mul(x, g1) y = Mul(h, half)",
    "g1 = Add(one, e) h = Mul(half, x) y = Mul(h, g1)",
    "g1 = Add(e, one) h = Mul(g1, half) y = Mul(x, h)",
]


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_gelu(inner: str, outer: str) -> None:
    outcome = run(FuseGelu(), GELU % f"{inner} {outer}")
    assert outcome.ops == ["Gelu"]
    assert ("approximate" in outcome.model.graph[0].attributes) is ("Tanh" in inner)


def test_what_is_no_gelu() -> None:
    wrong = run(FuseGelu(), GELU % f"{INNER[0]} {OUTER[0].replace('half', 'third')}")
    assert "Gelu" not in wrong.ops
    double = GELU.replace("float[", "double[").replace("float ", "double ") % f"{INNER[0]} {OUTER[0]}"
    outcome = run(FuseGelu(), double, numbers=False)  # ONNX Runtime has no Erf of doubles
    assert "Gelu is not computed in DOUBLE everywhere" in outcome.reasons
    assert "Gelu" not in outcome.ops
