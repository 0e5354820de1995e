"""Polygraphy's log is quiet while we use it, and as it was afterwards."""

from __future__ import annotations

import pytest
from polygraphy.logger import G_LOGGER

from graphforge.runners.bridge import _quiet


def test_two_threads_that_overlap_leave_the_log_as_they_found_it(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _quiet(), _quiet()
    with G_LOGGER.verbosity(G_LOGGER.INFO):
        first.__enter__()
        second.__enter__()
        G_LOGGER.warning("said while both run")
        first.__exit__(None, None, None)
        G_LOGGER.warning("said while one runs")
        second.__exit__(None, None, None)
        G_LOGGER.warning("said afterwards")
    told = capsys.readouterr()
    assert "afterwards" in told.out + told.err
    assert "said while" not in told.out + told.err
