"""inline-branches: the taken branch moves out, the other one vanishes."""

from __future__ import annotations

import pytest

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.inline_branches import InlineBranches
from tests.passes.harness import run


@pytest.mark.parametrize(("condition", "left"), [(1, ["Neg", "Exp", "Relu"]), (0, ["Abs", "Relu"])])
def test_the_taken_branch_moves_out(condition: int, left: list[str]) -> None:
    outcome = run(
        InlineBranches(),
        f"""g (float[2] x) => (float[2] y) <bool c = {{{condition}}}> {{
           i = If(c) <then_branch = t () => (float[2] a) {{ n = Neg(x) a = Exp(n) }},
                      else_branch = e () => (float[2] b) {{ b = Abs(x) }}>
           y = Relu(i)
        }}""",
    )
    assert outcome.ops == left


def test_the_result_that_is_handed_out_keeps_its_name() -> None:
    outcome = run(
        InlineBranches(),
        """g (float[2] x) => (float[2] y) <bool c = {1}> {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }""",
    )
    assert outcome.ops == ["Neg"]


def test_branches_of_branches_and_equal_names() -> None:
    branch = """If(c) <then_branch = t%d () => (float[2] p%d) {
          m = Neg(x) p%d = If(c) <then_branch = u%d () => (float[2] q) { k = Exp(m) q = Relu(k) },
                                  else_branch = v%d () => (float[2] r) { r = Abs(m) }> },
       else_branch = e%d () => (float[2] s) { s = Abs(x) }>"""
    first, second = branch % ((1,) * 6), branch % ((2,) * 6)
    outcome = run(
        InlineBranches(),
        f"g (float[2] x) => (float[2] y) <bool c = {{1}}> {{ i = {first} j = {second} y = Add(i, j) }}",
    )
    assert outcome.ops == ["Neg", "Exp", "Relu", "Neg", "Exp", "Relu", "Add"]


def test_constants_of_a_branch_move_too() -> None:
    outcome = run(
        [InlineBranches(), EliminateDeadCode()],
        """g (float[2] x) => (float[2] y) <bool c = {0}> {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) <float[2] w = {1, 2}> { b = Add(x, w) }>
        }""",
    )
    assert outcome.ops == ["Add"]
    assert len(outcome.model.graph.initializers) == 1


def test_inside_a_loop() -> None:
    outcome = run(
        InlineBranches(),
        """g (float[2] x) => (float[2] y) <int64 trips = {3}, bool go = {1}> {
           y = Loop(trips, go, x) <body = b (int64 i, bool c, float[2] v) => (bool c2, float[2] w) {
              c2 = Identity(c)
              w = If(go) <then_branch = t () => (float[2] a) { a = Neg(v) },
                          else_branch = e () => (float[2] d) { d = Abs(v) }>
           }>
        }""",
    )
    assert outcome.ops == ["Loop", "Identity", "Neg"]


def test_a_condition_that_is_computed_stays() -> None:
    outcome = run(
        InlineBranches(),
        """g (bool c, float[2] x) => (float[2] y) {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }""",
    )
    assert outcome.ops == ["If", "Neg", "Abs"]
