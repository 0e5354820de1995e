"""Pipeline: parsing, running, records and instruments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest

from graphforge.errors import InternalError, UsageError, UserCodeError
from graphforge.ir import Graph, verify_graph
from graphforge.transform import (
    Pass,
    PassRegistry,
    Pipeline,
    Rewriter,
    VerifyGraph,
)
from tests.transform.toys import DirectEdit, DropDoubleNeg, ReluToClip, parse

GRAPH = "g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) y = Relu(b) }"


@pytest.fixture
def registry() -> PassRegistry:
    registry = PassRegistry()
    for found in (DropDoubleNeg, ReluToClip, DirectEdit):
        registry.add_class(found, "tests")
    return registry


def test_parse_reads_names_and_options(registry: PassRegistry) -> None:
    pipeline = Pipeline.parse(
        "drop-double-neg, relu-to-clip{low=-1,ops=['Relu','Elu'],limit=none},direct-edit", registry
    )
    assert pipeline.passes == (DropDoubleNeg(), ReluToClip(low=-1.0, ops=("Relu", "Elu")), DirectEdit())
    assert Pipeline.parse(pipeline.spec(), registry).passes == pipeline.passes
    assert Pipeline.parse("", registry).passes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop-duble-neg", "did you mean drop-double-neg"),
        ("relu-to-clip{lo=1}", "did you mean low?"),
        ("relu-to-clip{zzz=1}", "its options: low, ops, limit"),
        ("drop-double-neg{x=1}", "it has no options"),
        ("relu-to-clip{low=abc}", "option low of pass relu-to-clip must be float, got 'abc'"),
        ("relu-to-clip{limit=1.5}", "must be int or none"),
        ("relu-to-clip{low}", "write it as option=value"),
        ("relu-to-clip{low=1,low=2}", "given twice"),
        ("relu-to-clip{low=1", "left open"),
        ("relu-to-clip}", "not opened"),
        ("a b", "cannot read 'a b'"),
    ],
)
def test_parse_errors_name_the_way_out(registry: PassRegistry, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pipeline.parse(text, registry)
    assert message in str(caught.value)


def test_records_say_what_each_pass_did() -> None:
    model = parse(GRAPH)
    first, second = Pipeline([DropDoubleNeg(), DropDoubleNeg()]).run(model)
    assert (first.name, first.nodes_before, first.nodes_after) == ("drop-double-neg", 3, 1)
    assert first.changes > 0
    assert (second.nodes_before, second.nodes_after, second.changes) == (1, 1, 0)


def test_edits_behind_the_rewriters_back_are_seen() -> None:
    model = parse(GRAPH)
    first, second = Pipeline([DirectEdit(), DirectEdit()]).run(model)
    assert first.changes == 1
    assert second.changes == 0


@dataclass(frozen=True)
class Crash(Pass):
    name: ClassVar[str] = "crash"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        raise ZeroDivisionError("oh")


def test_a_pass_of_ours_that_crashes_is_our_bug_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crash, "__module__", "graphforge.passes.crash")
    with pytest.raises(InternalError, match="the pass 'crash' failed: ZeroDivisionError: oh"):
        Pipeline([Crash()]).run(parse(GRAPH))


def test_a_pass_of_the_users_that_crashes_is_told_with_their_line() -> None:
    with pytest.raises(UserCodeError, match="the pass 'crash' failed: ZeroDivisionError: oh") as caught:
        Pipeline([Crash()]).run(parse(GRAPH))
    (place,) = caught.value.notes
    assert re.fullmatch(r'raised at .*test_pipeline\.py:\d+, in run: raise ZeroDivisionError\("oh"\)', place)


def test_names_are_unique_after_a_run() -> None:
    model = parse("g (float[2] x) => (float[2] y) { constant_0 = Relu(x) y = Relu(constant_0) }")
    Pipeline([ReluToClip(low=1.5)]).run(model, [VerifyGraph()])
    verify_graph(model)
    assert {value.name for value in model.graph.outputs} == {"y"}


def test_something_else_is_no_pass() -> None:
    with pytest.raises(UsageError, match="a pipeline is made of passes"):
        Pipeline([DropDoubleNeg])  # type: ignore[list-item]


@dataclass(frozen=True)
class RenameInput(Pass):
    """Gives the graph's input another name, behind the rewriter's back."""

    name: ClassVar[str] = "rename-input"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        graph.inputs[0].name = "other"


def test_a_renamed_input_is_a_change() -> None:
    (record,) = Pipeline([RenameInput()]).run(parse(GRAPH))
    assert record.changes == 1
