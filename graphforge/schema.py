"""Data from outside held against a description of it, once, where it enters; a fault is told with its place.

``Record({"name": TEXT, "shape": Several(SIZE)})`` describes ``{"name": "x", "shape": [1, 3]}``; the fault of another
one reads ``inputs[0].shape[1]: expected a size, got "three"``.  Keys that are not described are left alone, so that a
newer writer may add some.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from graphforge.doors import text_of
from graphforge.errors import GraphForgeError

__all__ = [
    "ANYTHING",
    "COUNT",
    "FILE",
    "FLAG",
    "NUMBER",
    "SIZE",
    "TEXT",
    "Description",
    "Either",
    "Named",
    "Record",
    "Several",
    "one_of",
    "read_json",
]

_MAX_SIZE = (1 << 63) - 1
_MAX_SHOWN = 60


class Description(Protocol):
    """What data must look like."""

    def fault(self, data: Any, place: str) -> str:
        """What is wrong with the data at this place, "" when nothing."""
        ...


@dataclass(frozen=True, slots=True)
class _Leaf:
    words: str
    holds: Callable[[Any], bool]

    def fault(self, data: Any, place: str) -> str:
        return "" if self.holds(data) else f"{place}: expected {self.words}, got {_shown(data)}"


@dataclass(frozen=True, slots=True)
class Several:
    """A list of one kind of thing."""

    each: Description

    def fault(self, data: Any, place: str) -> str:
        """As every description."""
        if not isinstance(data, list):
            return f"{place}: expected a list, got {_shown(data)}"
        return next((bad for at, one in enumerate(data) if (bad := self.each.fault(one, f"{place}[{at}]"))), "")


@dataclass(frozen=True, slots=True)
class Named:
    """Things of one kind by names that are free."""

    each: Description

    def fault(self, data: Any, place: str) -> str:
        """As every description."""
        if not isinstance(data, dict):
            return f"{place}: expected an object, got {_shown(data)}"
        return next((bad for key, one in data.items() if (bad := self.each.fault(one, f"{place}.{key}"))), "")


@dataclass(frozen=True, slots=True)
class Record:
    """An object with keys that must be there, and others that may."""

    required: Mapping[str, Description]
    optional: Mapping[str, Description] = field(default_factory=dict)

    def fault(self, data: Any, place: str) -> str:
        """As every description."""
        if not isinstance(data, dict):
            return f"{place or 'the whole'}: expected an object, got {_shown(data)}"
        gone = next((key for key in self.required if key not in data), None)
        if gone is not None:
            return f"{place or 'the whole'}: {gone!r} is missing"
        for key, described in (*self.required.items(), *self.optional.items()):
            bad = described.fault(data[key], f"{place}.{key}".lstrip(".")) if key in data else ""
            if bad:
                return bad
        return ""


@dataclass(frozen=True, slots=True)
class Either:
    """None, or what is described."""

    described: Description

    def fault(self, data: Any, place: str) -> str:
        """As every description."""
        return "" if data is None else self.described.fault(data, place)


def _is_count(data: Any) -> bool:
    return isinstance(data, int) and not isinstance(data, bool) and 0 <= data <= _MAX_SIZE


def _is_number(data: Any) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool) and math.isfinite(data) and abs(data) < 1e300


def _is_file(data: Any) -> bool:
    """A path that stays below the folder it is taken from, on every system."""
    if not isinstance(data, str) or not 0 < len(data) < 1000 or any(character in data for character in "\0\\:"):
        return False
    path = PurePosixPath(data)
    return not path.is_absolute() and ".." not in path.parts and all(len(part) < 256 for part in path.parts)


TEXT = _Leaf("text", lambda data: isinstance(data, str))
FLAG = _Leaf("true or false", lambda data: isinstance(data, bool))
COUNT = _Leaf("a whole number", _is_count)
SIZE = _Leaf("a size", _is_count)
NUMBER = _Leaf("a number", _is_number)
FILE = _Leaf("the name of a file in the folder", _is_file)
ANYTHING = _Leaf("anything", lambda data: True)


def one_of(words: str, allowed: Callable[[Any], bool]) -> Description:
    """A custom leaf: how it is called, and what is one."""
    return _Leaf(words, allowed)


def read_json(path: Path, what: str, way_out: str) -> Any:
    """The data of a JSON file.

    Args:
        path: the file.
        what: what it should be, ``the manifest of a bundle``.
        way_out: the note of an error.

    Raises:
        GraphForgeError: it cannot be read, or is not JSON.
    """
    try:
        if path.exists() and not path.is_file():
            raise GraphForgeError(f"{str(path)!r} is not {what}: it is not a file", way_out)
        data = json.loads(text_of(path))
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is JSON and cannot be printed
    except OSError as error:
        raise GraphForgeError(f"{str(path)!r} cannot be read: {error.strerror or error}", way_out) from None
    except RecursionError:
        raise GraphForgeError(f"{str(path)!r} is not {what}: it is nested too deeply", way_out) from None
    except ValueError as error:
        raise GraphForgeError(f"{str(path)!r} is not {what}: {error}"[:500], way_out) from None
    return data


def _shown(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ..."
