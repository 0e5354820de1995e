"""Around every pass in these tests: the graph is verified, and the count of edits is held against what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from graphforge.ir import Model
from graphforge.transform import Instrument, Pass, PassRecord, Pipeline
from graphforge.transform.snapshot import snapshot


@dataclass
class HoldToTheCount:
    """A pass that the rewriter counts no edit of has left the graph as it was."""

    taken: list[tuple[Any, ...]] = field(default_factory=list)

    def before(self, pass_: Pass, model: Model) -> None:
        self.taken = snapshot(model)

    def after(self, pass_: Pass, model: Model, record: PassRecord) -> None:
        if not record.changes:
            assert snapshot(model) == self.taken, f"{pass_.name} edits the graph behind the rewriter's back"


@pytest.fixture(autouse=True)
def _look_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("cost"):  # what looking on costs is not what is measured
        return
    run = Pipeline.run

    def watched(
        self: Pipeline, model: Model, instruments: Sequence[Instrument] = (), *, verify_each: bool = True
    ) -> list[PassRecord]:
        return run(self, model, (HoldToTheCount(), *instruments), verify_each=True)

    monkeypatch.setattr(Pipeline, "run", watched)
