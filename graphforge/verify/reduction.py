"""The fewest nodes of a graph that still fail: ends are cut off by halves, then what stands between is left out.

First the nodes behind the failure go, then those in front of it, about log2(n) runs each; what is left is thinned out
by delta debugging (Zeller and Hildebrandt) until no single node can go any more.  Every step is a part that was seen to
fail, so the answer fails whatever the search took for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

__all__ = ["Reduced", "reduce_nodes"]


@dataclass(frozen=True, slots=True)
class Reduced:
    """The answer.

    Attributes:
        nodes: places of the nodes that fail together.
        runs: how many parts were tried.
        complete: no single node of them can go; False where the runs were used up before.
    """

    nodes: tuple[int, ...]
    runs: int
    complete: bool


class _OutOfRuns(Exception):
    """No more runs are allowed."""


def reduce_nodes(
    count: int,
    fails: Callable[[Collection[int]], bool],
    *,
    most_runs: int = 500,
    progress: Callable[[int, int], None] | None = None,
) -> Reduced:
    """Find the fewest of ``count`` nodes that still fail together.

    Args:
        count: the nodes are 0 to ``count`` - 1, in the order of the data; all of them together fail.
        fails: whether some of them do.
        most_runs: how many parts are tried at most.
        progress: told how many nodes are left and how many runs there were.
    """
    search = _Search(fails, most_runs, progress)
    nodes = tuple(range(count))
    try:
        nodes = search.cut_end(nodes)
        nodes = search.cut_start(nodes)
        nodes = search.thin_out(nodes)
    except _OutOfRuns:
        return Reduced(search.best or nodes, search.runs, complete=False)
    return Reduced(nodes, search.runs, complete=True)


class _Search:
    """The parts tried so far."""

    def __init__(
        self,
        fails: Callable[[Collection[int]], bool],
        most_runs: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.fails = fails
        self.most_runs = most_runs
        self.progress = progress
        self.runs = 0
        self.best: tuple[int, ...] = ()
        self._known: dict[tuple[int, ...], bool] = {}

    def cut_end(self, nodes: tuple[int, ...]) -> tuple[int, ...]:
        """The shortest beginning that fails, as far as halving finds it."""
        good, bad = 0, len(nodes)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self.try_(nodes[:middle]):
                bad = middle
            else:
                good = middle
        return nodes[:bad]

    def cut_start(self, nodes: tuple[int, ...]) -> tuple[int, ...]:
        """The shortest end that fails."""
        bad, good = 0, len(nodes)
        while good - bad > 1:
            middle = (good + bad) // 2
            if self.try_(nodes[middle:]):
                bad = middle
            else:
                good = middle
        return nodes[bad:]

    def thin_out(self, nodes: tuple[int, ...]) -> tuple[int, ...]:
        """Leave out ever smaller pieces."""
        pieces = 2
        while len(nodes) > 1:
            pieces = min(pieces, len(nodes))
            for start, end in _pieces(len(nodes), pieces):
                rest = nodes[:start] + nodes[end:]
                if rest and self.try_(rest):
                    nodes, pieces = rest, max(pieces - 1, 2)
                    break
            else:
                if pieces == len(nodes):
                    break
                pieces *= 2
        return nodes

    def try_(self, nodes: tuple[int, ...]) -> bool:
        if nodes not in self._known:
            if self.runs >= self.most_runs:
                raise _OutOfRuns
            self.runs += 1
            self._known[nodes] = self.fails(nodes)
            if self._known[nodes] and (not self.best or len(nodes) < len(self.best)):
                self.best = nodes
            if self.progress is not None:
                self.progress(len(self.best or nodes), self.runs)
        return self._known[nodes]


def _pieces(length: int, pieces: int) -> Sequence[tuple[int, int]]:
    """The borders of so many pieces of about one length."""
    return [(length * place // pieces, length * (place + 1) // pieces) for place in range(pieces)]
