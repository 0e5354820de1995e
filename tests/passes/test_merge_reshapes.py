"""merge-reshapes: chains become one where the target says the same of the source."""

from __future__ import annotations

import pytest

from graphforge.ir import constant_of
from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.merge_reshapes import MergeReshapes
from tests.passes.harness import parse, run


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
