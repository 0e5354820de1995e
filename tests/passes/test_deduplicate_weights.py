"""deduplicate-weights: equal constants become one, and which elements are read to know."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir
import pytest

from graphforge.passes.deduplicate_weights import DeduplicateWeights
from graphforge.transform import Pipeline
from tests.passes.harness import parse, run


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


@pytest.mark.cost
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
