"""The log of rewrites: which rule fired where, what stood there before and after; a run ended behind one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, Model, to_text
from graphforge.transform import Pass, Pipeline, RewriteLog, Rewriter
from graphforge.transform.rewrites import stopped_early
from tests.transform.toys import DropDoubleNeg, ReluToClip, parse

GRAPH = """g (float[2] x) => (float[2] y, float[2] z) {
    a = Relu(x) b = Neg(a) c = Neg(b) d = Neg(c) e = Neg(d) f = Relu(e) y = Sqrt(f) z = LeakyRelu<alpha = 0.5>(x)
}"""


@dataclass(frozen=True)
class Loose(Pass):
    """Edits without replacing anything."""

    name: ClassVar[str] = "loose"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """An attribute, then an input."""
        for node in graph:
            if node.op_type == "LeakyRelu":
                rewriter.set_attribute(node, "alpha", 0.25)
                rewriter.set_input(node, 0, next(iter(graph)).outputs[0])


def model() -> Model:
    return parse(GRAPH)


def run(*passes: Pass, log: RewriteLog | None = None) -> RewriteLog:
    log = log or RewriteLog()
    Pipeline(passes).run(model(), [log])
    return log


def test_a_rule_that_fires_is_one_rewrite_with_its_nodes_before_and_after() -> None:
    first, second = run(DropDoubleNeg()).rewrites
    assert (first.pass_name, first.number, first.rule, first.what) == ("drop-double-neg", 1, "DoubleNeg", "replaced")
    assert len(first.before) == 2
    assert all("Neg(" in line for line in first.before)
    assert first.after == ()
    assert second.number == 2
    assert second.first > first.last
    assert "rewrite 1 of drop-double-neg (DoubleNeg) at Neg node" in first.describe()
    assert "c" in first.names


def test_passes_are_told_apart_by_their_place() -> None:
    log = run(ReluToClip(), DropDoubleNeg(), ReluToClip())
    assert [(one.position, one.pass_name) for one in log.rewrites] == [
        (0, "relu-to-clip"),
        (0, "relu-to-clip"),
        (1, "drop-double-neg"),
        (1, "drop-double-neg"),
    ]
    assert any("Clip(" in line for line in log.rewrites[0].after)


def test_edits_that_replace_nothing_are_told_one_by_one() -> None:
    attribute, wire = run(Loose()).rewrites
    assert (attribute.what, wire.what) == ("attribute alpha", "input 0")
    assert "0.25" not in attribute.before[0]
    assert "0.25" in attribute.after[0]
    assert len(wire.before) == 1
    assert wire.before != wire.after
    assert "z" in attribute.names


def test_a_run_ends_behind_the_edit_asked_for() -> None:
    first, second = run(DropDoubleNeg()).rewrites
    for end, negs in ((first.last, 2), (second.last, 0)):
        given = model()
        with stopped_early():
            Pipeline([DropDoubleNeg()]).run(given, [RewriteLog(stop_after=end, texts=False)])
        assert sum(node.op_type == "Neg" for node in given.graph) == negs
    assert to_text(given).count("Relu") == 3


def test_plain_data() -> None:
    record = run(Loose()).rewrites[0].to_dict()
    assert record["pass_name"] == "loose"
    assert record["what"] == "attribute alpha"
