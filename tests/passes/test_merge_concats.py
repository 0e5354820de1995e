"""merge-concats: chains become one, in order."""

from __future__ import annotations

from graphforge.passes.merge_concats import MergeConcats
from tests.passes.harness import run


def test_a_chain_of_concats_becomes_one_in_order() -> None:
    outcome = run(
        MergeConcats(),
        """g (float[2,1] a, float[2,2] b, float[2,3] c, float[2,4] d) => (float[2,10] y) {
           i = Concat<axis=1>(a, b) j = Concat<axis=-1>(c, i) y = Concat<axis=1>(j, d)
        }""",
    )
    assert outcome.ops == ["Concat"]
    assert [value.name for value in outcome.model.graph[0].inputs if value is not None] == ["c", "a", "b", "d"]


def test_a_concat_that_others_read_stays() -> None:
    outcome = run(
        MergeConcats(),
        """g (float[2] a, float[3] b) => (float[10] y, float[5] z) {
           i = Concat<axis=0>(a, b) y = Concat<axis=0>(i, i) z = Neg(i)
        }""",
    )
    assert outcome.ops == ["Concat", "Concat", "Neg"]
    assert set(outcome.reasons) == {"the inner concat is read by others too"}


def test_concats_of_different_axes_stay() -> None:
    outcome = run(
        MergeConcats(),
        """g (float[2,3] a, float[2,3] b, float[4,1] c) => (float[4,4] y) {
           i = Concat<axis=0>(a, b) y = Concat<axis=1>(i, c)
        }""",
    )
    assert outcome.ops == ["Concat", "Concat"]
    assert outcome.reasons == ["the axes differ, or the rank is unknown"]
