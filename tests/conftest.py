"""What every test shares: one thread, so that runs are quiet and repeatable, and no GPU test without a GPU."""

from __future__ import annotations

import os

# before numpy, torch or ONNX Runtime start their pools; subprocesses inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from graphforge.errors import GraphForgeError

# A refusal is to fit a screen; the same number as `graphforge.hushed.MOST_LINES`.
MOST_LINES = 25


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """torch that is already loaded computes on one thread."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _refusals_fit_a_screen(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every refusal that a test provokes has at most ``MOST_LINES`` lines; GRAPHFORGE_MESSAGES=FILE collects them."""
    provoked: list[GraphForgeError] = []
    initialise = GraphForgeError.__init__

    def remembered(error: GraphForgeError, *given: Any) -> None:
        initialise(error, *given)
        provoked.append(error)

    monkeypatch.setattr(GraphForgeError, "__init__", remembered)
    yield
    told = [str(error) for error in provoked]
    file = os.environ.get("GRAPHFORGE_MESSAGES")
    if file:
        with open(file, "a", encoding="utf-8") as collected:
            for text in dict.fromkeys(told):
                collected.write(json.dumps([text.count("\n") + 1, request.node.nodeid, text]) + "\n")
    for text in told:
        assert text.count("\n") < MOST_LINES, text


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
