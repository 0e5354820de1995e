"""A plugin of pytest: the longest messages among all errors that the tests made, printed at the end to be looked at.

    python -m pytest -p scripts.longest_messages tests/frontend tests/verify
    LONGEST=10 COLUMNS=120 python -m pytest ...          # so many, in a terminal of so many columns

A message counts as the lines that it takes in the terminal, its notes included, before the command line cuts it to a
screen.  The summary says how many are longer than the screen that is promised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from graphforge.errors import GraphForgeError
from graphforge.hushed import MOST_LINES

_COLUMNS = int(os.environ.get("COLUMNS", "120"))
_SHOWN = int(os.environ.get("LONGEST", "10"))

# Message -> the first test that made it.
_seen: dict[str, str] = {}
_made: list[GraphForgeError] = []


def pytest_configure() -> None:
    """Keep every error that is made."""
    error: Any = GraphForgeError
    make = error.__init__

    def made(self: GraphForgeError, *told: str) -> None:
        make(self, *told)
        _made.append(self)

    error.__init__ = made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Read the errors after each test, when their notes are complete."""
    yield
    for error in _made:
        _seen.setdefault(str(error), item.nodeid)
    _made.clear()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The longest ones, and how many there are."""
    ranked = sorted(_seen, key=lines, reverse=True)
    over = sum(lines(text) > MOST_LINES for text in ranked)
    terminalreporter.section(f"{len(ranked)} messages, {over} longer than {MOST_LINES} lines of {_COLUMNS} columns")
    for text in ranked[:_SHOWN]:
        terminalreporter.write_line(f"-- {lines(text)} lines, {_seen[text]}")
        terminalreporter.write_line(text)


def lines(text: str) -> int:
    """How many lines a message takes in the terminal."""
    return sum(max(1, -(-len(line) // _COLUMNS)) for line in text.splitlines())
