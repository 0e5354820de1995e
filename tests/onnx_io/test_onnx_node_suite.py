"""ONNX's own test-suite through import and the default pipeline; scripts/bench_onnx_suite.py runs all of it."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from graphforge.passes import default_pipeline
from graphforge.passes.legalise_opset import LegaliseOpset
from graphforge.transform import Pipeline
from tests.onnx_io import onnx_suite


def _optimise(model: ir.Model) -> None:
    Pipeline(default_pipeline()).run(model)


@pytest.fixture(scope="module")
def cases() -> list[onnx_suite.Case]:
    found: list[onnx_suite.Case] = onnx_suite.find_cases()
    return found


def test_the_suite_is_complete(cases: list[onnx_suite.Case]) -> None:
    count = {kind: sum(case.kind == kind for case in cases) for kind in onnx_suite.KINDS}
    assert count["node"] >= 1_700
    assert count["pytorch-converted"] >= 80
    assert count["pytorch-operator"] >= 35
    assert count["simple"] >= 20
    assert count["light"] >= 9


@pytest.mark.slow
def test_a_fifth_of_the_cases_gives_the_expected_outputs(cases: list[onnx_suite.Case]) -> None:
    tally = onnx_suite.run_cases(onnx_suite.sample(cases, 5, seed=0), _optimise)
    assert not tally.failed, "\n".join(tally.lines())
    assert tally.passed["onnxruntime"] > 300


@pytest.mark.parametrize("opset", [11, 17])
def test_a_sample_of_the_cases_is_right_or_refused_at_lower_opsets(cases: list[onnx_suite.Case], opset: int) -> None:
    """All cases at all opsets: scripts/bench_opsets.py."""
    known = onnx_suite.exceptions()
    refused = 0
    sample = onnx_suite.sample([case for case in cases if case.kind == "node"], 12, seed=opset)
    for case in sample:
        if any(exception.covers(case) for exception in known):
            continue
        outcome = onnx_suite.run_case(case, lambda model: _lowered(model, opset))
        refused += outcome.problem.startswith("refused")
        assert not outcome.problem or outcome.problem.startswith("refused"), (case.name, outcome.problem)
    assert refused < len(sample) / 3


def _lowered(model: ir.Model, opset: int) -> None:
    Pipeline([*default_pipeline(), LegaliseOpset(opset)]).run(model)


def test_every_exception_covers_a_case(cases: list[onnx_suite.Case]) -> None:
    for exception in onnx_suite.exceptions():
        assert any(exception.covers(case) for case in cases), exception.pattern


def test_a_wrong_output_is_a_failure(cases: list[onnx_suite.Case]) -> None:
    """The suite can fail: an Add that became a Sub is noticed."""

    def break_add(model: ir.Model) -> None:
        for node in model.graph:
            node.op_type = "Sub" if node.op_type == "Add" else node.op_type

    (case,) = [case for case in cases if case.name == "test_add"]
    tally = onnx_suite.run_cases([case], break_add)
    assert list(tally.failed) == ["node/test_add"]


def test_a_listed_exception_that_passes_is_a_failure() -> None:
    exception = onnx_suite.KnownException("node/test_add", "none", "reference")
    assert "take it off the list" in exception.unmet(onnx_suite.Outcome("onnxruntime"))
