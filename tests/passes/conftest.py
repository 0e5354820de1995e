"""Around every pass in these tests the graph is verified, before and after, ours included."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graphforge.ir import Model
from graphforge.transform import Instrument, PassRecord, Pipeline


@pytest.fixture(autouse=True)
def _verify_around_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pipeline.run

    def verified(
        self: Pipeline, model: Model, instruments: Sequence[Instrument] = (), *, verify_each: bool = True
    ) -> list[PassRecord]:
        return run(self, model, instruments, verify_each=True)

    monkeypatch.setattr(Pipeline, "run", verified)
