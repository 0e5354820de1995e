"""Rules and the match driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from graphforge.errors import GraphForgeError, InternalError
from graphforge.ir import Graph, verify_graph
from graphforge.transform import Match, Pass, Pipeline, Rewriter, Rule
from tests.transform.toys import AddZero, DoubleNeg, parse


def ops(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


def test_fires_until_nothing_is_left() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) c = Neg(b) d = Neg(c) y = Relu(d) }")
    assert Rewriter(model).apply(DoubleNeg()) == 2
    verify_graph(model)
    assert ops(model) == ["Relu"]


def test_declines_when_an_inner_result_is_read_elsewhere_and_says_so() -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x) y = Neg(a) z = Relu(a) }")
    rewriter = Rewriter(model)
    assert rewriter.apply(DoubleNeg()) == 0
    assert rewriter.changes == 0
    (miss,) = rewriter.near_misses
    assert (miss.rule, miss.reason, miss.count) == ("DoubleNeg", "the result of Neg is read elsewhere", 1)
    assert miss.places == ("Neg node 'a'",)


def test_symmetric_operators_match_either_way() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float zero = {0.0}> { a = Add(zero, x) y = Relu(a) }")
    assert Rewriter(model).apply(AddZero()) == 1
    assert ops(model) == ["Relu"]


def test_near_miss_names_the_constant_that_differs() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float one = {1.0}> { a = Neg(x) y = Add(a, one) }")

    class AddNegZero(Rule):
        def pattern(self, op: Any, x: Any) -> Any:
            return op.Add(op.Neg(x), 0.0)

        def rewrite(self, op: Any, m: Match) -> Any:
            return op.Neg(m.x)

    rewriter = Rewriter(model)
    assert rewriter.apply(AddNegZero()) == 0


def test_the_same_variable_means_the_same_value() -> None:
    class Square(Rule):
        def pattern(self, op: Any, x: Any) -> Any:
            return op.Mul(op.Neg(x), x)

        def rewrite(self, op: Any, m: Match) -> Any:
            return op.Neg(op.Mul(m.x, m.x))

    model = parse(
        "g (float[2] x, float[2] w) => (float[2] y, float[2] z) { a = Neg(x) y = Mul(x, a) b = Neg(w) z = Mul(x, b) }"
    )
    assert Rewriter(model).apply(Square()) == 1
    verify_graph(model)
    assert sorted(ops(model)) == ["Mul", "Mul", "Neg", "Neg"]


def test_does_not_match_across_scopes() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
           n = Neg(x)
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(n) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }"""
    )
    assert Rewriter(model).apply(DoubleNeg()) == 0


def test_matches_inside_a_body() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
           y = If(c) <then_branch = t () => (float[2] a) { n = Neg(x) m = Neg(n) a = Relu(m) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }"""
    )
    assert Rewriter(model).apply(DoubleNeg()) == 1
    verify_graph(model)
    assert ops(model) == ["If", "Relu", "Abs"]


def test_rules_that_undo_each_other_are_reported() -> None:
    class Swap(Rule):
        def pattern(self, op: Any, x: Any, y: Any) -> Any:
            return op.Add(x, y)

        def rewrite(self, op: Any, m: Match) -> Any:
            return op.Add(m.y, m.x)

    model = parse("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
    with pytest.raises(InternalError, match="Swap has fired"):
        Rewriter(model).apply(Swap())


def test_attributes_and_rest_and_outputs() -> None:
    class SplitConcat(Rule):
        def pattern(self, op: Any, x: Any) -> Any:
            left, right = op.Split(x, ..., axis=1, _outputs=2)
            return op.Concat(left, right, axis=1)

        def rewrite(self, op: Any, m: Match) -> Any:
            return m.x

    text = """g (float[2,4] x) => (float[2,4] y) {
        a, b = Split<axis=%d, num_outputs=2>(x) c = Concat<axis=1>(a, b) y = Relu(c)
    }"""
    model = parse(text % 1)
    assert Rewriter(model).apply(SplitConcat()) == 1
    assert ops(model) == ["Relu"]
    rewriter = Rewriter(parse(text % 0))
    assert rewriter.apply(SplitConcat()) == 0
    assert [miss.reason for miss in rewriter.near_misses] == ["attribute axis of Split is 0, expected 1"]


def test_the_cost_grows_with_the_graph_only() -> None:
    def seconds(pairs: int) -> float:
        lines = ["v0 = Relu(x)"]
        for number in range(2 * pairs):
            lines.append(f"v{number + 1} = Neg(v{number})")
        model = parse(f"g (float[2] x) => (float[2] y) {{ {' '.join(lines)} y = Relu(v{2 * pairs}) }}")
        started = time.process_time()
        assert Rewriter(model).apply(DoubleNeg()) == pairs
        return time.process_time() - started

    small = min(seconds(250) for _ in range(3))
    # Eight times the nodes: linear is 8, quadratic 64.
    assert min(seconds(2000) for _ in range(3)) < 20 * small


def test_an_exception_of_a_rule_is_told_with_the_place_it_was_tried_at() -> None:
    class Clumsy(Rule):
        def pattern(self, op: Any, x: Any) -> Any:
            return op.Neg(op.Relu(x))

        def rewrite(self, op: Any, m: Match) -> Any:
            raise KeyError("oh")

    @dataclass(frozen=True)
    class Apply(Pass):
        name: ClassVar[str] = "apply"

        def run(self, graph: Graph, rewriter: Rewriter) -> None:
            rewriter.apply(Clumsy(), graph)

    with pytest.raises(GraphForgeError, match="the pass 'apply' failed: KeyError: 'oh'") as caught:
        Pipeline([Apply()]).run(parse("g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }"))
    (place,) = [note for note in caught.value.notes if "^" in note]
    assert place.splitlines()[0] == "Clumsy was tried here:"
    assert place.splitlines()[-2].endswith("= Neg(a)")
