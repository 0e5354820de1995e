"""unpack-sequences: sequences become the tensors in them."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.unpack_sequences import UnpackSequences
from tests.passes.harness import run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


SEQUENCE = """g (float[6,4] x) => (float[A,B] y) <int64 i0 = {0}, int64 i1 = {-1}, int64 two = {2}, int64 four = {4},
  int64[2] parts = {1, 5}> { %s }"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (
            "s = SplitToSequence<axis=0>(x, two) a = SequenceAt(s, i0) b = SequenceAt(s, i1) y = Add(a, b)",
            ["Split", "Add"],
        ),
        ("s = SplitToSequence<axis=0>(x, four) y = SequenceAt(s, i1)", ["Split"]),
        ("s = SplitToSequence<axis=0>(x, parts) y = SequenceAt(s, i1)", ["Split"]),
        ("n = Neg(x) s = SequenceConstruct(x, n) y = ConcatFromSequence<axis=1>(s)", ["Neg", "Concat"]),
        ("n = Neg(x) s = SequenceConstruct(x, n) a = SequenceAt(s, i1) y = Relu(a)", ["Neg", "Relu"]),
    ],
)
def test_sequences_become_tensors(body: str, left: list[str]) -> None:
    assert run(UnpackSequences(), SEQUENCE % body).ops == left


def test_a_sequence_of_single_rows_is_squeezed() -> None:
    outcome = run(
        [UnpackSequences(), EliminateDeadCode()],
        """g (float[3,4] x) => (float[4] y) <int64 i = {1}> {
           s = SplitToSequence<axis=0, keepdims=0>(x) y = SequenceAt(s, i)
        }""",
    )
    assert outcome.ops == ["Split", "Squeeze"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = SplitToSequence<axis=0>(x, two) n = SequenceLength(s) f = Cast<to=1>(n) y = Add(x, f)",
         "SequenceLength reads the sequence"),
        ("t = Shape<start=0, end=1>(x) u = Squeeze(t) s = SplitToSequence<axis=0>(x, u) y = SequenceAt(s, i0)",
         "the sizes of the parts are known at run time only"),
    ],
)  # fmt: skip
def test_sequences_that_stay(body: str, reason: str) -> None:
    outcome = run(UnpackSequences(), SEQUENCE % body)
    assert outcome.reasons == [reason]


def test_a_place_that_is_an_input_stays() -> None:
    outcome = run(
        UnpackSequences(),
        """g (float[6,4] x, int64 i) => (float[A,B] y) <int64 two = {2}> {
           s = SplitToSequence<axis=0>(x, two) y = SequenceAt(s, i)
        }""",
        feeds={"x": floats(6, 4), "i": np.array(1)},
    )
    assert outcome.reasons == ["a place in the sequence is known at run time only"]
