"""The default pipeline as a whole: same numbers, nothing left for a second run, time that grows with the graph."""

from __future__ import annotations

import sys
import time

import numpy as np
import onnx_ir
import pytest

from graphforge.ir import HOME_OPSET, Level, infer_node, nodes_of, verify_graph
from graphforge.passes import default_pipeline
from graphforge.transform import Pipeline, VerifyGraph, count_nodes
from graphforge.verify import NumericCheck
from scripts.bench_scale import KINDS, generate
from tests.passes.harness import run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_a_block_of_a_convolutional_net() -> None:
    outcome = run(
        default_pipeline(),
        """g (float[N,3,8,8] x) => (float[N,10] y)
        <int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}, float three = {3}, float zero = {0}, float six = {6}, int64[1] i0 = {0},
         int64[1] i1 = {1}, int64[1] rest = {-1}> {
           a = Pad(x, p) b = Conv(a, w) c = BatchNormalization(b, gamma, beta, mean, var)
           d = Add(c, three) e = Clip(d, zero, six) f = Div(e, six) h = Mul(c, f)
           i = GlobalAveragePool(h) s = Shape(i) n = Slice(s, i0, i1) t = Concat<axis=0>(n, rest) j = Reshape(i, t)
           k = Dropout(j) l = MatMul(k, v) y = Add(l, u)
        }""",
        weights={
            "w": floats(16, 3, 3, 3), "gamma": floats(16), "beta": floats(16), "mean": floats(16),
            "var": np.abs(floats(16)) + 0.1, "v": floats(16, 10), "u": floats(10),
        },
        sizes={"N": 3},
    )  # fmt: skip
    assert outcome.ops == ["Conv", "HardSwish", "GlobalAveragePool", "Reshape", "Gemm"]


def test_a_loop_with_a_body() -> None:
    outcome = run(
        default_pipeline(),
        """g (float[2,3] x) => (float[2,3] y) <int64 trips = {3}, bool go = {1}, float one = {1}, float two = {2}> {
           k = Add(one, two)
           y = Loop(trips, go, x) <body = b (int64 i, bool c, float[2,3] v) => (bool c2, float[2,3] w) {
              c2 = Identity(c) m = Mul(v, k) n = Mul(m, one) t = Transpose(n) u = Transpose(t) e = Add(one, two)
              w = Add(u, e)
           }>
        }""",
    )
    assert outcome.ops == ["Loop", "Identity", "Mul", "Add"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_generated_graphs(kind: str) -> None:
    model: onnx_ir.Model = onnx_ir.from_proto(generate(kind, 120))
    model.graph.opset_imports[""] = HOME_OPSET
    before = count_nodes(model)
    for node in nodes_of(model.graph):
        infer_node(node, HOME_OPSET)
    Pipeline(default_pipeline()).run(model, [VerifyGraph(), NumericCheck()])
    verify_graph(model, Level.CANONICAL)
    # "chain" has nothing to remove but the Identity at its end.
    assert count_nodes(model) <= (before - 1 if kind == "chain" else before // 1.5)
    assert not any(record.changes for record in Pipeline(default_pipeline()).run(model))


@pytest.mark.cost
def test_the_time_grows_with_the_graph() -> None:
    def seconds(nodes: int) -> float:
        model: onnx_ir.Model = onnx_ir.from_proto(generate("mixed", nodes))
        model.graph.opset_imports[""] = HOME_OPSET
        started = time.process_time()
        Pipeline(default_pipeline()).run(model)
        return time.process_time() - started

    seconds(300)  # imports
    small = min(seconds(600) for _ in range(2))
    # Eight times the nodes: linear is 8, quadratic 64.
    assert seconds(4800) < 20 * small


@pytest.mark.cost
def test_a_node_costs_a_bounded_number_of_calls() -> None:
    """Counted, not timed: a busy machine makes no difference, one more walk over the whole graph for each pass does."""
    model: onnx_ir.Model = onnx_ir.from_proto(generate("mixed", 700))
    model.graph.opset_imports[""] = HOME_OPSET
    Pipeline(default_pipeline()).run(onnx_ir.from_proto(generate("mixed", 100)))  # what is computed once, is
    nodes = sum(1 for _ in model.graph.all_nodes())
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        Pipeline(default_pipeline()).run(model)
    finally:
        sys.setprofile(None)
    assert calls / nodes < 800  # 540 were counted
