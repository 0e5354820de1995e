"""Whose fault an exception is: an ONNX file that ONNX itself has something against is told as that.

Checking every file in full would refuse some that run everywhere, and takes time; so it is asked only once something
went wrong that should not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphforge.errors import GraphForgeError

__all__ = ["blaming", "refuse_invalid"]


@contextmanager
def blaming(model: Any) -> Iterator[None]:
    """Turn a failure inside the block into a refusal of the model's file, where ONNX's own check refuses it as well.

    Args:
        model: a model as the verbs take it; one that is not an ONNX file is never blamed.

    Raises:
        GraphForgeError: the file is not valid; says what ONNX has against it.
        MemoryError: there is not enough of it, which says nothing about the file.
    """
    try:
        yield
    except (GraphForgeError, MemoryError, OSError):
        raise
    # whatever an invalid graph leads to, most of all where its numbers are taken for indices
    except Exception as error:
        path = _file_of(model)
        if path is not None:
            refuse_invalid(path, error)
        raise


def refuse_invalid(path: Path, error: Exception) -> None:
    """Refuse a file that ONNX's own check refuses, in place of what went wrong on its account.

    Args:
        path: an ONNX file that is not ours.
        error: what went wrong.

    Raises:
        GraphForgeError: the file is not valid; says what ONNX has against it.
    """
    complaint = _complaint(path)
    if complaint is not None:
        raise GraphForgeError(
            f"{path} is not valid ONNX: {complaint}", f"`graphforge inspect {path}` may show the graph as it is"
        ) from error


def _file_of(model: Any) -> Path | None:
    given = model if isinstance(model, str | os.PathLike) else getattr(model, "onnx_path", None)
    path = None if given is None else Path(given)
    return path if path is not None and path.suffix.lower() == ".onnx" and path.is_file() else None


def _complaint(path: Path) -> str | None:
    from graphforge.onnx_io.checking import complaint_about

    found = complaint_about(path, shapeless=True, theirs=True)
    if found is None:
        return None
    return f"{found.text} (node {found.node!r})" if found.node else found.text
