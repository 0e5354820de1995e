"""fold-constants: values, shapes, limits, and what is never folded."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir
import pytest

from graphforge.ir import Value
from graphforge.passes.fold_constants import FoldConstants
from graphforge.transform import Pipeline
from tests.passes.harness import parse, run


def constant(value: Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Add(a, b)", [5, 7, 9]),
        ("Div(b, a)", [4, 2.5, 2]),
        ("Concat<axis=0>(a, b)", [1, 2, 3, 4, 5, 6]),
        ("Cast<to=7>(b)", [4, 5, 6]),
        ("Gather<axis=0>(a, i)", [3, 1]),
        ("Slice(b, s, e, z)", [5, 6]),
        ("Where(c, a, b)", [1, 5, 3]),
        ("Max(a, b)", [4, 5, 6]),
        ("ReduceSum<keepdims=1>(a, z)", [6]),
        ("Clip(b, low)", [5, 5, 6]),
        ("Pow(a, two)", [1, 4, 9]),
        ("Range(low, seven, two)", [5]),
        ("Expand(low, s3)", [5, 5, 5]),
        ("Tile(low1, s3)", [5, 5, 5]),
        ("ConstantOfShape(s3)", [0, 0, 0]),
        ("Mod<fmod=1>(b, two)", [0, 1, 0]),
        ("ScatterND(a, i2, b1)", [1, 9, 3]),
        ("GatherND(a, i2)", [2]),
        ("CumSum(a, zero)", [1, 3, 6]),
    ],
)
def test_computes(expression: str, expected: list[float]) -> None:
    outcome = run(
        FoldConstants(),
        f"""g (float[3] x) => (y)
        <float[3] a = {{1, 2, 3}}, float[3] b = {{4, 5, 6}}, int64[2] i = {{2, 0}}, int64[1] s = {{1}},
         int64[1] e = {{9}}, int64[1] z = {{0}}, bool[3] c = {{1, 0, 1}}, float low = {{5}},
         float two = {{2}}, float seven = {{7}},
         int64[1] s3 = {{3}}, float[1] low1 = {{5}}, int64[1,1] i2 = {{1}}, float[1] b1 = {{9}}, int64 zero = {{0}}>
        {{ r = {expression} n = Neg(r) y = Identity(n) }}""",
        numbers=False,
    )
    # The result is handed out, so one Identity of a constant stays.
    assert outcome.ops == ["Identity"]
    np.testing.assert_array_equal(-constant(outcome.model.graph[0].inputs[0]), np.array(expected))


def test_integer_division_rounds_towards_zero_and_by_zero_stays() -> None:
    outcome = run(
        FoldConstants(),
        """g (int64[2] x) => (int64[2] y, int64[2] z)
        <int64[2] a = {-7, 7}, int64[2] b = {2, -2}, int64[2] o = {0, 1}> {
           q = Div(a, b) y = Add(q, x) r = Div(a, o) z = Add(r, x)
        }""",
        numbers=False,
    )
    assert outcome.ops == ["Add", "Div", "Add"]
    np.testing.assert_array_equal(constant(outcome.model.graph[0].inputs[0]), [-3, -3])
    assert "Div: integer division by zero" in outcome.reasons


def test_a_cast_out_of_range_stays() -> None:
    outcome = run(
        FoldConstants(),
        "g (int32[1] x) => (int32[1] y) <float[1] a = {1e20}> { c = Cast<to=6>(a) y = Add(c, x) }",
        numbers=False,
    )
    assert outcome.ops == ["Cast", "Add"]
    assert outcome.reasons == ["Cast: the cast leaves the range of the type"]


def test_constant_nodes_become_initializers() -> None:
    outcome = run(
        FoldConstants(),
        """g (float[2] x) => (float[2] y) {
           a = Constant<value_float=2.0>() b = Constant<value_ints=[1]>() c = Constant<value=float[2] {3, 4}>()
           p = Mul(x, a) q = Unsqueeze(p, b) r = Squeeze(q, b) y = Add(r, c)
        }""",
    )
    assert outcome.ops == ["Mul", "Unsqueeze", "Squeeze", "Add"]


def test_a_shape_that_is_known_folds_and_so_does_all_that_follows() -> None:
    outcome = run(
        FoldConstants(),
        """g (float[2,3,4] x) => (float[6,4] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] axis = {0}, int64 two = {2}> {
           s = Shape(x) a = Gather(s, zero) b = Gather(s, one) c = Mul(a, b) d = Unsqueeze(c, axis)
           e = Gather(s, two) f = Unsqueeze(e, axis) t = Concat<axis=0>(d, f) y = Reshape(x, t)
        }""",
    )
    assert outcome.ops == ["Reshape"]
    np.testing.assert_array_equal(constant(outcome.model.graph[0].inputs[1]), [6, 4])


def test_a_part_of_a_shape_that_is_known_folds() -> None:
    outcome = run(
        FoldConstants(),
        """g (float[N,3,4] x) => (int64[1] y, int64[1] z)
        <int64[1] one = {1}, int64[1] two = {2}, int64[1] zero = {0}> {
           s = Shape(x) k = Slice(s, one, two, zero) y = Add(k, one) n = Gather(s, zero) z = Add(n, one)
        }""",
    )
    assert outcome.ops == ["Shape", "Identity", "Gather", "Add"] or outcome.ops == [
        "Identity",
        "Shape",
        "Gather",
        "Add",
    ]


def test_shapes_become_known_on_the_way() -> None:
    """Reshape's target folds first, only then is the shape of its result known."""
    outcome = run(
        FoldConstants(),
        """g (float[2,6] x) => (int64[1] y) <int64[1] three = {3}, int64[1] four = {4}, int64[1] zero = {0}> {
           t = Concat<axis=0>(three, four) r = Reshape(x, t) s = Shape(r) q = Gather(s, zero) y = Neg(q)
        }""",
    )
    assert outcome.ops[-1] == "Identity"


@pytest.mark.parametrize(
    "node",
    [
        "RandomNormal<shape=[2]>()",
        "RandomNormalLike(a)",
        "RandomUniformLike(a)",
        "Bernoulli(a)",
        "Dropout(a, a0, t)",
    ],
)
def test_random_values_are_never_folded(node: str) -> None:
    outcome = run(
        FoldConstants(),
        f"""g (float[2] x) => (float[2] y) <float[2] a = {{0.5, 0.5}}, float a0 = {{0.5}}, bool t = {{1}}> {{
           r = {node} y = Add(r, x)
        }}""",
        numbers=False,
    )
    assert len(outcome.ops) == 2


def test_a_result_that_grows_beyond_the_limit_stays() -> None:
    text = (
        "g (float[1] x) => (float[1000] y) <float[1] a = {2}, int64[1] s = {1000}> { e = Expand(a, s) y = Add(e, x) }"
    )
    assert run(FoldConstants(), text).ops == ["Add"]
    outcome = run(FoldConstants(max_bytes=100), text)
    assert outcome.ops == ["Expand", "Add"]
    assert outcome.reasons == ["the result would be larger than its constants by more than 100 bytes"]


def test_too_much_work_stays() -> None:
    text = "g (float[40] x) => (float[40] y) { s = Softmax(w) y = Add(s, x) }"
    weights = {"w": np.ones(40, np.float32)}
    assert run(FoldConstants(), text, weights=weights).ops == ["Add"]
    outcome = run(FoldConstants(max_work=10), text, weights=weights)
    assert outcome.ops == ["Softmax", "Add"]
    assert outcome.reasons == ["its constants have more than 10 elements"]


def test_large_results_are_computed_when_they_are_read() -> None:
    array = np.arange(512 * 300, dtype=np.float32).reshape(512, 300)
    outcome = run(
        FoldConstants(),
        "g (float[2,300] x) => (float[2,512] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }",
        weights={"w": array},
    )
    assert outcome.ops == ["MatMul"]
    folded = outcome.model.graph[0].inputs[1]
    assert folded is not None
    assert isinstance(folded.const_value, onnx_ir.LazyTensor)
    np.testing.assert_array_equal(folded.const_value.numpy(), array.T)


def test_constants_of_outer_graphs_fold_in_bodies() -> None:
    outcome = run(
        FoldConstants(),
        """g (bool c, float[2] x) => (float[2] y) <float[2] a = {1, 2}> {
           y = If(c) <then_branch = t () => (float[2] p) { d = Add(a, a) p = Add(d, x) },
                      else_branch = e () => (float[2] q) { q = Abs(x) }>
        }""",
    )
    assert outcome.ops == ["If", "Add", "Abs"]


def test_an_input_with_a_default_is_no_constant() -> None:
    model = parse("g (float[2] x, float[2] w) => (float[2] y) { d = Add(w, w) y = Add(d, x) }")
    value = model.graph.inputs[1]
    value.const_value = onnx_ir.Tensor(np.ones(2, np.float32), name="w")
    model.graph.register_initializer(value)
    Pipeline([FoldConstants()]).run(model)
    assert len(model.graph) == 2


@pytest.mark.cost
def test_folding_is_linear() -> None:
    def seconds(length: int) -> float:
        lines = " ".join(f"c{number + 1} = Add(c{number}, one)" for number in range(length))
        model = parse(
            f"g (float x) => (float y) <float c0 = {{0}}, float one = {{1}}> {{ {lines} y = Add(c{length}, x) }}"
        )
        started = time.process_time()
        Pipeline([FoldConstants()]).run(model)
        assert len(model.graph) == 1
        return time.process_time() - started

    small = min(seconds(200) for _ in range(3))
    # Eight times the nodes: linear is 8, quadratic 64.
    assert min(seconds(1600) for _ in range(2)) < 24 * small


def test_a_weight_that_others_read_is_not_stored_a_second_time() -> None:
    weights = {"w": np.ones((512, 300), np.float32)}
    outcome = run(
        FoldConstants(),
        """g (int64[2] i, float[2,300] x) => (float[2,300] e, float[2,512] y) {
           e = Gather(w, i) t = Transpose<perm=[1,0]>(w) y = MatMul(x, t)
        }""",
        weights=weights,
    )
    assert outcome.ops == ["Gather", "Transpose", "MatMul"]
    assert outcome.reasons == ["it would store a weight a second time: others read the weight as it is"]
