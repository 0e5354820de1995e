"""Write a page to a file: aside first, then in its place, so that what stands there is whole or was there before."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from graphforge.errors import GraphForgeError

__all__ = ["write_page_to"]


def write_page_to(path: Path, page: str, *, way_out: str) -> Path:
    """Write text to a file and return its path.

    Args:
        path: the file; one that is there is replaced.
        page: what it will hold.
        way_out: what to tell the user when it cannot be written.

    Raises:
        GraphForgeError: it cannot be written; nothing is left behind.
    """
    aside: str | None = None
    try:
        descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
        aside = None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise GraphForgeError(f"cannot write {str(path)!r}: {reason}", way_out) from None
    finally:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
    return path
