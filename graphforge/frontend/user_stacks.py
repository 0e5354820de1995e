"""While capturing: every operator keeps the whole stack of the user's frames, helpers called from forward included.

torch records frames called ``forward`` only, so that all that a helper computes seems to come from the line that calls
it.  Code that torch generated on the way (the body of a ``torch.cond``, an fx graph) has no lines worth telling: its
frames are those of the nodes it was generated from.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from graphforge.user_code import is_ours

__all__ = ["frames_in", "is_vendor_file", "whole_user_stacks"]

_STANDARD = sysconfig.get_paths()["stdlib"]
_TORCH = str(Path(torch.__file__).parent)
_NN = str(Path(_TORCH, "nn", "modules"))
_GENERATED = "<eval_with_key>"


class _UserStack:
    """What stands for torch's own record of a stack in the module that makes nodes."""

    @staticmethod
    def extract(*_: object, **__: object) -> _UserStack:
        """The stack of now."""
        return _UserStack()

    def summary(self) -> traceback.StackSummary:
        """The user's frames, the outermost first."""
        return traceback.StackSummary.from_list(list(_frames())[::-1])


@contextmanager
def whole_user_stacks() -> Iterator[None]:
    """Inside, nodes that torch makes have whole stacks."""
    module: Any = import_module("torch.fx.proxy")
    tracer = module.TracerBase
    original, filtering = module.CapturedTraceback, tracer._filter_traceback_frames
    module.CapturedTraceback = _UserStack
    tracer._filter_traceback_frames = lambda _, summary: summary
    try:
        yield
    finally:
        module.CapturedTraceback = original
        tracer._filter_traceback_frames = filtering


@cache  # every frame of every node's stack asks
def is_vendor_file(file: str) -> bool:
    """Whether a file is torch's or Python's own, which say nothing to the user."""
    if file.startswith((_TORCH, "<frozen")):
        return True
    return file.startswith(_STANDARD) and "site-packages" not in file


def _frames() -> Iterator[traceback.FrameSummary]:
    """The frames between the capture and the node, the innermost first."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        code, name = frame.f_code, str(frame.f_globals.get("__name__", ""))
        file = code.co_filename
        if file.startswith(_GENERATED):
            yield from _behind(frame)
        elif is_ours(name):
            if name == "graphforge.frontend.capture":
                return
        elif not is_vendor_file(file) or (code.co_name == "forward" and file.startswith(_NN)):
            yield traceback.FrameSummary(file, frame.f_lineno, code.co_name, lookup_line=False)
        frame = frame.f_back


def _behind(frame: types.FrameType) -> Iterator[traceback.FrameSummary]:
    """The frames of the node that a line of generated code stands for, the innermost first."""
    module = frame.f_locals.get("self")
    numbers = getattr(module, "_lineno_map", None)
    if not isinstance(module, torch.fx.GraphModule) or not numbers:
        return
    start = getattr(module, "_prologue_start", 0) or 0
    index = numbers.get(frame.f_lineno - start)
    nodes = list(module.graph.nodes)
    if index is None or not 0 <= index < len(nodes):
        return
    for file, line, name in reversed(frames_in(nodes[index].stack_trace or "")):
        if not is_vendor_file(file) and not file.startswith(_GENERATED):
            yield traceback.FrameSummary(file, line, name, lookup_line=False)


def frames_in(text: object) -> list[tuple[str, int, str]]:
    """File, line and function of each frame in a stack that torch has written down; none where it is not text."""
    found = []
    for row in text.splitlines() if isinstance(text, str) else ():
        parts = row.strip().split('"')
        if len(parts) == 3 and parts[0] == "File " and parts[2].startswith(", line "):
            number, _, name = parts[2].removeprefix(", line ").partition(", in ")
            if number.isdigit():
                found.append((parts[1], int(number), name))
    return found
