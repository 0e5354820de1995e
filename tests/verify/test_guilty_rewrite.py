"""Bisection goes on into the guilty pass: the rewrite that spoils the result, by rule, node and edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.runners.arrays import Array
from graphforge.transform import Match, Pass, Rewriter, Rule
from graphforge.verify.bisect import BisectReport, bisect_passes

CHAIN = 12
FEEDS: dict[str, Array] = {"x": np.linspace(-9000, 3, 7, dtype=np.float32)}


def model() -> ir.Model:
    """A chain of Adds and LeakyRelus."""
    lines = ["v0 = Identity(x)"]
    for number in range(CHAIN):
        lines += [
            f"a{number} = Add(v{number}, one)",
            f"v{number + 1} = LeakyRelu<alpha = 0.5>(a{number})",
        ]
    text = "\n".join([*lines, f"y = Identity(v{CHAIN})"])
    return ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 20]>\ng (float[a] x) => (float[a] y) <float one = {{1.0}}> {{ {text} }}'
    )


class TurnAdd(Rule):
    """x + 1 ==> 1 + x, but for one place, where it becomes a difference."""

    commutative = False

    def __init__(self, wrong: int) -> None:
        self.wrong = f"a{wrong}"

    def pattern(self, op: Any, x: Any) -> Any:
        return op.Add(x, 1.0)

    def rewrite(self, op: Any, m: Match) -> Any:
        return op.Sub(1.0, m.x) if m.root.outputs[0].name == self.wrong else op.Add(1.0, m.x)


@dataclass(frozen=True)
class TurnAdds(Pass):
    """A pass of one rule."""

    name: ClassVar[str] = "turn-adds"
    wrong: int = 0

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Apply it."""
        rewriter.apply(TurnAdd(self.wrong), graph)


@dataclass(frozen=True)
class Reslope(Pass):
    """Edits attributes, one of them wrongly."""

    name: ClassVar[str] = "reslope"
    wrong: int = 0

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Every slope becomes nearly what it was."""
        for node in graph:
            if node.op_type == "LeakyRelu":
                wrong = node.outputs[0].name == f"v{self.wrong}"
                rewriter.set_attribute(node, "alpha", 0.9 if wrong else 0.5 + 1e-7)


@dataclass(frozen=True)
class Behind(Pass):
    """Edits behind the rewriter's back."""

    name: ClassVar[str] = "behind"

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Rename the operators."""
        for node in graph:
            if node.op_type == "LeakyRelu":
                node.op_type = "Elu"


@dataclass(frozen=True)
class Halfway(Pass):
    """Its graph does not run while it is at work: one operator that nobody knows becomes two steps."""

    name: ClassVar[str] = "halfway"

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Widen the constant and only then what reads it."""
        last = next(node for node in graph if node.op_type == "Add")
        rewriter.set_constant(last.inputs[1], ir.tensor(np.ones((2, 2), np.float32)))  # type: ignore[arg-type]
        rewriter.set_constant(last.inputs[1], ir.tensor(np.array(2.0, np.float32)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Legalised(Pass):
    """Its graph runs at its end only, as one whose opset changes does."""

    name: ClassVar[str] = "legalised"
    wrong: int = 0

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Rewrite every Add under an opset that nothing reads."""
        graph.opset_imports[""] = 99
        rewriter.apply(TurnAdd(self.wrong), graph)
        graph.opset_imports[""] = 20
        last = next(node for node in graph if node.op_type == "LeakyRelu")
        rewriter.set_attribute(last, "alpha", 0.5 + 1e-7)


def found(pass_: Pass) -> BisectReport:
    report = bisect_passes(model(), [pass_], FEEDS)
    assert report.guilty == 0
    return report


@pytest.mark.parametrize("wrong", [0, 1, 5, CHAIN - 1])
def test_the_firing_of_the_rule_is_named(wrong: int) -> None:
    guilty = found(TurnAdds(wrong)).rewrite
    assert guilty is not None
    assert guilty.exact
    assert guilty.total == CHAIN
    assert guilty.rewrite.rule == "TurnAdd"
    assert f"a{wrong}" in guilty.rewrite.names
    assert "Add(" in guilty.rewrite.before[0]
    assert "Sub(" in guilty.rewrite.after[0]
    assert "output y" in guilty.departs
    assert guilty.runs <= 5


@pytest.mark.parametrize("wrong", [1, 7, CHAIN])
def test_the_edit_is_named_where_nothing_is_replaced(wrong: int) -> None:
    guilty = found(Reslope(wrong)).rewrite
    assert guilty is not None
    assert guilty.exact
    assert guilty.rewrite.what == "attribute alpha"
    assert f"v{wrong}" in guilty.rewrite.names


def test_a_pass_that_does_without_the_rewriter_is_told_as_that() -> None:
    report = found(Behind())
    assert report.rewrite is None
    assert "without the rewriter" in report.notes[0]


def test_a_graph_that_does_not_run_in_between_is_passed_over() -> None:
    guilty = found(Halfway()).rewrite
    assert guilty is not None
    assert not guilty.exact
    assert "does not run between" in guilty.describe()


@pytest.mark.parametrize("wrong", [0, 6])
def test_where_no_graph_in_between_runs_the_first_value_that_departs_tells(wrong: int) -> None:
    guilty = found(Legalised(wrong)).rewrite
    assert guilty is not None
    assert guilty.by_value == f"a{wrong}"
    assert f"a{wrong}" in guilty.rewrite.names
    assert any("Sub" in line for line in guilty.rewrite.after)
    assert "found by value" in guilty.describe()


def test_the_report_tells_the_rewrite() -> None:
    report = found(TurnAdds(3))
    assert report.to_dict()["rewrite"]["rule"] == "TurnAdd"
    assert "TurnAdd" in repr(report.rewrite)
