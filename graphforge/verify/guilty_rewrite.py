"""Which rewrite of a pass did it: the pass is run again and again on the graph before it, ended ever closer behind one.

A rewrite is a rule that fired, a node that was replaced, or an edit for itself (an attribute, an input, a constant).  A
graph that does not run in the middle of a pass's work is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.transform import Pass
    from graphforge.transform.rewrites import Rewrite

__all__ = ["GuiltyRewrite", "find_rewrite"]

# Each run is the pass and the graph once; a graph that never runs in between is not searched for ever.
_MOST_RUNS = 60

# What became of a graph: agrees, departs, or does not run; and how it departs.
Judge = Callable[["ir.Model"], tuple[bool, str, bool]]
# The first value that departs between two graphs, and how.
FirstDeparture = Callable[["ir.Model", "ir.Model"], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class GuiltyRewrite:
    """The first rewrite after which the graph departs.

    Attributes:
        rewrite: what was done where.
        total: how many rewrites the pass makes.
        departs: how the graph departs behind it.
        runs: how many times the pass was run to find it.
        exact: the graph before this rewrite was seen to agree; False where it did not run there, so that an earlier
            one may have had a part in it.
        by_value: the first value that departs between the graphs in front of the pass and behind it, where the rewrite
            was found by that: the graph does not run between its rewrites.
    """

    rewrite: Rewrite
    total: int
    departs: str
    runs: int
    exact: bool
    by_value: str = ""

    def describe(self, *, but_for: str = "") -> str:
        """The rewrite, in one line; without what departs, where a text that says so stands before it."""
        found = f"{self.rewrite.describe()} (of {self.total})"
        found += "" if but_for.endswith(self.departs) else f": {self.departs}"
        if self.by_value:
            return f"{found}; found by value {self.by_value!r}, since the graph does not run between the rewrites"
        return found if self.exact else f"{found}; the graph does not run between it and the one that still agreed"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            **self.rewrite.to_dict(),
            "total": self.total,
            "departs": self.departs,
            "runs": self.runs,
            "exact": self.exact,
            "by_value": self.by_value,
        }


def find_rewrite(
    pass_: Pass, model: ir.Model, judge: Judge, first_departure: FirstDeparture | None = None
) -> GuiltyRewrite | None:
    """The first rewrite of a pass behind which the graph departs; None where the pass edits the graph behind our back.

    Args:
        pass_: the pass.
        model: the graph before it, which agrees; left as it is.
        judge: says of a graph whether it agrees, how it departs, and whether it runs at all.
        first_departure: given the graphs in front of the pass and behind it, the first value of one name that departs,
            and how; asked where the graph does not run in between.
    """
    from graphforge.transform import Pipeline
    from graphforge.transform.rewrites import RewriteLog

    log = RewriteLog()
    whole = model.clone()
    Pipeline([pass_]).run(whole, [log])
    _, departs, runs_at_all = judge(whole)
    replay = _Replay(pass_, model, judge, dead_is_bad=not runs_at_all)
    if not log.rewrites:
        return None
    place, exact = replay.first_bad([one.last for one in log.rewrites])
    found = log.rewrites[place]
    if not exact and first_departure is not None:
        value, how = first_departure(model, whole)
        by_value = [one for one in log.rewrites if value and value in one.names]
        if by_value:
            return GuiltyRewrite(by_value[-1], len(log.rewrites), how, replay.runs, exact, value)
    return GuiltyRewrite(found, len(log.rewrites), replay.found.get(found.last, departs), replay.runs, exact)


class _Replay:
    """The pass run up to some edit of it."""

    def __init__(self, pass_: Pass, model: ir.Model, judge: Judge, *, dead_is_bad: bool) -> None:
        self.pass_ = pass_
        self.model = model
        self.judge = judge
        self.dead_is_bad = dead_is_bad
        self.runs = 0
        self.found: dict[int, str] = {}
        self._known: dict[int, bool | None] = {}

    def first_bad(self, ends: Sequence[int]) -> tuple[int, bool]:
        """Place of the first end behind which the graph departs, and whether it agreed right before.

        Behind the last one it departs.
        """
        good, bad = -1, len(ends) - 1
        while bad - good > 1:
            middle = (good + bad) // 2
            tried = next(
                (
                    place
                    for place in (*range(middle, bad), *range(middle - 1, good, -1))
                    if self._agrees(ends[place]) is not None
                ),
                None,
            )
            if tried is None:
                return bad, False
            if self._agrees(ends[tried]):
                good = tried
            else:
                bad = tried
        return bad, True

    def _agrees(self, end: int) -> bool | None:
        """Whether the graph behind an edit agrees; None where it does not run."""
        from graphforge.errors import GraphForgeError
        from graphforge.transform import Pipeline
        from graphforge.transform.rewrites import RewriteLog, stopped_early

        if end not in self._known:
            if self.runs >= _MOST_RUNS:
                return None
            self.runs += 1
            model = self.model.clone()
            try:
                with stopped_early():
                    Pipeline([self.pass_]).run(model, [RewriteLog(stop_after=end, texts=False)])
                model.graph.sort()  # in the middle of its work a pass may have nodes in any order
                agrees, departs, runs = self.judge(model)
            except GraphForgeError as error:
                agrees, departs, runs = False, error.message, False
            self._known[end] = agrees if runs or self.dead_is_bad else None
            self.found[end] = departs
        return self._known[end]
