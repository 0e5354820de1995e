"""Bisection names the pass that changes a result, wherever it stands."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.transform import Pass, Rewriter
from graphforge.verify.bisect import bisect_passes

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[a] x) => (float[a] y) <float one = {1.0}> {
    h = Add(x, one)
    y = Relu(h)
}"""
FEEDS: dict[str, Array] = {"x": np.linspace(-3, 3, 7, dtype=np.float32)}


@dataclass(frozen=True)
class Harmless(Pass):
    """Touches nothing."""

    name: ClassVar[str] = "harmless"
    number: int = 0

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Spoil(Pass):
    """Turns every Relu into another operator."""

    name: ClassVar[str] = "spoil"
    into: str = "Abs"

    def run(self, graph: ir.Graph, rewriter: Rewriter) -> None:
        """Rename the operator."""
        for node in graph:
            if node.op_type in ("Relu", "Unknown"):
                node.domain, node.op_type = "", self.into


def model() -> ir.Model:
    return ir.from_onnx_text(TEXT)


@pytest.mark.parametrize("place", [0, 1, 5, 8])
def test_the_guilty_pass_is_found(place: int) -> None:
    passes: list[Pass] = [Harmless(number=i) for i in range(8)]
    passes.insert(place, Spoil())
    given = model()
    report = bisect_passes(given, passes, FEEDS)
    assert report.guilty == place
    assert f"pass {place + 1} of 9, spoil" in report.describe()
    assert "output y" in report.describe()
    assert [node.op_type for node in given.graph] == ["Add", "Relu"]
    assert len(report.probes) <= 6


def test_nothing_guilty() -> None:
    report = bisect_passes(model(), [Harmless(), Harmless()], FEEDS)
    assert report.clean
    assert "no pass changes a result" in report.describe()
    assert bisect_passes(model(), [], FEEDS).clean


def test_a_pass_that_breaks_the_graph_is_found_too() -> None:
    report = bisect_passes(model(), [Harmless(), Spoil("NoSuchOperator"), Harmless()], FEEDS)
    assert report.guilty == 1
    assert "NoSuchOperator" in report.describe()


def test_eager_tells_when_the_lowering_is_to_blame() -> None:
    expected = {"y": np.abs(FEEDS["x"] + 1)}
    report = bisect_passes(model(), [Harmless()], FEEDS, expected=expected)
    assert report.before_any_pass
    assert report.guilty is None
    assert "before any pass" in report.describe()


def test_a_graph_that_runs_only_after_some_passes() -> None:
    given = model()
    node = next(node for node in given.graph if node.op_type == "Relu")
    node.domain, node.op_type = "nowhere", "Unknown"  # valid, but nothing here runs it
    given.opset_imports["nowhere"] = 1
    passes: list[Pass] = [Harmless(), Spoil("Relu"), Harmless(), Spoil("Abs"), Harmless()]
    report = bisect_passes(given, passes, FEEDS)
    assert report.guilty == 3
    assert "only after 2 passes" in report.notes[0]
    with pytest.raises(GraphForgeError, match="with or without passes"):
        bisect_passes(given, [Harmless()], FEEDS)


def test_report_prints_and_is_json() -> None:
    report = bisect_passes(model(), [Harmless(), Spoil()], FEEDS)
    text = io.StringIO()
    report.render(Console(file=text, width=200))
    assert "spoil" in text.getvalue()
    assert text.getvalue().count(" are off by ") == 1  # once, and not for each probe
    parsed = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (parsed["guilty"], parsed["index"]) == ("spoil", 1)
