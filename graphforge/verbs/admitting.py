"""Files that a verb hands to a runtime as they are: held against the limits, then tried where they may do harm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from graphforge.runners.survey import doubting, survivable

__all__ = ["admitted"]


@contextmanager
def admitted(files: Sequence[Path]) -> Iterator[str]:
    """For a block in which files from elsewhere are loaded and run; as ``survivable``.

    Raises:
        GraphForgeError: one of them is damaged, beyond a limit, or ends ONNX Runtime.
    """
    from graphforge.onnx_io.importing import admit

    for file in files:
        admit(file)
    with doubting("all"), survivable(files) as because:
        yield because
