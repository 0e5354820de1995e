"""Random graphs through the default pipeline, each pass checked in ONNX Runtime, dynamic dims at a second size too."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import Model
from graphforge.passes import default_pipeline
from graphforge.transform import Pipeline, VerifyGraph
from graphforge.verify import NumericCheck, compare_outputs
from graphforge.verify.numeric_check import feeds_for, run_as_written
from tests.passes.harness import STRICT
from tests.passes.random_graphs import random_model

EXAMPLE = {"N": 2, "H": 5, "M": 4}
OTHER = {"N": 3, "H": 7, "M": 6}


def results_at(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """What the model computes, None when it does not run with these sizes."""
    try:
        return run_as_written(model, feeds)
    except GraphForgeError:
        return None


@pytest.mark.parametrize("seed", range(40))
def test_results_stay(seed: int) -> None:
    dynamic = bool(seed % 2)
    model = random_model(seed, dynamic=dynamic, steps=40)
    Pipeline(default_pipeline()).run(
        model, [VerifyGraph(), NumericCheck(feeds_for(model, EXAMPLE, seed=seed), tolerances=STRICT)]
    )
    assert [record.name for record in Pipeline(default_pipeline()).run(model) if record.changes] == []
    if not dynamic:
        return
    feeds = feeds_for(model, OTHER, seed=seed)
    expected = results_at(random_model(seed, dynamic=True, steps=40), feeds)
    if expected is None:
        return  # the graph itself allows no other sizes: it reshapes to a number
    found = run_as_written(model, feeds)
    tolerances = STRICT.loosen(because="both compute it", allow_nonfinite=True)
    assert [one.reason for one in compare_outputs(expected, found, tolerances) if not one.passed] == []


def test_the_random_graphs_are_worth_it() -> None:
    fired: set[str] = set()
    for seed in range(100):
        records = Pipeline(default_pipeline()).run(random_model(seed, dynamic=bool(seed % 2), steps=60))
        fired.update(record.name for record in records if record.changes)
    assert fired >= {
        "remove-identities", "fold-constants", "fold-batch-norm", "fold-scale-into-weights", "fuse-pad-into-conv",
        "merge-transposes", "merge-reshapes", "simplify-shapes", "fuse-matmul-add", "eliminate-dead-code",
    }  # fmt: skip
