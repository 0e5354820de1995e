"""Facts of one runtime in the version that is installed: what it reads, computes and is known to get wrong."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from graphforge.targets.tables.forms import Form, forms_of
from graphforge.targets.tables.kernels import Kernels, rows_of
from graphforge.targets.tables.table import installed_version, release_covers, table_of, version_numbers

__all__ = ["Facts", "Fault", "facts_of"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that a runtime is known to get wrong.

    Attributes:
        name: short, for lists.
        effect: what happens.
        since, until: the releases it was seen in, the first and the last; "" where nobody looked further.
        cure: what GraphForge does about it, or what to do; "" when there is nothing.
        seen: what shows it when the table is held against the runtime, ``Relu of NaN``.
    """

    name: str
    effect: str
    since: str
    until: str
    cure: str = ""
    seen: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line."""
        return f"{self.name}: {self.effect}" + (f" ({self.cure})" if self.cure else "")


@dataclass(frozen=True, slots=True)
class Facts:
    """One release of a runtime.

    Attributes:
        name: of the table.
        title: what people call the runtime.
        version: that is installed; None when it is not, and the facts are those of the newest release known.
        release: the entry of the table that speaks for it.
        newest_opset: of the default domain that it reads.
        newest_ir_version: of ONNX files that it reads; None when nobody measured it.
        kernels: element types by operator.
        without_kernel: operator -> the version of it from which on there is no kernel, whatever the element type.
        forms: operators that it does better, or only, in another form: all of them, or those that look a certain way.
        faults: what it is known to get wrong.
        note: where the table does not quite speak of the version that is installed; "" where it does.
    """

    name: str
    title: str
    version: str | None
    release: str
    newest_opset: int
    newest_ir_version: int | None = None
    kernels: Kernels = field(default_factory=Kernels)
    without_kernel: Mapping[str, int] = field(default_factory=dict)
    forms: tuple[Form, ...] = ()
    faults: tuple[Fault, ...] = ()
    note: str = ""

    @property
    def called(self) -> str:
        """``ONNX Runtime 1.32.0``, for messages."""
        return f"{self.title} {self.version or self.release}"


def facts_of(name: str, version: str | None = None) -> Facts:
    """The facts of a runtime in the version that is installed, or in another.

    The entry of a version that the table does not know is the newest one below it.

    Args:
        name: one of our tables, or the path of a .toml file.
        version: of the runtime; None is the one installed.

    Raises:
        UsageError: there is no such table.
        GraphForgeError: the table is malformed.
    """
    if version is None:
        version = installed_version(*table_of(name).get("packages", "").split())
    return _facts(name, version)


@functools.cache
def _facts(name: str, version: str | None) -> Facts:
    table = table_of(name)
    releases: list[dict[str, Any]] = sorted(table.get("release", [{}]), key=_first)
    here = releases[-1] if version is None else _entry(releases, version)
    rows: dict[str, frozenset[ir.DataType]] = {}
    for release in releases[: releases.index(here) + 1]:
        rows.update(rows_of(release.get("kernels", {})))
    note = ""
    if not rows and any("kernels" in release for release in releases):
        # an older release than was measured: the oldest measurement is the nearest
        rows.update(rows_of(next(release for release in releases if "kernels" in release)["kernels"]))
    measured = here.get("version", "")
    if version is not None and measured and not release_covers(measured, version):
        note = (
            f"{table['title']} {version} is installed, the table of facts knows releases up to "
            f"{releases[-1]['version']}: what is said of {measured} is taken to hold"
        )
    return Facts(
        name=name,
        title=table["title"],
        version=version,
        release=measured,
        newest_opset=here.get("newest_opset", table.get("newest_opset", 0)),
        newest_ir_version=here.get("newest_ir_version", table.get("newest_ir_version")),
        kernels=Kernels(rows),
        without_kernel=here.get("missing", {}),
        forms=tuple(
            form
            for written, form in forms_of(name, table.get("form", ()))
            if version is None or _holds(written.get("since", ""), written.get("until", ""), version)
        ),
        faults=tuple(
            fault
            for fault in (
                Fault(**{"until": "", "since": "", **written, "seen": tuple(written.get("seen", ()))})
                for written in table.get("fault", ())
            )
            if version is None or _holds(fault.since, fault.until, version)
        ),
        note=note,
    )


def _first(release: Mapping[str, Any]) -> tuple[int, ...]:
    return version_numbers(release.get("version", "0").partition(" to ")[0])


def _entry(releases: list[dict[str, Any]], version: str) -> dict[str, Any]:
    """The newest entry that begins at the version or below it; the oldest where all begin above."""
    here = version_numbers(version)
    return next((release for release in reversed(releases) if _first(release) <= here), releases[0])


def _holds(since: str, until: str, version: str) -> bool:
    """A fault holds until a release is known without it."""
    here = version_numbers(version)[:2]
    return (not since or version_numbers(since)[:2] <= here) and (not until or here <= version_numbers(until)[:2])
