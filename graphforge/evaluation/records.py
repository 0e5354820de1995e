"""Records of samples that are done, in a file of one JSON line each, so that a run that ended early goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from graphforge.doors import text_of
from graphforge.errors import GraphForgeError

__all__ = ["Records"]


class Records:
    """The records of one side, by the name of the sample; used in a ``with`` block.

    Args:
        path: the file, which may hold those of an earlier run; None keeps none.
        about: what is evaluated with what; an earlier run of something else is refused.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = dict(about)
        self.done: dict[str, Any] = {}
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        lines = text_of(self.path).splitlines(keepends=True) if self.path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]  # what a killed run left half is done again
        if whole:
            self._read(whole)
        try:
            self.path.write_text("".join([*(whole or [json.dumps({"about": self.about}) + "\n"])]), encoding="utf-8")
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise GraphForgeError(f"cannot write {str(self.path)!r}: {error.strerror or error}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, name: str, record: Any) -> None:
        """One more that is done."""
        self.done[name] = record
        if self._file is not None:
            self._file.write(json.dumps([name, record]) + "\n")
            self._file.flush()

    def _read(self, lines: list[str]) -> None:
        try:
            head, *rest = (json.loads(line) for line in lines)
            about = head["about"]
            self.done = dict(rest)
        except (ValueError, TypeError, KeyError):
            raise GraphForgeError(
                f"{str(self.path)!r} is not a file of records", "give another place, or remove it"
            ) from None
        different = [key for key in self.about if about.get(key) != self.about[key]]
        if different:
            key = different[0]
            raise GraphForgeError(
                f"{str(self.path)!r} is of another run: {key} was {about.get(key)!r} and is {self.about[key]!r}",
                "give another place, or remove it",
            )
