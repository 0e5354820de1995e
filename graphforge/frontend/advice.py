"""Why a model could not be captured: torch's words without its tips for itself, and what to do for each cause."""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphforge.errors import argument
from graphforge.user_code import place_of

__all__ = ["advice_for", "reason_of"]

_MOST_LINES = 6
_LONGEST_LINE = 300
# What torch says about debugging torch: of no use to who wants another program captured.
_NOISE = re.compile(
    r"\s*(For more (information|details|debugging)|For extended logs|If you suspect the guard|The error above occurred"
    r"|Use tlparse|Developer debug context|Hint: Your code may result in an error|Original traceback:$|None$"
    r"|consider using data-dependent friendly APIs|Caused by: \((_export|fx/experimental))"
)
_SUGGESTED = "Suggested fixes"


def reason_of(error: Exception) -> str:
    """What went wrong, in the few lines of the error that say it, with the line of the user's that it was at."""
    text = str(error).strip() or type(error).__name__
    lines = [_without_tips(line) for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    keep = lines[:_MOST_LINES]
    for index, line in enumerate(lines):
        if _SUGGESTED in line and index >= _MOST_LINES:
            keep += lines[index : index + 4]
            break
    place = place_of(error)
    shown = [*(line[:_LONGEST_LINE] for line in keep or [text[:_LONGEST_LINE]]), *([place] if place else [])]
    return f"{type(error).__name__}: " + "\n        ".join(shown)


def _without_tips(line: str) -> str:
    line = re.sub(r" ?For more information, run with TORCH_LOGS=\S+", "", line)
    return re.sub(r" If you're using (mark_dynamic|Dim\.DYNAMIC), [^.]*(\.[A-Z]+[^.]*)*\.", "", line)


_FLOW = re.compile(
    r"data-dependent|DataDependent|Data-dependent|cannot be used as inputs to control flow|torch\._check", re.IGNORECASE
)
_BAKED = re.compile(r"Constraints violated|specialized it to be a constant|not all values of|as the number")
_NO_FAKE = re.compile(r"no fake impl registered for <?(?:CustomOpDef\()?([\w:.]+)|fake kernel")
_NUMPY = re.compile(r"\.numpy\(\)|numpy\.ndarray|TracerWarning|not support.*numpy", re.IGNORECASE)


def advice_for(failures: Mapping[str, str]) -> str:
    """What to change in the model, by the cause that the failures name; "" where they name none that is known.

    ``torch.export`` is asked first: fx calls nearly everything control flow.
    """
    ranked = sorted(failures.items(), key=lambda item: not item[0].startswith("export"))
    for _, reason in ranked:
        operator = _NO_FAKE.search(reason)
        if operator is not None:
            name = operator[1] or "the operator"
            return (
                f"say which shape {name} returns: @{name.rpartition('::')[2]}.register_fake in torch.library, "
                "or declare it with graphforge.ops.custom_op"
            )
        if _BAKED.search(reason):
            return (
                "the model's code takes a size that was promised to vary for a fixed number: compute it from the "
                f"input's shape (x.shape[0], or -1 in a reshape), or leave that dim out of {argument('dynamic_shapes')}"
            )
        if _FLOW.search(reason):
            return (
                "data-dependent control flow in Python must become torch.where, torch.cond or a registered substitution"
            )
        if _NUMPY.search(reason):
            return "what leaves PyTorch cannot be captured: write the part that goes through NumPy with torch operators"
    return ""
