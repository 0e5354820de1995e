"""A small part of `scripts/bench sabotage`: faults are named, and what is right is not blamed."""

from __future__ import annotations

import pytest

from scripts.bench_sabotage import judged, table_of


@pytest.mark.parametrize("network", ["functional", "bert", "digit_detector (padded)"])
def test_faults_are_named_and_what_is_right_is_not_blamed(network: str) -> None:
    found = list(judged(network, faults=4, seed=2, controls=("untouched", "without metadata")))
    controls, faults = found[:2], found[2:]
    assert [one.state for one in controls] == ["clean", "clean"]
    assert len(faults) == 4
    assert [one for one in faults if one.state != "named"] == []
    assert [one for one in faults if not (one.module and one.line and one.node)] == []
    assert f"| {network} | 2 of 2 | 4 | 4 | 4 | 0 | 0 |" in table_of(found)
