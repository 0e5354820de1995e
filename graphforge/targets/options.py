"""How a target declares its options, and how what the user gives (text or Python values) is read into them.

A target's options are a frozen dataclass whose fields are made by `option`:

    @dataclass(frozen=True, slots=True)
    class ToyOptions:
        precision: str = option("fp32", values={"fp32": "everything in float32"}, help="arithmetic")
        indent: int = option(2, help="spaces per level in the file")

`options_for` reads them: by the type of the field (bool, int, float, str, Path, Literal, tuple[T, ...], Mapping, unions
of these), or by the function that the option names.  What is unknown or cannot be read is refused there, once for
all targets.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from graphforge.errors import UsageError, argument
from graphforge.targets.target import TargetOptions

if TYPE_CHECKING:
    from graphforge.targets.target import Target

__all__ = ["PRECISION", "Option", "as_choice", "as_list", "as_record", "declared_options", "option", "options_for"]

# The option that every target has; users give it as an argument of its own.
PRECISION = "precision"
_KEY = "graphforge.option"
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Option:
    """One option as its target declares it.

    Attributes:
        name: what users call it.
        help: one line about it.
        form: how a value is written, in words.
        default: its value when nothing is asked.
        values: the values it can have, each with its own line of help ("" where the values speak for themselves);
            empty when they are too many to list.
        read: makes the value of what the user gave.
    """

    name: str
    help: str
    form: str
    default: Any
    values: Mapping[str, str]
    read: Callable[[object], Any]


def option(
    default: Any,
    *,
    help: str,
    values: Mapping[str, str] | None = None,
    form: str = "",
    read: Callable[[object], Any] | None = None,
) -> Any:
    """A field of a target's options.

    Args:
        default: its value when nothing is asked.
        help: one line about it.
        values: the values it can have, each with one line of help.
        form: how a value is written, where the type does not say it.
        read: makes the value of what the user gave, where the type does not say how; the texts of a ValueError say what
            is wrong and what to do about it.
    """
    return field(default=default, metadata={_KEY: {"help": help, "values": values, "form": form, "read": read}})


def declared_options(target: Target) -> tuple[Option, ...]:
    """The options that a target declares, in order, the precision first."""
    hints = get_type_hints(target.options)
    found = []
    for one in fields(target.options):
        told: Mapping[str, Any] = one.metadata.get(_KEY, {})
        hint = hints[one.name]
        known = dict(told.get("values") or dict.fromkeys(map(str, _literals(hint)), ""))
        found.append(
            Option(
                name=one.name,
                help=told.get("help", ""),
                form=told.get("form") or ("|".join(known) if known else _form(hint)),
                default=None if one.default is MISSING else one.default,
                values=known,
                read=_reader(hint, known, told.get("read")),
            )
        )
    return tuple(sorted(found, key=lambda one: one.name != PRECISION))


def options_for(
    target: Target,
    *,
    opset: int | None = None,
    precision: str | None = None,
    own: Mapping[str, Any] | None = None,
    outputs: str | None = None,
    nms: str | None = None,
) -> TargetOptions:
    """What is asked of a target, read into the options that it declares.

    Args:
        target: the target.
        opset, outputs, nms: see `TargetOptions`.
        precision: the arithmetic, in the target's words; None is its default.
        own: the target's other options by name: Python values, or text as the command line has it.

    Raises:
        UsageError: an option or precision is unknown, or has a value that it cannot have.
    """
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int)):
        raise UsageError(
            f"{argument('opset')}: expected a whole number, got {type(opset).__name__} {opset!r}",
            f"for example {argument('opset', 18)}",
        )
    declared = {one.name: one for one in declared_options(target)}
    given = dict(own or {})
    _refuse_unknown(target.name, given, [name for name in declared if name != PRECISION])
    if precision is not None:
        _refuse_unknown_precision(target.name, precision, declared[PRECISION])
        given[PRECISION] = precision
    read = {name: _read(target.name, declared[name], value) for name, value in given.items()}
    general = {"opset": opset, "outputs": outputs, "nms": nms}
    asked = [name for name, value in general.items() if value is not None]
    return TargetOptions(
        own=target.options(**read),
        opset=opset,
        outputs=outputs,
        nms=nms,
        asked=(*asked, *(name for name in declared if name in given)),
    )


def as_record(value: object) -> Any:
    """A value of an option as JSON can hold it; of arrays, dtype and shape."""
    if isinstance(value, Mapping):
        return {str(key): as_record(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_record(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return f"{dtype}[{','.join(map(str, shape))}]"
    return str(value)


def as_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """``value`` as one of ``choices``.

    Raises:
        ValueError: it is none of them.
    """
    text = str(value)
    if text in choices:
        return text
    close = difflib.get_close_matches(text, choices, n=1)
    raise ValueError(
        f"unknown {name} {text!r}", f"did you mean {close[0]!r}?" if close else "", f"known: {', '.join(choices)}"
    )


def as_list(value: object) -> list[str]:
    """``value`` as a list of texts: a sequence as it is, a text split at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Iterable):
        return [str(part) for part in value]
    return [str(value)]


# -- refusing ----------------------------------------------------------------------------------------------------------


def _refuse_unknown(target: str, given: Iterable[str], names: Sequence[str]) -> None:
    for name in given:
        if name in names:
            continue
        if name == PRECISION:
            raise UsageError(
                f"precision is not given among the options of target {target!r}",
                f"it has an argument of its own: {argument('precision', 'NAME')}",
            )
        close = difflib.get_close_matches(str(name), names, n=1)
        raise UsageError(
            f"target {target!r} has no option {name!r}",
            f"did you mean {close[0]!r}?" if close else "",
            f"its options: {', '.join(names)}" if names else "it has no options",
            f"`graphforge targets {target}` tells all about it",
        )


def _refuse_unknown_precision(target: str, wanted: str, precision: Option) -> None:
    if wanted in precision.values:
        return
    close = difflib.get_close_matches(str(wanted), precision.values, n=1)
    raise UsageError(
        f"target {target!r} has no precision {wanted!r}",
        f"did you mean {close[0]!r}?" if close else "",
        *(
            f"{name}{' (default)' if name == precision.default else ''}: {line}"
            for name, line in precision.values.items()
        ),
    )


def _read(target: str, declared: Option, value: object) -> Any:
    try:
        return declared.read(value)
    except ValueError as error:
        message, *notes = map(str, error.args or ("",))
        raise UsageError(
            f"target {target!r}, option {declared.name!r}: {message or f'cannot read {value!r}'}",
            *notes,
            f"{declared.name} is {declared.form}: {declared.help}",
        ) from None


# -- reading by type ---------------------------------------------------------------------------------------------------


def _reader(hint: Any, known: Mapping[str, str], read: Callable[[object], Any] | None) -> Callable[[object], Any]:
    if read is not None:
        return read
    literals = {str(value): value for value in _literals(hint)} or dict.fromkeys(known)

    def read_choice(value: object) -> Any:
        if value is None and type(None) in _members(hint):
            return None
        text = as_choice("value", value, list(literals))
        return text if literals[text] is None else literals[text]

    return read_choice if literals else lambda value: _of_type(value, hint)


def _members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; a type that is none is its own only one."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _literals(hint: Any) -> tuple[Any, ...]:
    """The values of a Literal, alone or beside None; none of any other type."""
    members = [member for member in _members(hint) if member is not type(None)]
    return get_args(members[0]) if len(members) == 1 and get_origin(members[0]) is Literal else ()


def _of_type(value: object, hint: Any) -> Any:
    """``value`` as the first alternative of a type that takes it.

    Raises:
        ValueError: none does.
    """
    for member in _members(hint):
        try:
            return _of_one_type(value, member)
        except (ValueError, TypeError):
            continue
    raise ValueError(f"expected {_form(hint, 'true or false')}, got {value!r}")


def _of_one_type(value: object, hint: Any) -> Any:
    if hint is Any or hint is object:
        return value
    if hint is type(None):
        return _require(value is None, value)
    if hint is bool:
        return _boolean(value)
    if hint is int:
        return _require(not isinstance(value, bool | float), int(str(value)))
    if hint is float:
        number = float(str(value))
        return _require(not isinstance(value, bool) and math.isfinite(number), number)
    if hint is str:
        return _require(isinstance(value, str), value)
    if hint is Path:
        return _require(isinstance(value, str | Path), Path(str(value)))
    if get_origin(hint) is tuple:
        return tuple(_of_type(part, get_args(hint)[0]) for part in as_list(value))
    kind = get_origin(hint) or hint
    return _require(isinstance(value, kind), value)


def _boolean(value: object) -> bool:
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise ValueError
    return _WORDS[word]


def _require(holds: bool, value: Any) -> Any:
    if not holds:
        raise ValueError
    return value


def _form(hint: Any, boolean: str = "true|false") -> str:
    """How a value of a type is written, in words."""
    words = {bool: boolean, int: "whole number", float: "number", str: "text", Path: "path", Any: "anything"}
    told = []
    for member in _members(hint):
        if member is type(None):
            continue
        if get_origin(member) is tuple:
            told.append(f"{_form(get_args(member)[0])}, with commas")
        elif member in words:
            told.append(words[member])
        else:
            told.append(f"{getattr(get_origin(member) or member, '__name__', member)} (from Python)")
    return " or ".join(told)
