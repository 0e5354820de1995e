"""Histogram: numbers in pieces give what they give at once."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.ranges import Histogram


def test_pieces_give_the_same_counts_as_the_whole() -> None:
    numbers = np.random.default_rng(0).normal(0, 3, 20_000)
    whole, pieces = Histogram(), Histogram()
    whole.add(numbers)
    for piece in np.split(np.sort(np.abs(numbers)) * np.sign(numbers), 40):  # the reach doubles again and again
        pieces.add(piece)
    assert whole.reach == pieces.reach
    for one in (whole, pieces):
        assert int(one.counts.sum()) == numbers.size


def test_doubling_moves_every_number_into_the_bin_that_it_has_at_once() -> None:
    numbers = np.random.default_rng(1).uniform(-1, 1, 5_000)
    once, twice = Histogram(), Histogram()
    once.add(np.concatenate([numbers, [100.0]]))
    twice.add(numbers)
    twice.add(np.array([100.0]))
    assert np.array_equal(once.counts, twice.counts)


@pytest.mark.parametrize("share", [0.99, 0.999])
def test_within_leaves_the_ends_out(share: float) -> None:
    numbers = np.random.default_rng(2).normal(0, 1, 200_000)
    histogram = Histogram()
    histogram.add(numbers)
    low, high = histogram.within(share)
    wanted = np.quantile(numbers, [(1 - share) / 2, (1 + share) / 2])
    assert np.allclose([low, high], wanted, atol=2 * histogram.width)


def test_nothing_but_zeros_and_then_numbers() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(10))
    histogram.add(np.array([0.5, -3.0]))
    assert histogram.reach == 4.0
    assert int(histogram.counts.sum()) == 12
    assert histogram.within(1.0) == pytest.approx((-3.0, 0.5), abs=histogram.width)
