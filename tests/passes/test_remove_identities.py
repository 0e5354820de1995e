"""remove-identities: what goes, and what only looks like it."""

from __future__ import annotations

import pytest

from graphforge.passes.remove_identities import RemoveIdentities
from tests.passes.harness import run

CONSTANTS = """<float zero = {0}, float one = {1}, float half = {0.5}, bool no = {0}, bool yes = {1},
  float[1,3] zeros = {0, 0, 0}, float[4,1,1] wide = {1, 1, 1, 1}, bool[2,3] all = {1, 1, 1, 1, 1, 1},
  int64[2] s23 = {2, 3}, int64[2] ones = {1, 1}, int64[1] all1 = {-1}, int64[2] minus = {-1, 3},
  int64[2] start = {0, 0}, int64[2] end = {9, 9223372036854775807}, int64[2] short = {1, 9},
  int64[4] pads = {0, 0, 0, 0}, int64[4] pads1 = {0, 0, 0, 1}>"""


@pytest.mark.parametrize(
    "node",
    [
        "Identity(x)",
        "Dropout(x)",
        "Dropout(x, half, no)",
        "Cast<to=1>(x)",
        "CastLike(x, one)",
        "Reshape(x, s23)",
        "Reshape(x, minus)",
        "Transpose<perm=[0,1]>(x)",
        "Expand(x, s23)",
        "Expand(x, ones)",
        "Tile(x, ones)",
        "Slice(x, start, end)",
        "Pad(x, pads)",
        "Concat<axis=0>(x)",
        "Sum(x)",
        "Clip(x)",
        "Add(x, zero)",
        "Add(zeros, x)",
        "Sub(x, zeros)",
        "Mul(one, x)",
        "Div(x, one)",
        "Pow(x, one)",
        "Where(all, x, zeros)",
        "Split<axis=0, num_outputs=1>(x)",
    ],
)
def test_gone(node: str) -> None:
    outcome = run(RemoveIdentities(), f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ a = {node} y = Relu(a) }}")
    assert outcome.ops == ["Relu"]


@pytest.mark.parametrize(
    "node",
    [
        "Cast<to=10>(x)",
        "Reshape(x, all1)",
        "Transpose<perm=[1,0]>(x)",
        "Transpose(x)",
        "Slice(x, start, short)",
        "Pad(x, pads1)",
        "Concat<axis=0>(x, x)",
        "Clip(x, zero)",
        "Add(x, one)",
        "Sub(zero, x)",
        "Div(one, x)",
        "Mul(x, half)",
    ],
)
def test_stays(node: str) -> None:
    outcome = run(
        RemoveIdentities(), f"g (float[2,3] x) => (y) {CONSTANTS} {{ a = {node} y = Identity(a) }}", numbers=False
    )
    assert len(outcome.ops) == 1 or outcome.ops[0] == node.partition("(")[0].partition("<")[0]


def test_a_neutral_constant_that_broadcasts_stays() -> None:
    outcome = run(
        RemoveIdentities(), f"g (float[2,3] x) => (float[4,2,3] y) {CONSTANTS} {{ a = Mul(x, wide) y = Relu(a) }}"
    )
    assert outcome.ops == ["Mul", "Relu"]
    assert outcome.reasons == ["Mul with 1 broadcasts, or the shape is unknown"]
    assert run(
        RemoveIdentities(),
        "g (float[N] x) => (float[M] y) <float[3] z = {0, 0, 0}> { a = Add(x, z) y = Relu(a) }",
        numbers=False,
    ).ops == ["Add", "Relu"]


def test_named_dims_that_are_equal_make_an_identity() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) <int64[2] s = {0, 3}> { a = Reshape(x, s) y = Relu(a) }"
    assert run(RemoveIdentities(), text, sizes={"N": 4}).ops == ["Relu"]


def test_expand_of_an_unknown_dim_stays() -> None:
    text = "g (float[N,3] x, int64[2] s) => (float[M,3] y) { a = Expand(x, s) y = Relu(a) }"
    assert run(RemoveIdentities(), text, numbers=False).ops == ["Expand", "Relu"]


def test_dropout_in_training_or_with_its_mask_read_stays() -> None:
    training = run(
        RemoveIdentities(),
        f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ a = Dropout(x, half, yes) y = Relu(a) }}",
        numbers=False,
    )
    assert training.reasons == ["the Dropout may be in training mode"]
    masked = run(
        RemoveIdentities(), "g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { a, m = Dropout(x) y = Relu(a) }"
    )
    assert masked.reasons == ["the mask of the Dropout is read"]
    assert masked.ops == ["Dropout", "Relu"]


def test_an_input_handed_out_keeps_its_identity() -> None:
    assert run(RemoveIdentities(), "g (float[2] x) => (float[2] y) { y = Identity(x) }").ops == ["Identity"]
    twice = run(
        RemoveIdentities(), "g (float[2] x) => (float[2] y, float[2] z) { a = Relu(x) y = Identity(a) z = Identity(a) }"
    )
    assert twice.ops == ["Relu", "Identity"]


def test_a_neutral_node_that_computes_an_output_from_an_input_stays() -> None:
    outcome = run(RemoveIdentities(), "g (float[2] x) => (float[2] y) <float one = {1}> { y = Mul(x, one) }")
    assert outcome.ops == ["Mul"]


def test_the_name_of_the_output_moves() -> None:
    outcome = run(RemoveIdentities(), "g (float[2] x) => (float[2] y) { a = Relu(x) y = Identity(a) }")
    assert outcome.ops == ["Relu"]


@pytest.mark.parametrize(
    ("shape", "node", "gone"),
    [
        ("1,4,5,5", "AveragePool<kernel_shape=[1,1]>(x)", True),
        ("1,4,5,5", "MaxPool<kernel_shape=[1,1], strides=[1,1]>(x)", True),
        ("1,4,5,5", "MaxPool<kernel_shape=[1,1], strides=[2,2]>(x)", False),
        ("1,4,1,1", "GlobalAveragePool(x)", True),
        ("1,4,5,5", "GlobalAveragePool(x)", False),
        ("2,1", "ReduceSum<keepdims=1>(x, last)", True),
        ("2,1", "ReduceMean<keepdims=0>(x, last)", False),
        ("2,2", "ReduceMax<keepdims=1>(x, last)", False),
        ("1,1,4,4", 'Resize<mode="linear">(x, , ones4)', True),
        ("1,1,4,4", 'Resize<mode="linear">(x, , , sizes4)', True),
        ("1,1,4,4", 'Resize<mode="linear">(x, , twice4)', False),
    ],
)
def test_windows_of_one(shape: str, node: str, gone: bool) -> None:
    constants = """<int64[1] last = {-1}, float[4] ones4 = {1, 1, 1, 1}, float[4] twice4 = {1, 1, 2, 2},
      int64[4] sizes4 = {1, 1, 4, 4}>"""
    outcome = run(
        RemoveIdentities(),
        f"g (float[{shape}] x) => (y) {constants} {{ a = {node} b = Relu(a) y = Neg(b) }}",
        numbers=False,
    )
    assert (outcome.ops == ["Relu", "Neg"]) is gone


@pytest.mark.parametrize(
    ("chain", "left"),
    [("Neg Neg", 0), ("Relu Relu", 1), ("Abs Abs", 1), ("Neg Abs", 2), ("Floor Floor", 1), ("Neg Neg Neg", 1)],
)
def test_operators_that_undo_or_repeat_themselves(chain: str, left: int) -> None:
    names = ["x", *(f"v{number}" for number in range(len(chain.split())))]
    lines = " ".join(f"{names[place + 1]} = {op}({names[place]})" for place, op in enumerate(chain.split()))
    outcome = run(
        RemoveIdentities(), f"g (float[2] x) => (float[2] y) {{ {lines} y = Sigmoid({names[-1]}) }}", numbers=False
    )
    # What nobody reads any more is for eliminate-dead-code.
    live = {"Sigmoid"}
    node = outcome.model.graph[-1]
    count = 0
    while node.inputs[0] is not None and (producer := node.inputs[0].producer()) is not None:
        count += 1
        node = producer
        live.add(node.op_type)
    assert count == left
