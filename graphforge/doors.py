"""Files as they come in: what a folder's own data names is a file inside it, and no text is read without an end.

Whoever makes a folder may put links, pipes and devices into it.  A link that leads out would hand over a file that
nobody gave; a pipe is waited for, and `/dev/zero` read, for ever.  What the user names is the user's own: that may be a
link or a pipe, and only its length is limited.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from graphforge.errors import GraphForgeError

__all__ = ["MOST_BYTES", "inside", "text_of"]

# No text of ours comes near; a manifest of a thousand passes and trials has 2 MB.
MOST_BYTES = 1 << 28


def inside(folder: Path, name: str) -> Path:
    """A file of a folder by its name; one that is not there is for the caller to miss.

    Args:
        folder: what the user named; it may itself be a link.
        name: what the folder's own data says, or how such data is called.

    Raises:
        GraphForgeError: a link leads out of the folder, or it is a pipe, a device or a socket.
    """
    path = folder / name
    try:
        home, place = folder.resolve(), path.resolve()
        kind = place.stat().st_mode
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError) as error:  # a circle of links, a name that is too long
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its links run in a circle"
        raise GraphForgeError(f"{str(path)[:200]!r} cannot be read: {reason.lower()}") from None
    if not place.is_relative_to(home):
        raise GraphForgeError(
            f"{str(path)!r} is a link to {str(place)!r}, outside its folder",
            "whoever made the folder may have put it there; if it is meant, copy the folder with its files in it: "
            "cp -rL FOLDER COPY",
        )
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise GraphForgeError(f"{str(path)!r} is not a file but {_KINDS.get(stat.S_IFMT(kind), 'something else')}")
    return path


_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def text_of(path: Path) -> str:
    """The text of a file that the user names; as ``Path.read_text``, but never without an end.

    Raises:
        OSError: it cannot be read, or is longer than any such file.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES:,} bytes", os.fspath(path))
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
