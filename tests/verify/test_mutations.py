"""A small part of `scripts/bench mutations`: what is wrong fails, and what is untouched passes."""

from __future__ import annotations

import pytest

from scripts.bench_mutations import MUST_FAIL, judged, table_of


@pytest.mark.parametrize("network", ["digits_mlp", "mobile_block", "quantiser", "warp", "half_inside"])
def test_faults_fail_and_the_untouched_file_passes(network: str) -> None:
    untouched, *faults = judged(network, faults=7, seed=1)
    assert untouched.verdict == "passed"
    strong = [one for one in faults if one.effect > MUST_FAIL]
    assert len(strong) >= 2
    assert [one for one in strong if one.verdict != "failed"] == []
    assert f"| {network}" in table_of([untouched, *faults])
