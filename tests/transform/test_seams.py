"""The graph is checked where it changes hands, and whoever broke it is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from graphforge.errors import GraphForgeError, InternalError
from graphforge.ir import Graph, Level
from graphforge.transform import Pass, Pipeline, Rewriter, VerifyGraph, check_level
from graphforge.user_code import shown_path
from tests.transform.toys import DropDoubleNeg, parse

GRAPH = "g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }"


@dataclass(frozen=True)
class MoveFirst(Pass):
    """Moves the first node to the end."""

    name: ClassVar[str] = "move-first"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        first = graph[0]
        graph.remove(first)
        graph.append(first)


@dataclass(frozen=True)
class AddAlpha(Pass):
    """Gives Relu an attribute that it does not have."""

    name: ClassVar[str] = "add-alpha"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        for node in graph:
            if node.op_type == "Relu":
                rewriter.set_attribute(node, "alpha", 0.1)


@dataclass(frozen=True)
class OfAnotherDomain(Pass):
    """Writes an operator of a domain, and says which version of the domain that is, or does not."""

    name: ClassVar[str] = "of-another-domain"
    version: int | None = None

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        if graph[0].domain == "":
            rewriter.replace(graph[0], rewriter.builder(graph[0]).Plugin(graph.inputs[0], _domain="acme"))
        rewriter.set_opset(self.version, "acme")


@dataclass(frozen=True)
class OurMoveFirst(MoveFirst):
    """The same, as if it came with GraphForge."""

    name: ClassVar[str] = "our-move-first"


OurMoveFirst.__module__ = "graphforge.passes.our_move_first"


@pytest.mark.parametrize("pass_", [MoveFirst(), AddAlpha()])
def test_a_pass_of_the_user_that_breaks_the_graph_is_named_with_its_file(pass_: Pass) -> None:
    with pytest.raises(GraphForgeError, match=f"the pass '{pass_.name}' leaves a graph that is not valid") as caught:
        Pipeline([DropDoubleNeg(), pass_, DropDoubleNeg()]).run(parse(GRAPH))
    assert f"the pass is class {type(pass_).__name__} in {shown_path(__file__)}:" in str(caught.value)


def test_the_problem_is_told_with_the_node() -> None:
    with pytest.raises(GraphForgeError, match=r"Neg node 'y': input 0 \('a'\) is not defined before it"):
        Pipeline([MoveFirst()]).run(parse(GRAPH))
    with pytest.raises(
        GraphForgeError, match="Relu node 'a': has attribute alpha, which Relu of opset 14 does not know"
    ):
        Pipeline([AddAlpha()]).run(parse(GRAPH))


def test_carets_stand_under_what_is_wrong() -> None:
    with pytest.raises(GraphForgeError) as caught:
        Pipeline([AddAlpha()]).run(parse(GRAPH))
    head, line, carets, *_ = next(note for note in caught.value.notes if "^" in note).splitlines()
    assert head == "here:"
    assert line[carets.index("^") :] == "alpha=0.1)"
    assert carets.count("^") == len("alpha=0.1")


def test_a_pass_of_ours_is_checked_where_asked_and_is_our_bug() -> None:
    model = parse(GRAPH)
    Pipeline([OurMoveFirst()]).run(model)  # the seams behind a stage are the caller's
    with pytest.raises(InternalError, match="after the canonical passes the graph is not valid at level canonical"):
        check_level(model, Level.CANONICAL, "the canonical passes")
    with pytest.raises(InternalError, match="the pass 'our-move-first' leaves a graph that is not valid"):
        Pipeline([OurMoveFirst()]).run(parse(GRAPH), verify_each=True)
    with pytest.raises(InternalError, match="the pass 'our-move-first' leaves"):
        Pipeline([OurMoveFirst()]).run(parse(GRAPH), [VerifyGraph()])


def test_what_we_broke_is_not_laid_at_the_door_of_the_pass_after_it() -> None:
    with pytest.raises(InternalError, match="before pass 'drop-double-neg' the graph is not valid"):
        Pipeline([OurMoveFirst(), DropDoubleNeg()]).run(parse(GRAPH))


def test_two_values_of_one_name_are_no_fault() -> None:
    @dataclass(frozen=True)
    class Rename(Pass):
        name: ClassVar[str] = "rename"

        def run(self, graph: Graph, rewriter: Rewriter) -> None:
            graph[0].outputs[0].name = "x"

    model = parse(GRAPH)
    Pipeline([Rename()]).run(model)
    assert [node.outputs[0].name for node in model.graph] == ["x_1", "y"]


def test_a_target_of_somebody_else_is_named() -> None:
    class Toy:
        name = "toy"

    model = parse("g (float[2] x) => (float[2] y) { y = acme.Thing(x) }")
    with pytest.raises(GraphForgeError, match="after the passes of target toy the graph is not valid at level legal"):
        check_level(model, Level.LEGAL, "the passes of target toy", owner=Toy())


def test_a_domain_whose_version_is_not_stated_is_the_fault_of_the_pass_that_writes_it() -> None:
    """It came out at the end as a bug of ours."""
    with pytest.raises(GraphForgeError, match=r"'of-another-domain' leaves .*: acme::Plugin node .*'acme'") as caught:
        Pipeline([OfAnotherDomain(), DropDoubleNeg()]).run(parse(GRAPH))
    assert "rewriter.set_opset(1, 'acme')" in caught.value.notes[-1]
    Pipeline([OfAnotherDomain(1), DropDoubleNeg()]).run(parse(GRAPH))
    model = parse(GRAPH)
    model.graph[0].domain = "acme"  # as captured: the pass that declares operators states the version later
    Pipeline([OfAnotherDomain(), DropDoubleNeg()]).run(model)
