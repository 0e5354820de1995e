"""eliminate-dead-code: what nobody reads goes, in bodies too."""

from __future__ import annotations

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from tests.passes.harness import run


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


def test_a_normalisation_that_trains_keeps_the_statistics_that_it_must_have() -> None:
    outcome = run(
        EliminateDeadCode(),
        """g (float[2,2,3] x, float[2] s) => (float[2,2,3] y) {
           y, mean, var = BatchNormalization<training_mode=1>(x, s, s, s, s)
        }""",
    )
    assert len(outcome.model.graph[0].outputs) == 3


def test_an_input_and_an_output_that_nobody_reads_stay() -> None:
    outcome = run(
        EliminateDeadCode(), "g (float[2] x, float[2] u) => (float[2] y, float[2] z) { y = Neg(x) z = Relu(y) }"
    )
    assert outcome.ops == ["Neg", "Relu"]
    assert len(outcome.model.graph.inputs) == 2
