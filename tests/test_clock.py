"""A model that gives up after so many seconds gives the same on a slow machine: the clock stands while it runs."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor

from graphforge.clock import standing_clock
from graphforge.runners.eager import EagerRunner
from tests.frontend.helpers import lower_and_compare


class Impatient(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        begun = time.time()
        for _ in range(3):
            x = x + 1
            time.sleep(0.01)
            if time.time() - begun > 0.005:
                break
        return x


def test_time_stands_in_all_threads_and_goes_on_afterwards() -> None:
    seen: list[float] = []
    going = time.time
    with standing_clock():
        first = time.time()
        with standing_clock():
            other = threading.Thread(target=lambda: seen.append(time.time()))
            other.start()
            other.join()
        time.sleep(0.01)
        assert time.time() == first == seen[0]
    assert time.time is going
    assert time.time() > first


def test_it_goes_on_after_an_exception() -> None:
    going = time.time
    with pytest.raises(ValueError, match="none"), standing_clock():
        raise ValueError("none")
    assert time.time is going


def test_a_limit_in_seconds_is_reached_neither_in_a_capture_nor_in_the_reference() -> None:
    x = torch.zeros(2)
    assert float(Impatient()(x)[0]) == 1
    runner = EagerRunner.of(Impatient(), (x,))
    (result,) = runner.run(runner.example()).values()
    assert float(result[0]) == 3
    with standing_clock():
        assert lower_and_compare(Impatient(), (x,)).counts["Add"] == 3
