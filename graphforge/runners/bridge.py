"""Our runners inside polygraphy: an adapter to its runner base, its Comparator around our comparison, its log quiet.

This module imports polygraphy; import it inside functions only.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator, RunResults
from polygraphy.logger import G_LOGGER

from graphforge.runners.arrays import Array
from graphforge.runners.runner import Runner

__all__ = ["compare_runs", "run_once"]

_lock = threading.Lock()
_quiet_threads = 0
_verbosity_before: Any = None


class Comparison(Protocol):
    """How one output compares, whatever else is known of it."""

    @property
    def name(self) -> str:
        """The output's name."""
        ...

    @property
    def passed(self) -> bool:
        """The verdict."""
        ...


C = TypeVar("C", bound=Comparison)


class _Adapter(BaseRunner):  # type: ignore[misc]  # polygraphy is untyped
    """One of our runners as one of polygraphy's; our runner keeps its session across activations."""

    def __init__(self, runner: Runner, feeds: Mapping[str, Array]) -> None:
        super().__init__(name=runner.name)
        self._ours = runner
        self._feeds = feeds

    def get_input_metadata_impl(self) -> Any:
        return TensorMetadata().from_feed_dict(self._feeds)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        start = time.perf_counter()
        outputs = self._ours.run(feed_dict)
        self.inference_time = time.perf_counter() - start
        return OrderedDict(outputs)


class _Verdict:
    """A comparison as polygraphy wants it: truthy when passed."""

    # polygraphy looks for the other side's output under this name, and computes medians and histograms of both for its
    # log when it finds it; nobody reads that log, and on 64 MB of outputs it costs more than all the rest together.
    output1_name = None

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def __bool__(self) -> bool:
        return self.comparison.passed


def run_once(runner: Runner, feeds: Mapping[str, Array]) -> RunResults:
    """One run through ``Comparator.run``; what the runner raises comes through."""
    with _quiet():
        return Comparator.run([_Adapter(runner, feeds)], data_loader=[OrderedDict(feeds)])


def compare_runs(
    reference: RunResults, artifact: RunResults, compare: Callable[[Mapping[str, Array], Mapping[str, Array]], list[C]]
) -> list[C]:
    """Compare two runs through ``Comparator.compare_accuracy`` with ``compare`` as its comparison function."""
    found: list[C] = []

    def judge(one: Mapping[str, Array], other: Mapping[str, Array]) -> OrderedDict[str, _Verdict]:
        found.extend(compare(one, other))
        return OrderedDict((comparison.name, _Verdict(comparison)) for comparison in found)

    with _quiet():
        Comparator.compare_accuracy([reference, artifact], compare_func=judge)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Polygraphy's log, which all threads share, says nothing until the last of them is through.

    Its own ``G_LOGGER.verbosity`` puts back what it found: of two that overlap, the first to end makes the other talk,
    and the last leaves the log silent for good.
    """
    global _quiet_threads, _verbosity_before
    with _lock:
        if _quiet_threads == 0:
            _verbosity_before = G_LOGGER.module_severity
            G_LOGGER.module_severity = G_LOGGER.CRITICAL
        _quiet_threads += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_threads -= 1
            if _quiet_threads == 0:
                G_LOGGER.module_severity = _verbosity_before
