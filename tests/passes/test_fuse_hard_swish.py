"""fuse-hard-swish: its forms, hard sigmoid, and what is neither."""

from __future__ import annotations

import pytest

from graphforge.passes.fuse_hard_swish import FuseHardSwish
from tests.passes.harness import run

SWISH = """g (float[3,4] x) => (float[3,4] y)
<float three = {3}, float six = {6}, float zero = {0}, float sixth = {0.16666667}, float seven = {7}> { %s }"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", ["HardSwish"]),
        ("a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)", ["HardSwish"]),
        ("a = Add(three, x) c = Clip(a, zero, six) d = Mul(sixth, c) y = Mul(d, x)", ["HardSwish"]),
        ("h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, h)", ["HardSwish"]),
        ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", ["HardSigmoid"]),
        ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, seven)", ["Add", "Clip", "Div"]),
        ("a = Add(x, three) c = Clip(a, zero, seven) y = Div(c, six)", ["Add", "Clip", "Div"]),
    ],
)
def test_hard_swish(body: str, left: list[str]) -> None:
    assert run(FuseHardSwish(), SWISH % body).ops == left


def test_doubles_stay_in_parts() -> None:
    body = "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
    outcome = run(FuseHardSwish(), (SWISH % body).replace("float[", "double[").replace("float ", "double "))
    assert "HardSwish" not in outcome.ops
    assert "HardSigmoid is not computed in DOUBLE everywhere" in outcome.reasons


def test_another_hard_sigmoid_stays() -> None:
    outcome = run(FuseHardSwish(), SWISH % "h = HardSigmoid(x) y = Mul(x, h)")
    assert outcome.reasons == ["the HardSigmoid is another one"]
