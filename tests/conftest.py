"""What every test shares: one thread, so that runs are quiet and repeatable, and no GPU test without a GPU."""

from __future__ import annotations

import os

# before numpy, torch or ONNX Runtime start their pools; subprocesses inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys

import pytest


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """torch that is already loaded computes on one thread."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


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
