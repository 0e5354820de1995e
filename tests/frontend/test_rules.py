"""The lowering table is filled once, whoever asks first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from graphforge.frontend import rules

if TYPE_CHECKING:
    from _collections_abc import dict_items


class _Met(dict[str, str]):
    """A dict that another thread meets while it is being walked."""

    found: object = None

    def items(self) -> dict_items[str, str]:
        def ask() -> None:
            self.found = rules.lowering_for("prims.abs.default")

        other = threading.Thread(target=ask)
        other.start()
        other.join(0.2)  # it waits for us; were it let in, it would be through by now
        assert self.found is None
        return super().items()


def test_two_threads_that_ask_first_fill_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules.lowering_for("prims.abs.default")
    twins = _Met(rules._TWINS)
    monkeypatch.setattr(rules, "_TABLE", {name: rule for name, rule in rules._TABLE.items() if name not in twins})
    monkeypatch.setattr(rules, "_TWINS", twins)
    monkeypatch.setattr(rules, "_loaded", False)
    assert rules.lowering_for("prims.abs.default") is rules.lowering_for("aten.abs.default")
