"""choose-precision: the fastest candidate within the bound, by what was measured, and the table in the notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphforge
from graphforge.errors import UsageError
from graphforge.ir import DataType, Model
from graphforge.passes import choose_precision
from graphforge.passes.choose_precision import ChoosePrecision
from graphforge.ranges import METRIC, SAMPLES, Samples
from tests.passes.harness import Outcome, parse, run

_RANDOM = np.random.default_rng(0)
_W = _RANDOM.normal(size=(4, 4)).astype(np.float32)
_BODY = "g (float[8,4] x) => (float[8,4] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }"


def _model() -> Model:
    model = parse(_BODY, {"w": _W})
    feeds = tuple({"x": _RANDOM.normal(size=(8, 4)).astype(np.float32)} for _ in range(4))
    model.meta[SAMPLES] = Samples(feeds, "these")
    return model


def _timed(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """As if the candidates took this long."""
    monkeypatch.setattr(choose_precision, "_spent", lambda runners, feeds: {"full": 1.0, "fp32": 1.0, **seconds})


def _kind(outcome: Outcome) -> str:
    kinds = {value.dtype for value in outcome.model.graph.initializers.values() if value.uses() and value.shape}
    return "int8" if DataType.INT8 in kinds else "fp16" if DataType.FLOAT16 in kinds else "fp32"


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({"fp16": 1.2, "int8": 0.5}, "int8"), ({"fp16": 0.5, "int8": 0.9}, "fp16"), ({"fp16": 1.2, "int8": 1.5}, "fp32")],
)
def test_the_fastest_is_chosen(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], chosen: str) -> None:
    _timed(monkeypatch, **seconds)
    outcome = run(ChoosePrecision(max_drop=5.0), _model(), numbers=False)
    assert _kind(outcome) == chosen
    table = [note for note in outcome.record.notes if "of float32's" in note]
    assert [note.partition(":")[0] for note in table] == ["fp32", "fp16", "int8"]
    assert [note.partition(":")[0] for note in table if note.endswith("<- chosen")] == [chosen]


def test_what_loses_more_than_the_bound_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    _timed(monkeypatch, fp16=0.9, int8=0.1)
    model = _model()
    right = _RANDOM.normal(size=(8, 4)).astype(np.float32)
    expected = np.maximum(right @ _W, 0) @ _W

    def metric(run_model: Any) -> float:
        """Exact to a thousandth, or worthless: int8 is not, whatever is kept, unless nothing is quantised."""
        return float(np.abs(run_model({"x": right})["y"] - expected).max() < 1e-2 * np.abs(expected).max())

    model.meta[METRIC] = metric
    assert _kind(run(ChoosePrecision(max_drop=0.5), model, numbers=False)) in ("fp16", "int8")
    strict = _model()
    strict.meta[METRIC] = lambda run_model: float(np.abs(run_model({"x": right})["y"] - expected).max() < 1e-5)
    outcome = run(ChoosePrecision(max_drop=0.5), strict, numbers=False)
    assert _kind(outcome) == "fp32"


def test_unknown_candidates_are_refused() -> None:
    with pytest.raises(UsageError, match="candidates are among"):
        ChoosePrecision(candidates=("fp4",))


def test_auto_compiles_and_is_verified(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3)).eval()
    bundle = graphforge.compile(net, torch.randn(1, 3, 24, 24), precision="auto", max_drop=5.0, output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    assert any("is the fastest here that loses at most 5" in note for note in bundle.manifest["notes"])
