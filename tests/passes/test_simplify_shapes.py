"""simplify-shapes: targets computed from shapes become constants."""

from __future__ import annotations

from graphforge.ir import constant_of
from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.simplify_shapes import SimplifyShapes
from tests.passes.harness import Outcome, run


def simplified(body: str, sizes: dict[str, int]) -> Outcome:
    return run([SimplifyShapes(), EliminateDeadCode()], body, sizes=sizes)


def test_the_classical_reshape_with_a_batch() -> None:
    outcome = simplified(
        """g (float[N,3,4] x) => (float[N,12] y)
        <int64 zero = {0}, int64[1] axis = {0}, int64[1] rest = {12}> {
           s = Shape(x) n = Gather(s, zero) u = Unsqueeze(n, axis) t = Concat<axis=0>(u, rest) y = Reshape(x, t)
        }""",
        {"N": 5},
    )
    assert outcome.ops == ["Reshape"]
    found = constant_of(outcome.model.graph[0].inputs[1])
    assert found is not None
    assert found.tolist() == [0, 12]


def test_a_product_of_dims_becomes_minus_one() -> None:
    outcome = simplified(
        """g (float[N,3,H,4] x) => (float[N,3,K] y)
        <int64 zero = {0}, int64 two = {2}, int64[1] axis = {0}, int64 four = {4}, int64[1] three = {3}> {
           s = Shape(x) n = Gather(s, zero) h = Gather(s, two) k = Mul(h, four)
           u = Unsqueeze(n, axis) v = Unsqueeze(k, axis) t = Concat<axis=0>(u, three, v) y = Reshape(x, t)
        }""",
        {"N": 2, "H": 6, "K": 24},
    )
    assert outcome.ops == ["Reshape"]


def test_two_unknown_dims_stay_computed() -> None:
    outcome = run(
        [EliminateDeadCode(), SimplifyShapes()],
        """g (float[N,M] x, float[A,B] w) => (float[A,B] y) { s = Shape(w) y = Reshape(x, s) }""",
        sizes={"N": 2, "M": 6, "A": 3, "B": 4},
    )
    assert outcome.ops == ["Shape", "Reshape"]
    assert outcome.reasons == ["more than one dim of the target is unknown"]


def test_dims_that_may_be_zero_get_no_minus_one_beside_a_copy() -> None:
    text = """g (float[%s,3,H] x) => (float[%s,K] y)
        <int64 zero = {0}, int64 two = {2}, int64[1] axis = {0}, int64 three = {3}> {
           s = Shape(x) n = Gather(s, zero) h = Gather(s, two) k = Mul(h, three)
           u = Unsqueeze(n, axis) v = Unsqueeze(k, axis) t = Concat<axis=0>(u, v) y = Reshape(x, t)
        }"""
    assert simplified(text % ("N", "N"), {"N": 2, "H": 4, "K": 12}).ops == ["Reshape"]
    kept = simplified(text % ("u0", "u0"), {"u0": 0, "H": 4, "K": 12})
    assert kept.ops[-1] == "Reshape"
    assert "Shape" in kept.ops


def test_expand_to_its_own_dims() -> None:
    outcome = simplified(
        """g (float[N,1,4] x) => (float[N,5,4] y) <int64 zero = {0}, int64[1] axis = {0}, int64[2] rest = {5, 4}> {
           s = Shape(x) n = Gather(s, zero) u = Unsqueeze(n, axis) t = Concat<axis=0>(u, rest) y = Expand(x, t)
        }""",
        {"N": 3},
    )
    assert outcome.ops == ["Expand"]


def test_expand_to_the_dims_of_another_stays() -> None:
    outcome = run(
        SimplifyShapes(),
        "g (float[1,4] x, float[N,4] w) => (float[N,4] y) { s = Shape(w) y = Expand(x, s) }",
        sizes={"N": 3},
    )
    assert outcome.ops == ["Shape", "Expand"]
    assert outcome.reasons == ["the target has a dim that is known at run time only"]


def test_a_slice_to_the_end_of_its_own_axis() -> None:
    outcome = simplified(
        """g (float[2,N] x) => (float[2,M] y)
        <int64 one = {1}, int64[1] axis = {0}, int64[1] start = {1}, int64[1] a = {1}> {
           s = Shape(x) n = Gather(s, one) u = Unsqueeze(n, axis) y = Slice(x, start, u, a)
        }""",
        {"N": 5, "M": 4},
    )
    assert outcome.ops == ["Slice"]
