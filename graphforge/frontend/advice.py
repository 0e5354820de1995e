"""Why a model could not be captured: what it does, at which line of the user's, and the way out for that cause."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphforge.errors import CaptureError, argument
from graphforge.hushed import Transcript
from graphforge.user_code import place_of

__all__ = ["Failures", "advice_for", "capture_error", "reason_of"]

_MOST_LINES = 4
_LONGEST_LINE = 200
# What torch says about debugging torch: of no use to who wants another program captured.
_NOISE = re.compile(
    r"\s*(For more (information|details|debugging)|For extended logs|If you suspect the guard|The error above occurred"
    r"|Use tlparse|Developer debug context|Hint: Your code may result in an error|Original traceback:$|None$"
    r"|consider using data-dependent friendly APIs|Caused by: |While executing %|Call to |raised from |from user code"
    r"|User Stack|The following call raised|To fix the error|  File |\s*\^|Set TORCH|You can suppress|Hint: "
    r"|Explanation: |raise |Stack trace|\(_export|Traceback \(most recent|\w+ = torch\.ops\.|def forward\(|graph\(\):"
    r"|For C\+\+ stack trace|Exception raised from|frame #\d)"
)
# A line of ours that torch shows as the one that asked.
_OUR_LINE = re.compile(r'^  File "[^"]*/graphforge/.*\n    .*\n?', re.MULTILINE)
_SUGGESTED = "Suggested fixes"


class Failures(dict[str, str]):
    """Capture method -> why it failed, in a few lines.

    Attributes:
        fixed: number -> the line in the user's code where a size became it.
        long: what torch says besides.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        super().__init__(known or {})
        self.fixed: dict[int, str] = {}
        self.long = Transcript()

    def add(self, method: str, error: Exception, said: Transcript) -> None:
        """Record a failure."""
        self[method] = reason_of(error)
        self.long.add_error(method, error)
        self.long.add(said.text)


def reason_of(error: Exception) -> str:
    """What went wrong, in the few lines of the error that say it, with the line of the user's that it was at."""
    text = _OUR_LINE.sub("", str(error).strip() or type(error).__name__)
    lines = [_without_tips(line) for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    keep = lines[:_MOST_LINES]
    for index, line in enumerate(lines):
        if _SUGGESTED in line and index >= _MOST_LINES:
            keep += lines[index : index + 3]
            break
    place = place_of(error, within=True)
    shown = [
        *(_cut(line) for line in keep or [text.splitlines()[0]]),
        *([_cut(place, 2 * _LONGEST_LINE)] if place else []),
    ]
    return f"{type(error).__name__}: " + "\n        ".join(shown)


def _cut(line: str, longest: int = _LONGEST_LINE) -> str:
    return line if len(line) <= longest else f"{line[: longest - 4]} ..."


def _without_tips(line: str) -> str:
    line = re.sub(r" ?For more information, run with TORCH_LOGS=\S+", "", line)
    return re.sub(r" If you're using (mark_dynamic|Dim\.DYNAMIC), [^.]*(\.[A-Z]+[^.]*)*\.", "", line)


def capture_error(failures: Failures, *notes: str) -> CaptureError:
    """The refusal of a model that no method captures: what it does and where, why, and what to do.

    Args:
        failures: what each method said.
        notes: what else may be at fault.
    """
    cause = _cause_of(failures, failures.fixed) or _Cause("", "")
    error = CaptureError(
        "the model could not be captured" + (f": it {cause.does}" if cause.does else ""),
        cause.place.replace("raised at", "at", 1),
        *_told_once(failures, cause.place),
        *notes,
        cause.advice,
    )
    error.long_text = failures.long.text
    return error


def _told_once(failures: Mapping[str, str], known: str) -> Iterator[str]:
    """The first method's reason in full, one line for each other; one that failed as an earlier one did says so.

    The place that is known is not told again.
    """
    first: dict[str, str] = {}
    for name, reason in failures.items():
        same = first.setdefault(reason, name)
        if same != name:
            yield f"{name}: the same as {same}"
        elif len(first) == 1:
            yield "\n".join(line for line in f"{name}: {reason}".split("\n") if line.strip() not in known)
        else:
            yield f"{name}: {_cut(reason.splitlines()[0], 120)}"


@dataclass(frozen=True, slots=True)
class _Cause:
    """One kind of failure, as found in a reason: what the model does, where, and the ways out."""

    does: str
    advice: str
    place: str = ""


_NO_FAKE = re.compile(
    r"no fake impl registered for <?(?:CustomOpDef\()?([\w:.]+)|UnsupportedOperatorException: ([\w:.]+)|fake kernel"
)
# What torch says of going through a tensor row by row (unbind, `for row in x`) along a dim that varies.
_ROW_BY_ROW = re.compile(r"number of sections must be larger than 0, got s\d")
_BAKED = re.compile(
    r"Constraints violated|specialized it to be a constant|not all values of|as the number|" + _ROW_BY_ROW.pattern
)
_NUMPY = re.compile(r"\.numpy\(\)|loop of ufunc|numpy\.ndarray|TracerWarning|not support.*numpy", re.IGNORECASE)
_NOT_SYMBOLIC = re.compile(r"(\w+)\(\).*must be .*(?:not|got|but found) .*(?:SymInt|torch\.SymInt)|(\w+)\(\).*SymInt")
_POINTER = re.compile(r"data pointer|data_ptr|storage of a fake|invalid python storage", re.IGNORECASE)
_FLOW = re.compile(
    r"data-dependent|DataDependent|Data-dependent|cannot be used as inputs to control flow|torch\._check", re.IGNORECASE
)
_GUARD = re.compile(r"data-dependent expression (.+?)(?: \(unhinted|\.  |$)")
# The truth of a tensor, as torch asks for it.
_OF_A_TENSOR = re.compile(r"Eq\(u\d+, 1\)")
_PLACE = re.compile(r"raised at .*")
_CONDITION = re.compile(r": (?:el)?(if|while|assert) (.+?)(?::| else)(?: .*)?$")
_NUMBER = re.compile(r"to be a constant \((\d+)\)|as the number (\d+)|\b\w+ = (\d+)$", re.MULTILINE)
_DIM = re.compile(r"Constraints violated \(([\w, ]+)\)|reads dim '(\w+)'")
# A loop's own line; in a line with its body, too, the number may be the body's.
_LOOP = re.compile(r": (?:for .+ in|while) .+:$|\[.+ for .+ in (?:range|zip|enumerate)\(.+\]")


def advice_for(failures: Mapping[str, str]) -> str:
    """What to change in the model, by the cause that the failures name; "" where they name none that is known."""
    cause = _cause_of(failures)
    return "" if cause is None else cause.advice


def _cause_of(failures: Mapping[str, str], fixed: Mapping[int, str] | None = None) -> _Cause | None:
    """The cause that the failures name.  ``torch.export`` is asked first: fx calls nearly everything control flow.

    Args:
        failures: what each method said.
        fixed: where sizes became numbers.
    """
    ranked = sorted(failures.items(), key=lambda item: not item[0].startswith("export"))
    for _, reason in ranked:
        found = _PLACE.search(reason)
        place = found[0] if found is not None else ""
        operator = _NO_FAKE.search(reason)
        if operator is not None:
            name = operator[1] or (operator[2] or "the operator").removesuffix(".default")
            if name.startswith("aten."):
                return _Cause(
                    f"calls {name}, which torch runs on real data only",
                    "compute it by other operators, or substitute the function that calls it",
                    place,
                )
            return _Cause(
                f"calls {name}, of which nothing says what shape it returns",
                f"say which shape {name} returns: @{re.split(r'::|[.]', name)[-1]}.register_fake in torch.library, "
                "or declare it with graphforge.ops.custom_op",
                place,
            )
        if _BAKED.search(reason):
            return _about_a_number(reason, place, fixed or {})
        if _FLOW.search(reason):
            return _Cause("decides in Python what depends on data", _about_flow(reason, place), place)
        symbolic = _NOT_SYMBOLIC.search(reason)
        if symbolic is not None:
            name = symbolic[1] or symbolic[2]
            return _Cause(
                f"gives {name} a size that varies, which torch takes as a plain number only",
                f"compute it from torch.arange of that size, substitute the function that calls {name}, "
                f"or leave that dim out of {argument('dynamic_shapes')}",
                place,
            )
        if _NUMPY.search(reason):
            return _Cause(
                "leaves PyTorch for NumPy",
                "what leaves PyTorch cannot be captured: write the part that goes through NumPy with torch operators, "
                "or substitute the function that it stands in",
                place,
            )
        if _POINTER.search(reason):
            return _Cause(
                "hands the memory of a tensor to code outside PyTorch",
                "make that code an operator (torch.library.custom_op with register_fake) and declare it with "
                "graphforge.ops.custom_op, or substitute the function that calls it",
                place,
            )
    return None


def _about_a_number(reason: str, place: str, fixed: Mapping[int, str]) -> _Cause:
    """A size that was promised to vary and became a number: in a loop over it, or by a line that reads it as one."""
    number = _NUMBER.search(reason)
    value = next((one for one in number.groups() if one), "") if number is not None else ""
    place = place or (fixed.get(int(value), "") if value else "")
    dim = _DIM.search(reason)
    name = next((one for one in dim.groups() if one), "") if dim is not None else ""
    size = f"dim {name}" if name and "," not in name else "a size"
    out = f"or leave that dim out of {argument('dynamic_shapes')}"
    if _LOOP.search(place) or (_ROW_BY_ROW.search(reason) and " for " in place):
        return _Cause(
            f"loops in Python over {size}, which was promised to vary",
            "a loop in Python is written down round by round, for one size: compute all rounds at once with tensor "
            f"operators, use torch's while_loop or scan, substitute the function with the loop, {out}",
            place,
        )
    return _Cause(
        f"takes {size}, which was promised to vary, for {f'the number {value}' if value else 'a number'}",
        "the model's code takes a size that was promised to vary for a fixed number: compute it from the input's shape "
        f"(x.shape[0], or -1 in a reshape), {out}",
        place,
    )


def _about_flow(reason: str, place: str) -> str:
    """The ways out of a decision on data, with the condition as it stands in the user's line."""
    general = "data-dependent control flow in Python must become torch.where, torch.cond or a registered substitution"
    guard = _GUARD.search(reason)
    condition = _CONDITION.search(place)
    if condition is not None and condition[1] == "if":
        asked = condition[2].strip().removeprefix("not ")
        if guard is not None and _OF_A_TENSOR.fullmatch(guard[1]):  # which torch._check does not take
            return (
                f"{general}; where it always goes one way, let `assert {asked}`, or its contrary, take the if's place"
            )
        return f"{general}; where it always goes one way, say so in front of it, torch._check({asked}) or its contrary"
    if (
        guard is not None
        and guard[1].startswith(("Eq(", "Ne(", "Lt(", "Le(", "u"))
        and "Size-like symbols: u" in reason
    ):
        return f"{general}; where a size that depends on data has bounds, promise them: torch._check(0 < n), of that n"
    return general
