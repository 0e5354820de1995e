"""What foreign code is at work, written where it can be read when that code ends the whole process.

A segmentation fault in a vendor's library leaves no exception.  Before a vendor is called, its name and what it is
asked to do go into a page that is shared with the process that watches this one (`cli/supervisor.py`).
"""

from __future__ import annotations

import json
import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "entering",
    "is_inside_staged",
    "is_overdue",
    "is_watched",
    "kept",
    "last_step",
    "lowered",
    "lowering",
    "share",
    "staged",
    "version_of",
    "within",
]

PAGE_BYTES = 8192
_HALF = PAGE_BYTES // 2
_DEADLINE = PAGE_BYTES - 8  # the end of the page: when what is at work must be done, 0 where nothing says
_page: mmap.mmap | None = None
# How much of ONNX Runtime's optimization is left out after it died of it (a place in ``LEVELS`` of
# ``runners/session.py``), and why.
_lowered: ContextVar[tuple[int, str]] = ContextVar("graphforge lowered", default=(0, ""))


def share(page: mmap.mmap) -> None:
    """Write into this page from now on."""
    global _page
    _page = page


def entering(vendor: str, what: str, file: Path | None = None) -> None:
    """A vendor is about to be called.

    Args:
        vendor: its package, as installed.
        what: what it is asked to do, ``load model.onnx``.
        file: what it is given, worth keeping when it dies.
    """
    if _page is not None:
        _write(0, {"vendor": vendor, "what": what, "file": None if file is None else str(file.absolute())})


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is called in a block has so long; behind that, whoever watches ends the process."""
    if _page is None:
        yield
        return
    _page[_DEADLINE:] = struct.pack("d", time.monotonic() + seconds)
    try:
        yield
    finally:
        _page[_DEADLINE:] = bytes(8)


def is_overdue(page: mmap.mmap) -> bool:
    """Whether what is at work has gone over its time."""
    (deadline,) = struct.unpack("d", page[_DEADLINE:])
    return bool(0 < deadline < time.monotonic())


def staged(folder: Path | None) -> None:
    """The folder that is being written aside; None when it is in its place."""
    if _page is not None:
        _write(_HALF, {"folder": None if folder is None else str(folder.absolute())})


def is_inside_staged(folder: Path) -> bool:
    """Whether a folder lies in the one that is being written aside, and goes with it."""
    outer = None if _page is None else _read(_page, _HALF).get("folder")
    return outer is not None and folder.absolute().is_relative_to(outer)


def last_step(page: mmap.mmap) -> dict[str, Any]:
    """What stands in a page: ``vendor``, ``version``, ``what``, ``file``, ``folder``, as far as they are known."""
    found = {**_read(page, 0), **_read(page, _HALF)}
    if found.get("vendor"):
        found["version"] = version_of(found["vendor"])
    return found


def is_watched() -> bool:
    """Whether another process watches this one, so that a crash of foreign code is told."""
    return _page is not None


def kept(file: Path) -> Path:
    """A file that a vendor died of, in a folder that stays: copied, its external data too, where its own may go."""
    import shutil
    import tempfile

    if not file.absolute().is_relative_to(tempfile.gettempdir()) and not any(
        part.startswith(".") for part in file.parts[:-1]
    ):
        return file
    try:
        folder = Path(tempfile.mkdtemp(prefix="graphforge-crash-"))
        for one in (file, file.with_name(file.name + ".data")):
            if one.is_file():
                shutil.copy2(one, folder / one.name)
    except OSError:
        return file
    return folder / file.name


def version_of(package: str) -> str:
    """The version of an installed package, "" when it is not known."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def lowered() -> tuple[int, str]:
    """How much of ONNX Runtime's optimization is left out, and why."""
    return _lowered.get()


@contextmanager
def lowering(steps: int, because: str) -> Iterator[None]:
    """Leave out so much of it for a block."""
    token = _lowered.set((steps, because))
    try:
        yield
    finally:
        _lowered.reset(token)


def _write(at: int, entry: dict[str, Any]) -> None:
    assert _page is not None
    content = json.dumps(entry).encode()
    if len(content) < _HALF - 12:
        _page[at : at + 4 + len(content)] = len(content).to_bytes(4, "little") + content


def _read(page: mmap.mmap, at: int) -> dict[str, Any]:
    length = int.from_bytes(page[at : at + 4], "little")
    try:
        found = json.loads(page[at + 4 : at + 4 + length]) if 0 < length < _HALF - 12 else {}
    except ValueError:  # it died while it wrote
        return {}
    return found if isinstance(found, dict) else {}
