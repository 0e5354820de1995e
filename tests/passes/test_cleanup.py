"""eliminate-dead-code, eliminate-common-subexpressions and deduplicate-weights."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir
import pytest

from graphforge.passes.deduplicate_weights import DeduplicateWeights
from graphforge.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.transform import Pipeline
from tests.passes.harness import parse, run


def test_dead_nodes_and_constants_go() -> None:
    outcome = run(
        EliminateDeadCode(),
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(x) b = Add(a, w) c = Relu(b) y = Abs(x) }",
    )
    assert outcome.ops == ["Abs"]
    assert not outcome.model.graph.initializers


def test_dead_code_in_bodies_goes_and_what_only_it_read() -> None:
    outcome = run(
        EliminateDeadCode(),
        """g (bool c, float[2] x) => (float[2] y) {
           n = Neg(x)
           y = If(c) <then_branch = t () => (float[2] p) { d = Abs(n) p = Relu(x) },
                      else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
    )
    assert outcome.ops == ["If", "Relu", "Abs"]


def test_outputs_nobody_asked_for_go() -> None:
    outcome = run(
        EliminateDeadCode(),
        "g (float[1,1,4,4] x) => (float[1,1,2,2] y) { y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }",
    )
    assert len(outcome.model.graph[0].outputs) == 1


def test_outputs_that_must_be_there_stay() -> None:
    outcome = run(EliminateDeadCode(), "g (float[4] x) => (float[2] y) { y, z = Split<axis=0, num_outputs=2>(x) }")
    assert len(outcome.model.graph[0].outputs) == 2
    outcome = run(EliminateDeadCode(), "g (float[4] x) => (float[2] y) <int64[1] k = {2}> { y, i = TopK(x, k) }")
    assert len(outcome.model.graph[0].outputs) == 2


def test_an_input_and_an_output_that_nobody_reads_stay() -> None:
    outcome = run(
        EliminateDeadCode(), "g (float[2] x, float[2] u) => (float[2] y, float[2] z) { y = Neg(x) z = Relu(y) }"
    )
    assert outcome.ops == ["Neg", "Relu"]
    assert len(outcome.model.graph.inputs) == 2


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


def test_equal_weights_become_one() -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 20)
    other = array.copy()
    other[2, 7] += 1
    outcome = run(
        DeduplicateWeights(),
        """g (float[2,3] x) => (float[2,20] y, float[2,20] z, float[2,20] v) {
           y = MatMul(x, a) z = MatMul(x, b) v = MatMul(x, c)
        }""",
        weights={"a": array, "b": array.copy(), "c": other},
    )
    assert sorted(outcome.model.graph.initializers) == ["a", "c"]


def test_large_weights_that_differ_outside_the_sample_stay_two() -> None:
    array = np.zeros(100_000, dtype=np.float32)
    other = array.copy()
    other[12_345] = 1
    outcome = run(
        DeduplicateWeights(),
        "g (float[100000] x) => (float[100000] y) { p = Add(x, a) q = Add(p, b) y = Add(q, c) }",
        weights={"a": array, "b": other, "c": array.copy()},
    )
    assert sorted(outcome.model.graph.initializers) == ["a", "b"]


def test_equal_bytes_of_another_type_or_shape_stay() -> None:
    outcome = run(
        DeduplicateWeights(),
        """g (float[2,2] x, int64[2] k) => (float[2,2] y, int64[2] z)
        <float[2] a = {0, 0}, float[2,1] b = {0, 0}, int64[2] c = {0, 0}> {
           p = Add(x, a) y = Add(p, b) z = Add(k, c)
        }""",
    )
    assert len(outcome.model.graph.initializers) == 3


def test_weights_that_share_memory_are_not_read() -> None:
    array = np.zeros((4,), np.float32)

    class Unreadable(onnx_ir.Tensor[np.ndarray]):
        def numpy(self) -> np.ndarray:
            raise AssertionError("the elements were read")

    model = parse("g (float[4] x) => (float[4] y) <float[4] a, float[4] b> { p = Relu(x) y = Neg(p) }")
    values = []
    for name in ("a", "b"):
        value = onnx_ir.Value(name=name, const_value=Unreadable(array, name=name))
        model.graph.register_initializer(value)
        values.append(value)
    model.graph[0].resize_inputs(1)
    (record,) = Pipeline([DeduplicateWeights()]).run(model)
    assert record.changes == 1
    assert list(model.graph.initializers) == ["a"]


def test_many_constants_of_one_shape_take_linear_time() -> None:
    def seconds(count: int) -> float:
        random = np.random.default_rng(0)
        model = parse("g (float[8] x) => (float[8] y) { y = Relu(x) }")
        for number in range(count):
            tensor = onnx_ir.Tensor(random.standard_normal(8).astype(np.float32), name=f"c{number}")
            model.graph.register_initializer(onnx_ir.Value(name=f"c{number}", const_value=tensor))
        started = time.process_time()
        Pipeline([DeduplicateWeights()]).run(model)
        return time.process_time() - started

    small = min(seconds(500) for _ in range(3))
    assert min(seconds(4000) for _ in range(2)) < 24 * small
