"""NumericCheck: the pass that changes a result is named, by the tolerances of verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import Graph, from_text, verify_graph
from graphforge.transform import Pass, Pipeline, Rewriter, VerifyGraph
from graphforge.verify import NumericCheck, Tolerances
from graphforge.verify.bisect import bisect_passes
from graphforge.verify.tolerance import as_tolerances
from tests.transform.toys import DropDoubleNeg, ReluToClip, parse

GRAPH = "g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) y = Relu(b) }"


def test_it_names_the_pass_that_changes_a_result() -> None:
    passes = [DropDoubleNeg(), ReluToClip(low=0.25), DropDoubleNeg()]
    with pytest.raises(GraphForgeError, match="pass relu-to-clip changes output 'y'"):
        Pipeline(passes).run(parse(GRAPH), [NumericCheck()])
    model = parse(GRAPH)
    Pipeline([DropDoubleNeg(), ReluToClip()]).run(model, [NumericCheck(), VerifyGraph()])
    verify_graph(model)


def test_it_draws_named_dims_and_integers() -> None:
    model = parse(
        """g (float[N,3] x, int64[N] i, bool[N] b) => (float[N,3] y, int64[N] j, bool[N] c) {
            y = Relu(x) j = Neg(i) c = Not(b)
        }"""
    )
    check = NumericCheck(sizes={"N": 5})
    Pipeline([ReluToClip()]).run(model, [check])
    assert check.feeds is not None
    assert check.feeds["x"].shape == (5, 3)


def test_it_writes_models_that_are_too_large_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphforge.runners.session._MAX_IN_MEMORY", 0)
    weight = np.ones((16, 2), np.float32)
    model = from_text(
        '# weight w float[16,2]\n<ir_version: 14, opset_import: ["" : 26]>\n'
        "g (float[3,16] x) => (float[3,2] y) { m = MatMul(x, w) y = Relu(m) }",
        weights={"w": weight},
    )
    Pipeline([ReluToClip()]).run(model, [NumericCheck()])
    assert model.ir_version == 14
    assert model.graph.initializers["w"].const_value is not None


def test_a_graph_that_the_runtime_does_not_load_says_what_to_do() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = graphforge.Thing(x) }")
    model.graph.opset_imports["graphforge"] = 1
    with pytest.raises(GraphForgeError, match="leave check_passes out"):
        Pipeline([DropDoubleNeg()]).run(model, [NumericCheck()])


@dataclass(frozen=True)
class Shift(Pass):
    """Adds a share of 1 to every Relu."""

    name: ClassVar[str] = "shift"
    by: float = 0.0

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        for node in list(graph):
            if node.op_type == "Relu":
                op = rewriter.builder(node)
                rewriter.replace(node, op.Add(op.Relu(node.inputs[0]), self.by))


@pytest.mark.parametrize(
    ("by", "given", "agrees"),
    [(1e-5, None, True), (1e-3, None, False), (1e-3, 1e-2, True), (1e-5, 1e-7, False)],
)
def test_it_and_bisect_judge_by_the_same_numbers(by: float, given: float | None, agrees: bool) -> None:
    feeds = {"x": np.array([1.0, 0.5], np.float32)}
    tolerances = as_tolerances(given)
    report = bisect_passes(parse(GRAPH), [DropDoubleNeg(), Shift(by)], feeds, tolerances=tolerances)
    assert report.clean is agrees
    check = NumericCheck(feeds, tolerances=tolerances)
    if agrees:
        Pipeline([DropDoubleNeg(), Shift(by)]).run(parse(GRAPH), [check])
        return
    with pytest.raises(GraphForgeError) as caught:
        Pipeline([DropDoubleNeg(), Shift(by)]).run(parse(GRAPH), [check])
    allowed = (tolerances or Tolerances()).of("y", "float32").describe()
    assert f"pass shift changes output 'y': 2 of 2 elements are off by more than {allowed}" in str(caught.value)
    assert report.describe().removesuffix(", same NaN/Inf allowed").startswith("pass 2 of 2, shift")
    assert f"off by more than {allowed}" in report.describe()


def test_nan_that_stays_where_it_was_is_not_a_change() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) y = Log(b) }")
    Pipeline([DropDoubleNeg()]).run(model, [NumericCheck({"x": np.array([-1.0, 0.0], np.float32)})])
    assert [node.op_type for node in model.graph] == ["Log"]
