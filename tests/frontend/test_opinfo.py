"""Every lowering against eager on torch's own samples: a seeded part here, all of them in scripts/bench_opinfo.py."""

from __future__ import annotations

import random
import zlib

import pytest
import torch

from graphforge.frontend.rules import lowered_operators
from tests.frontend.opinfo import DTYPES, Result, Sample, Status, check, entries, samples
from tests.frontend.opinfo_coverage import (
    EXEMPTIONS,
    TABLE,
    covered_operators,
    exemption_of,
    is_by_design,
    outside_entries,
)
from tests.frontend.test_by_hand import CASES, ELSEWHERE

_ENTRIES = entries()
_SAMPLES = 2  # for each dtype looked at
_FAILED = (Status.WRONG, Status.BROKEN, Status.REFUSED)


def _supported(name: str) -> list[torch.dtype]:
    return [dtype for dtype in DTYPES if _ENTRIES[name].supports_dtype(dtype, "cpu")]


def _dtypes(name: str) -> list[torch.dtype]:
    """float32, and one other of those that the entry takes, by a fixed draw."""
    supported = _supported(name)
    picker = random.Random(zlib.crc32(name.encode()))
    return [*supported[:1], *picker.sample(supported[1:], min(1, len(supported) - 1))]


@pytest.mark.parametrize("name", sorted(name for name in set(_ENTRIES) - outside_entries() if _supported(name)))
def test_samples_agree_with_eager(name: str) -> None:
    torch.set_num_threads(1)
    failures = []
    for dtype in _dtypes(name):
        for sample in samples(name, _ENTRIES[name], dtype, limit=_SAMPLES):
            failures += _complaints(sample, check(sample))
    assert not failures, "\n".join(failures)


def _complaints(sample: Sample, result: Result) -> list[str]:
    exemption = exemption_of(sample, result)
    if exemption is not None:
        if exemption.samples and result.status is Status.PASSED:
            return [f"{sample.name}: exempted ({exemption.reason}), but passes now: remove the exemption"]
        return []
    if result.status in _FAILED and not is_by_design(result):
        return [f"{sample.name}: {result.status.value}: {result.reason}"]
    return []


@pytest.mark.skipif(not TABLE.exists(), reason=f"{TABLE.name} is missing: scripts/bench opinfo writes it")
def test_every_lowering_is_exercised() -> None:
    covered = covered_operators()
    idle = [
        name for name in lowered_operators() if not covered.get(name) and name not in CASES and name not in ELSEWHERE
    ]
    assert not idle, (
        f"no OpInfo sample passes through {', '.join(idle)}, and tests/frontend/test_by_hand.py has none either: "
        "add one, or run scripts/bench_opinfo.py if samples reach them now"
    )


def test_exemptions_have_reasons_and_name_entries() -> None:
    import fnmatch

    for exemption in EXEMPTIONS:
        assert len(exemption.reason) > 20, exemption
        assert fnmatch.filter(_ENTRIES, exemption.entry), f"no OpInfo entry is called {exemption.entry}"
