"""Exceptions in code that the user wrote: told with the line in their own file that raised, or that led there."""

from __future__ import annotations

import inspect
import linecache
import sysconfig
import types
from collections.abc import Iterable
from pathlib import Path

from graphforge.errors import InternalError, UserCodeError

__all__ = [
    "described",
    "is_installed",
    "is_ours",
    "place_here",
    "place_of",
    "raised_by_user",
    "shown_path",
    "user_error",
]

# Lines of an exception's text that are repeated; torch's can run to pages.
_MAX_LINES = 8
_VENDORS = ("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "importlib")
_INSTALLED = {Path(path) for name, path in sysconfig.get_paths().items() if "lib" in name}


def user_error(failed: str, error: BaseException, *notes: str) -> UserCodeError:
    """The error for an exception in the user's code: ``failed: Type: text``, then where, then the notes."""
    return UserCodeError(f"{failed}: {described(error)}", place_of(error), *notes)


def described(error: BaseException) -> str:
    """``Type: text``, cut where it is very long."""
    lines = [line for line in str(error).splitlines() if line.strip()][:_MAX_LINES]
    text = "\n".join(line[:300] for line in lines)
    if isinstance(error, InternalError):  # what we refuse their code; the name of the class does not help them
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException, *, within: bool = False) -> str:
    """``raised at net.py:12, in forward: x = y.foo()``; empty where no line of anybody's Python is involved.

    The innermost frame in the user's own files; where there is none, the innermost one that is neither ours nor the
    frameworks' (a model from an installed package).

    Args:
        error: what was raised.
        within: whether to add the line of an installed package that theirs led to.
    """
    if isinstance(error, SyntaxError) and error.filename and not is_installed(error.filename):
        source = (error.text or linecache.getline(error.filename, error.lineno or 0)).strip()
        return f"raised at {shown_path(error.filename)}:{error.lineno}" + (f": {source}" if source else "")
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return _innermost(frames, within=within)


def place_here() -> str:
    """The same for the line that runs now: the innermost frame of the user's that we called.

    Who called us says nothing about the model: where all of that is a library's, the library's line is told.  The line
    of an installed package that theirs led to is added.
    """
    frames = []
    # Not this frame itself: a list that holds its own frame lives until the garbage is collected, and all frames with
    # it.  torch.export takes the tensors in them for the model's.
    here = inspect.currentframe()
    frame = None if here is None else here.f_back
    del here
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    inward = frames[::-1]
    ours = next((at for at, (each, _) in enumerate(inward) if is_ours(str(each.f_globals.get("__name__", "")))), 0)
    return _innermost(inward[ours:], within=True)


def _innermost(frames: Iterable[tuple[types.FrameType, int]], *, within: bool = False) -> str:
    theirs = ""
    others = ""
    deeper = ""
    for frame, line in frames:
        name, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        if is_ours(name) or file.startswith(("<frozen", "<eval_with_key", "<string>")):
            continue
        if not is_installed(file):
            theirs, deeper = _place(frame, line), ""
        elif name.split(".")[0] not in _VENDORS:
            others = _place(frame, line)
            deeper = others if "site-packages" in file else deeper
    if within and theirs and deeper:
        return f"{theirs}; within {deeper.removeprefix('raised at ')}"
    return theirs or others


def raised_by_user(error: BaseException) -> bool:
    """Whether an exception was raised by a line of a user's own file, and not by something that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    frame = trace.tb_frame
    return not is_ours(str(frame.f_globals.get("__name__", ""))) and not is_installed(frame.f_code.co_filename)


def is_ours(module: str) -> bool:
    """Whether a module is part of GraphForge, by its name."""
    return module.split(".")[0] == "graphforge"


def is_installed(file: str) -> bool:
    """Whether a file came with Python or with an installed package."""
    path = Path(file)
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    return any(path.is_relative_to(folder) for folder in _INSTALLED)


def shown_path(file: str | Path) -> str:
    """A path as a person would write it: from the current folder where it lies below that."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere; or the current folder is gone
        return str(path)


def _place(frame: types.FrameType, line: int) -> str:
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    source = linecache.getline(file, line, frame.f_globals).strip()
    inside = "" if function == "<module>" else f", in {function}"
    return f"raised at {shown_path(file)}:{line}{inside}" + (f": {source}" if source else "")
