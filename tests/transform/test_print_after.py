"""The graph is printed each time that one of the named passes has run."""

from __future__ import annotations

import pytest

from graphforge.errors import UsageError
from graphforge.transform import Pipeline, PrintAfter
from tests.transform.toys import DropDoubleNeg, ReluToClip, parse

GRAPH = "g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) y = Relu(b) }"


def test_prints_the_graph_that_the_pass_left() -> None:
    printed: list[str] = []
    passes = [DropDoubleNeg(), ReluToClip(low=-1.0), DropDoubleNeg()]
    Pipeline(passes).run(parse(GRAPH), [PrintAfter(("drop-double-neg",), printed.append)])
    first, second = printed
    assert first.startswith("---- after drop-double-neg, pass 1: ")
    assert "= Relu(x)" in first
    assert "Neg" not in first
    assert second.startswith("---- after drop-double-neg, pass 3: nothing changed\n")
    assert "= Clip(x, -1.)" in second


def test_prints_to_stdout_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    Pipeline([ReluToClip(low=-1.0)]).run(parse(GRAPH), [PrintAfter(("relu-to-clip",))])
    assert capsys.readouterr().out.startswith("---- after relu-to-clip{low=-1.0}, pass 1: ")


def test_a_pass_that_does_not_run_is_refused_with_the_nearest() -> None:
    instrument = PrintAfter(("drop-duble-neg",))
    with pytest.raises(UsageError, match="no pass 'drop-duble-neg' runs here") as caught:
        instrument.refuse_unknown([DropDoubleNeg(), ReluToClip(), DropDoubleNeg()])
    assert caught.value.notes == (
        "did you mean drop-double-neg?",
        "the passes that run: drop-double-neg, relu-to-clip",
    )
    PrintAfter(("relu-to-clip",)).refuse_unknown([ReluToClip()])
