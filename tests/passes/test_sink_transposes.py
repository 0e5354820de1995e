"""sink-transposes: past what does not mind the order, towards another transpose."""

from __future__ import annotations

from graphforge.passes.merge_transposes import MergeTransposes
from graphforge.passes.sink_transposes import SinkTransposes
from tests.passes.harness import run

SINK = [SinkTransposes(), MergeTransposes()]


def test_transposes_meet_past_a_number_and_a_function() -> None:
    for between in ("Mul(t, two)", "Sub(two, t)", "Relu(t)", "Clip(t, zero, two)", "Cast<to=1>(t)"):
        outcome = run(
            SINK,
            """g (float[2,3,4] x) => (float[2,4,3] y) <float two = {2.0}, float zero = {0.0}> {
               t = Transpose<perm=[1,0,2]>(x) m = """
            + between
            + """ y = Transpose<perm=[1,2,0]>(m)
            }""",
        )
        assert outcome.ops[1:] == ["Transpose"], between
        assert tuple(outcome.model.graph[1].attributes["perm"].as_ints()) == (0, 2, 1)


def test_a_transpose_stays_before_what_minds_the_order() -> None:
    outcome = run(
        SINK,
        """g (float[2,3] x) => (float[2,3] y) <float[2] w = {1.0, 2.0}> {
           t = Transpose<perm=[1,0]>(x) m = Mul(t, w) y = Transpose<perm=[1,0]>(m)
        }""",
    )
    assert outcome.ops == ["Transpose", "Mul", "Transpose"]


def test_a_transpose_that_others_read_is_not_moved() -> None:
    outcome = run(
        SINK,
        """g (float[2,3] x) => (float[2,3] y, float[3,2] z) {
           t = Transpose<perm=[1,0]>(x) m = Relu(t) y = Transpose<perm=[1,0]>(m) z = Neg(t)
        }""",
    )
    assert outcome.ops == ["Transpose", "Relu", "Transpose", "Neg"]


def test_a_lone_transpose_is_left_where_it_is() -> None:
    outcome = run(SINK, "g (float[2,3] x) => (float[3,2] y) { t = Transpose<perm=[1,0]>(x) y = Relu(t) }")
    assert outcome.ops == ["Transpose", "Relu"]
