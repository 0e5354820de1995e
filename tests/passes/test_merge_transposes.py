"""merge-transposes: chains become one or vanish."""

from __future__ import annotations

from graphforge.passes.merge_transposes import MergeTransposes
from tests.passes.harness import run


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
