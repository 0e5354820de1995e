"""Our runners inside polygraphy: an adapter to its runner base, its Comparator around our comparison, its log quiet.

This module imports polygraphy; import it inside functions only.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator, RunResults
from polygraphy.logger import G_LOGGER

from graphforge.runners.arrays import Array
from graphforge.runners.runner import Runner

__all__ = ["compare_runs", "run_once"]


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
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        return Comparator.run([_Adapter(runner, feeds)], data_loader=[OrderedDict(feeds)])


def compare_runs(
    reference: RunResults, artifact: RunResults, compare: Callable[[Mapping[str, Array], Mapping[str, Array]], list[C]]
) -> list[C]:
    """Compare two runs through ``Comparator.compare_accuracy`` with ``compare`` as its comparison function."""
    found: list[C] = []

    def judge(one: Mapping[str, Array], other: Mapping[str, Array]) -> OrderedDict[str, _Verdict]:
        found.extend(compare(one, other))
        return OrderedDict((comparison.name, _Verdict(comparison)) for comparison in found)

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        Comparator.compare_accuracy([reference, artifact], compare_func=judge)
    return found
