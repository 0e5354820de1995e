"""eliminate-common-subexpressions: equal nodes merge; random ones, bodies and outputs do not."""

from __future__ import annotations

import pytest

from graphforge.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from tests.passes.harness import run


def test_equal_nodes_merge() -> None:
    outcome = run(
        EliminateCommonSubexpressions(),
        """g (float[2] x, float[2] w) => (float[2] y) {
           a = Add(x, w) b = Add(w, x) c = Relu(a) d = Relu(b) y = Mul(c, d)
        }""",
    )
    assert outcome.ops == ["Add", "Relu", "Mul"]


@pytest.mark.parametrize(
    "pair",
    [
        ("Sub(x, w)", "Sub(w, x)"),
        ("Elu<alpha=1.0>(x)", "Elu<alpha=2.0>(x)"),
        ("RandomNormalLike(x)", "RandomNormalLike(x)"),
        ("Bernoulli(x)", "Bernoulli(x)"),
    ],
)
def test_different_and_random_nodes_do_not_merge(pair: tuple[str, str]) -> None:
    text = f"g (float[2] x, float[2] w) => (float[2] y) {{ a = {pair[0]} b = {pair[1]} y = Add(a, b) }}"
    assert len(run(EliminateCommonSubexpressions(), text, numbers=False).ops) == 3


def test_a_body_reads_what_is_computed_outside_but_not_the_other_way_round() -> None:
    outcome = run(
        EliminateCommonSubexpressions(),
        """g (bool c, float[2] x) => (float[2] y, float[2] z) {
           n = Exp(x)
           y = If(c) <then_branch = t () => (float[2] p) { m = Exp(x) k = Abs(x) p = Add(m, k) },
                      else_branch = e () => (float[2] q) { k2 = Abs(x) q = Neg(k2) }>
           j = Abs(x)
           z = Add(n, j)
        }""",
    )
    assert outcome.ops == ["Exp", "If", "Abs", "Add", "Abs", "Neg", "Abs", "Add"]


def test_nodes_with_bodies_do_not_merge() -> None:
    branch = """If(c) <then_branch = t%d () => (float[2] p%d) { p%d = Neg(x) },
                       else_branch = e%d () => (float[2] q%d) { q%d = Abs(x) }>"""
    first, second = branch % ((1,) * 6), branch % ((2,) * 6)
    text = f"g (bool c, float[2] x) => (float[2] y) {{ a = {first} b = {second} y = Add(a, b) }}"
    assert run(EliminateCommonSubexpressions(), text).ops.count("If") == 2


def test_two_outputs_stay_two() -> None:
    outcome = run(
        EliminateCommonSubexpressions(), "g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Neg(x) }"
    )
    assert outcome.ops == ["Neg", "Neg"]


def test_an_output_merges_with_an_inner_node() -> None:
    outcome = run(
        EliminateCommonSubexpressions(),
        "g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x) y = Relu(a) z = Neg(x) }",
    )
    assert outcome.ops == ["Neg", "Relu"]
