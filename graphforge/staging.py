"""A folder beside the place where something will go: worked in unseen, moved there whole, gone in every other case.

Its name says whose it is (host, process, when that began), so that what a killed process left behind is found and
cleared by the next one.  Where the system can, an earlier folder and the new one change places in one step, so that
one of them is whole at every moment; elsewhere a process killed between two steps leaves the earlier folder beside its
place, and the next one puts it back.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphforge.errors import GraphForgeError, argument
from graphforge.last_step import is_inside_staged, staged

__all__ = ["folder_beside", "put_in_place", "sweep"]

_OURS = re.compile(
    r"\.(?P<name>.+)\.graphforge-(?P<what>new|old)-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-\w+"
)
_HERE = -100  # AT_FDCWD: paths are taken from the current folder
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_moving = threading.Lock()  # two threads that write to one place: the later one stays


@contextmanager
def folder_beside(wanted: Path) -> Iterator[Path]:
    """A folder to work in, on the disk where ``wanted`` goes; gone afterwards, with parents that were made for nothing.

    Raises:
        GraphForgeError: it cannot be made there.
    """
    made = [parent for parent in wanted.absolute().parents if not parent.exists()]
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        sweep(wanted.parent)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(wanted.name, "new"), dir=wanted.parent))
    except OSError as error:
        raise GraphForgeError(
            f"cannot write to {str(wanted.parent)!r}: {error.strerror}",
            f"choose a writable folder: {argument('output', 'DIR')}",
        ) from None
    inside = is_inside_staged(folder)
    if not inside:
        staged(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not inside:
            staged(None)
        if not wanted.exists():
            for parent in made:  # the innermost first; one that another process uses by now stays
                with suppress(OSError):
                    parent.rmdir()


def put_in_place(folder: Path, wanted: Path) -> None:
    """Move a folder to where it belongs; an earlier one there goes, or stays if the new one cannot take its place.

    Raises:
        OSError: the system refuses.
    """
    os.chmod(folder, _usual_mode(folder))
    with _moving:
        if not wanted.exists():
            os.replace(folder, wanted)
        elif not _exchanged(folder, wanted):  # once they have changed places, the earlier one goes with the context
            _replaced_in_two_steps(folder, wanted)


def sweep(parent: Path) -> None:
    """Clear what processes that are gone have left in a folder, and put back what they had taken away."""
    try:
        entries = [(entry, _OURS.fullmatch(entry.name)) for entry in os.scandir(parent)]
    except OSError:
        return
    for entry, ours in entries:
        if ours is None or not entry.is_dir(follow_symlinks=False) or _is_alive(ours):
            continue
        wanted = parent / ours["name"]
        if ours["what"] == "old" and not wanted.exists():
            with suppress(OSError):
                os.replace(entry.path, wanted)
                continue
        shutil.rmtree(entry.path, ignore_errors=True)


def _prefix(name: str, what: str) -> str:
    return f".{name[:100]}.graphforge-{what}-{_host()}-{os.getpid()}-{_start_of(os.getpid())}-"


def _is_alive(ours: re.Match[str]) -> bool:
    """Whether the process still runs; of another machine's, which may share the disk, nobody here can tell."""
    if ours["host"] != _host():
        return True
    pid = int(ours["pid"])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return _start_of(pid) == int(ours["start"])


def _host() -> str:
    node = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return f"{zlib.crc32(node.encode()):08x}"


def _start_of(pid: int) -> int:
    """When a process began, in ticks of the system; 0 where it is not told, -1 of one that only waits to be buried.

    Numbers of processes come back, so the number alone does not say which process it was.
    """
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = content.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


def _exchanged(folder: Path, wanted: Path) -> bool:
    """Let two folders change places in one step; False where the system or the disk cannot."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    done: int = library.renameat2(_HERE, os.fsencode(folder), _HERE, os.fsencode(wanted), _EXCHANGE)
    return done == 0


def _replaced_in_two_steps(folder: Path, wanted: Path) -> None:
    retired = Path(tempfile.mkdtemp(prefix=_prefix(wanted.name, "old"), dir=wanted.parent))
    os.replace(wanted, retired)
    try:
        os.replace(folder, wanted)
    except OSError:
        if not wanted.exists():
            os.replace(retired, wanted)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def _usual_mode(folder: Path) -> int:
    """Who may do what with a new folder.  Tried, not asked: the umask is read by setting it, for all threads."""
    tried = folder / ".mode"
    tried.mkdir()
    mode = stat.S_IMODE(tried.stat().st_mode)
    tried.rmdir()
    return mode
