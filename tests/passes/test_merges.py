"""merge-transposes, merge-reshapes, merge-slices and simplify-shapes."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.ir import constant_of
from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.merge_reshapes import MergeReshapes
from graphforge.passes.merge_slices import MergeSlices
from graphforge.passes.merge_transposes import MergeTransposes
from graphforge.passes.simplify_shapes import SimplifyShapes
from tests.passes.harness import Outcome, parse, run


def test_transposes_merge_or_vanish() -> None:
    merged = run(
        MergeTransposes(),
        """g (float[2,3,4] x) => (float[4,3,2] y) {
           a = Transpose<perm=[1,2,0]>(x) b = Transpose<perm=[1,2,0]>(a) y = Transpose<perm=[0,2,1]>(b)
        }""",
    )
    assert merged.ops == ["Transpose"]
    assert tuple(merged.model.graph[0].attributes["perm"].as_ints()) == (2, 1, 0)
    gone = run(
        MergeTransposes(),
        "g (float[2,3] x) => (float[2,3] y) { a = Transpose(x) b = Transpose<perm=[1,0]>(a) y = Relu(b) }",
    )
    assert gone.ops == ["Relu"]


def test_a_transpose_that_others_read_stays_for_them() -> None:
    outcome = run(
        MergeTransposes(),
        "g (float[2,3] x) => (float[2,3] y, float[3,2] z) { a = Transpose(x) b = Transpose(a) y = Relu(b) z = Neg(a) }",
    )
    assert outcome.ops == ["Transpose", "Relu", "Neg"]


def test_transposes_of_an_unknown_rank_stay() -> None:
    outcome = run(
        MergeTransposes(), "g (float x0, x) => (y) { a = Transpose(x) b = Transpose(a) y = Relu(b) }", numbers=False
    )
    assert outcome.ops == ["Transpose", "Transpose", "Relu"]
    assert outcome.reasons == ["a transpose without perm of a tensor of unknown rank"]


@pytest.mark.parametrize(
    ("shape", "chain", "expected"),
    [
        ("2,3,4", "Reshape(x, s64) Reshape(%, s24)", ["Reshape", "Relu"]),
        ("2,3,4", "Reshape(x, s64) Reshape(%, s234)", ["Relu"]),
        ("2,3,4", "Flatten<axis=1>(x) Unsqueeze(%, a0)", ["Reshape", "Relu"]),
        ("2,3,4", "Unsqueeze(x, a0) Squeeze(%, a0)", ["Relu"]),
        ("2,1,4", "Transpose<perm=[1,0,2]>(x) Reshape(%, s24b)", ["Reshape", "Relu"]),
        ("2,3,4", "Transpose<perm=[1,0,2]>(x) Reshape(%, s24)", ["Transpose", "Reshape", "Relu"]),
        # 0 copies the dim of what is read: here the 6 in between, which the source does not have.
        ("2,3,4", "Reshape(x, s64) Reshape(%, s0)", ["Reshape", "Relu"]),
        ("N,3,4", "Reshape(x, sm12) Reshape(%, sm34)", ["Relu"]),
        ("N,3,4", "Reshape(x, sm12) Reshape(%, s0m)", ["Reshape", "Relu"]),
        ("N,3,4", "Reshape(x, sm4) Reshape(%, sm2)", ["Reshape", "Relu"]),
    ],
)
def test_reshapes(shape: str, chain: str, expected: list[str]) -> None:
    constants = """<int64[2] s64 = {6, 4}, int64[1] s24 = {24}, int64[3] s234 = {2, 3, 4}, int64[1] a0 = {0},
      int64[2] s24b = {2, 4}, int64[3] s0 = {0, 2, 2}, int64[2] sm12 = {-1, 12}, int64[3] sm34 = {-1, 3, 4},
      int64[2] s0m = {0, -1}, int64[2] sm4 = {-1, 4}, int64[2] sm2 = {-1, 2}>"""
    first, second = chain.split(") ")
    text = (
        f"g (float[{shape}] x) => (float y) {constants} {{ a = {first}) b = {second.replace('%', 'a')} y = Relu(b) }}"
    )
    model = parse(text)
    model.graph.outputs[0].shape = None
    outcome = run([MergeReshapes(), EliminateDeadCode()], model, sizes={"N": 5})
    assert outcome.ops == expected


def test_zero_copies_what_it_stands_for() -> None:
    outcome = run(
        [MergeReshapes(), EliminateDeadCode()],
        """g (float[N,6,4] x) => (float[N,3,2,4] y) <int64[2] a = {0, -1}, int64[4] b = {0, 3, 2, 4}> {
           r = Reshape(x, a) s = Reshape(r, b) y = Relu(s)
        }""",
        sizes={"N": 5},
    )
    assert outcome.ops == ["Reshape", "Relu"]
    found = constant_of(outcome.model.graph[0].inputs[1])
    assert found is not None
    assert found.tolist() == [0, 3, 2, 4]


def test_allowzero_means_a_dim_of_zero() -> None:
    outcome = run(
        [MergeReshapes(), EliminateDeadCode()],
        """g (float[0,4] x) => (float[2,0] y) <int64[2] a = {4, 0}, int64[2] b = {2, 0}> {
           r = Reshape<allowzero=1>(x, a) s = Reshape<allowzero=1>(r, b) y = Relu(s)
        }""",
    )
    assert outcome.ops == ["Reshape", "Relu"]
    assert outcome.model.graph[0].attributes["allowzero"].as_int() == 1


def test_a_target_that_depends_on_the_shape_in_between_stays() -> None:
    outcome = run(
        [EliminateDeadCode(), MergeReshapes()],
        """g (float[N,M,6] x) => (float[P,3,2] y) <int64[2] a = {-1, 6}, int64[3] b = {0, 3, 2}> {
           r = Reshape(x, a) s = Reshape(r, b) y = Relu(s)
        }""",
        sizes={"N": 2, "M": 3, "P": 6},
    )
    assert outcome.ops == ["Reshape", "Relu"] or outcome.reasons == ["the target depends on the shape in between"]


@pytest.mark.parametrize(
    ("first", "second", "ops"),
    [
        ("s1, e9, a0", "s2, e9, a1", 1),
        ("s1, e9, a0", "s2, e9, a0", 1),
        ("s1, e4, a0", "s1, e9, a0", 1),
        ("s1, e4, a1", "s0, e2, am1", 1),
        ("sm3, e9, a0", "s1, e9, a0", 1),
        ("s0, e9, a0, st2", "s1, e9, a0", 2),
        ("s0, e9, a0, st2", "s1, e9, a1", 1),
        ("s4, em9, a0, stm1", "s1, e9, a1", 1),
    ],
)
def test_slices(first: str, second: str, ops: int) -> None:
    constants = """<int64[1] s0 = {0}, int64[1] s1 = {1}, int64[1] s2 = {2}, int64[1] s4 = {4}, int64[1] sm3 = {-3},
      int64[1] e2 = {2}, int64[1] e4 = {4}, int64[1] e9 = {9223372036854775807}, int64[1] em9 = {-9},
      int64[1] a0 = {0}, int64[1] a1 = {1}, int64[1] am1 = {-1}, int64[1] st2 = {2}, int64[1] stm1 = {-1}>"""
    text = (
        f"g (float[5,6] x) => (float[A,B] y) {constants} {{ a = Slice(x, {first}) b = Slice(a, {second}) y = Relu(b) }}"
    )
    outcome = run(MergeSlices(), text)
    assert outcome.ops == ["Slice"] * ops + ["Relu"]
    # Of a size that is not known, bounds that count from the start still compose.
    run(MergeSlices(), text.replace("float[5,6]", "float[N,M]"), sizes={"N": 5, "M": 6})


def test_slices_with_bounds_of_an_input_stay() -> None:
    outcome = run(
        MergeSlices(),
        """g (float[5] x, int64[1] s) => (float[A] y) <int64[1] e = {9}> {
           a = Slice(x, s, e) b = Slice(a, s, e) y = Relu(b)
        }""",
        feeds={"x": np.arange(5, dtype=np.float32), "s": np.array([1])},
    )
    assert outcome.ops == ["Slice", "Slice", "Relu"]
    assert outcome.reasons == ["the bounds are not constant, or the rank is unknown"]


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
