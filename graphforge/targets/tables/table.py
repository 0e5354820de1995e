"""A table as it is written: found by the runtime's name or by its path, and the version of the runtime that is here."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError, UsageError

__all__ = ["installed_version", "release_covers", "table_of", "version_numbers"]


@functools.cache
def table_of(name: str) -> dict[str, Any]:
    """The table of a runtime: one of ours by name (``onnxruntime``), or any by the path of its .toml file.

    Raises:
        UsageError: there is no such table.
        GraphForgeError: it is not TOML.
    """
    folder = files("graphforge.targets.tables")
    source = Path(name) if name.endswith(".toml") else folder.joinpath(f"{name}.toml")
    if not source.is_file():
        known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"there is no table of facts {name!r}",
            f"did you mean {close[0]!r}?" if close else "",
            f"known: {', '.join(known)}, or the path of a .toml file",
        )
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise GraphForgeError(f"the table of facts {name} cannot be read: {error}") from None


@functools.cache
def installed_version(*packages: str) -> str | None:
    """Version of the first of these distributions that is installed, None when none is."""
    from importlib import metadata  # a third of the time `graphforge --help` takes, were it imported above

    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def version_numbers(version: str) -> tuple[int, ...]:
    """``1.32.0+cu13`` -> (1, 32, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def release_covers(release: str, version: str) -> bool:
    """Whether an entry for ``1.32``, or ``1.18 to 1.20``, is about this version."""
    low, _, high = release.partition(" to ")
    here = version_numbers(version)
    return version_numbers(low) <= here and here[:2] <= version_numbers(high or low)[:2]
