"""Pipeline: passes in order, run over a model, with instruments between them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import re
import sys
import time
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx_ir as ir

from graphforge.collector import paused_collector
from graphforge.errors import GraphForgeError, InternalError, UsageError
from graphforge.ir import nodes_of
from graphforge.ir.names import NameTable, make_names_unique
from graphforge.transform.base import Pass
from graphforge.transform.listener import RewriteListener
from graphforge.transform.registry import PassRegistry, default_registry
from graphforge.transform.rewriter import NearMiss, Rewriter
from graphforge.transform.seams import VerifyGraph
from graphforge.transform.snapshot import snapshot
from graphforge.user_code import is_ours, user_error

__all__ = ["Instrument", "PassRecord", "Pipeline", "count_nodes", "make_pass"]


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass did.

    Attributes:
        name: the pass.
        spec: the pass with its options, as ``Pipeline.parse`` reads it.
        seconds: how long it took, instruments excluded.
        nodes_before: nodes of the model, bodies included.
        nodes_after: the same, afterwards.
        changes: how many edits there were; zero means the graph is untouched.
        notes: what the pass wants the user to know.
        near_misses: what nearly fired.
        source: the file or module of a pass that is not ours; "" for ours.
    """

    name: str
    spec: str
    seconds: float
    nodes_before: int
    nodes_after: int
    changes: int
    notes: tuple[str, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data, for the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PassRecord:
        """Read back what ``to_dict`` gave, after JSON as well."""
        known = {name: record[name] for name in (field.name for field in dataclasses.fields(cls)) if name in record}
        misses = tuple(
            NearMiss(miss["rule"], miss["reason"], miss["count"], tuple(miss["places"]))
            for miss in known.get("near_misses", ())
        )
        return cls(**{**known, "notes": tuple(known.get("notes", ())), "near_misses": misses})


class Instrument(Protocol):
    """Something that looks on between passes; one that is a ``RewriteListener`` too hears of every edit inside them."""

    def before(self, pass_: Pass, model: ir.Model) -> None:
        """Called before each pass."""
        ...

    def after(self, pass_: Pass, model: ir.Model, record: PassRecord) -> None:
        """Called after each pass."""
        ...


class Pipeline(Sequence[Pass]):
    """A list of passes that can be run, printed and parsed."""

    def __init__(self, passes: Iterable[Pass] = ()) -> None:
        self._passes = tuple(passes)
        for item in self._passes:
            if not isinstance(item, Pass):
                shown = f"the class {item.__name__}" if isinstance(item, type) else repr(item)
                raise UsageError(
                    f"a pipeline is made of passes, got {shown}",
                    f"make one of it: {item.__name__}()"
                    if isinstance(item, type)
                    else "a pass is an instance of a subclass of graphforge.transform.Pass",
                    "graphforge.transform.load_pass_from_file('FILE.py:Class') reads one from a file"
                    if isinstance(item, str)
                    else "",
                )

    @classmethod
    def parse(cls, text: str, registry: PassRegistry | None = None) -> Pipeline:
        """Read ``a,b{x=1,y=[1,2]},c``.

        Raises:
            UsageError: the text has another form, or names an unknown pass or option.
        """
        known = default_registry() if registry is None else registry
        return cls(make_pass(name, options, known) for name, options in _split(text))

    def run(
        self, model: ir.Model, instruments: Sequence[Instrument] = (), *, verify_each: bool = False
    ) -> list[PassRecord]:
        """Run every pass over the model, which is edited in place; returns what each one did.

        Args:
            model: the model; its functions are left alone.
            instruments: looked at before and after each pass, in order.
            verify_each: check the graph after every pass, not only after those that are not ours.

        Raises:
            GraphForgeError: a pass that is not ours leaves a graph that is not valid.
        """
        # What passes drop is cyclic, so the collector would walk over the whole graph again and again.
        with paused_collector():
            return self._run(model, (VerifyGraph(each=verify_each), *instruments))

    def _run(self, model: ir.Model, instruments: Sequence[Instrument]) -> list[PassRecord]:
        records: list[PassRecord] = []
        names = NameTable(model)
        nodes = count_nodes(model)
        changed = False
        for pass_ in self._passes:
            for instrument in instruments:
                instrument.before(pass_, model)
            listeners = [instrument for instrument in instruments if isinstance(instrument, RewriteListener)]
            rewriter = Rewriter(model, pass_name=pass_.name, names=names, listeners=listeners)
            ours = is_ours(type(pass_).__module__)
            before = None if ours else snapshot(model)
            started = time.perf_counter()
            _run_pass(pass_, model, rewriter)
            seconds = time.perf_counter() - started
            changes = rewriter.changes
            if changes == 0 and before is not None and snapshot(model) != before:
                changes = 1
            if changes and not ours:
                make_names_unique(model)  # names are labels: two values of one name are no fault of a pass
                names = NameTable(model)
            else:
                names = rewriter.names
            after = count_nodes(model) if changes else nodes
            record = PassRecord(
                pass_.name,
                pass_.spec(),
                seconds,
                nodes,
                after,
                changes,
                tuple(rewriter.notes),
                tuple(rewriter.near_misses),
                _source(type(pass_)),
            )
            records.append(record)
            nodes = after
            changed = changed or changes > 0
            for instrument in instruments:
                instrument.after(pass_, model, record)
        if changed:
            make_names_unique(model)
        return records

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes in order."""
        return self._passes

    def spec(self) -> str:
        """The text that ``parse`` reads back."""
        return ",".join(item.spec() for item in self._passes)

    def __len__(self) -> int:
        return len(self._passes)

    @typing.overload
    def __getitem__(self, index: int) -> Pass: ...
    @typing.overload
    def __getitem__(self, index: slice) -> Pipeline: ...
    def __getitem__(self, index: int | slice) -> Pass | Pipeline:
        return Pipeline(self._passes[index]) if isinstance(index, slice) else self._passes[index]

    def __iter__(self) -> Iterator[Pass]:
        return iter(self._passes)

    def __add__(self, other: Iterable[Pass]) -> Pipeline:
        return Pipeline((*self._passes, *other))

    def __repr__(self) -> str:
        return f"Pipeline({self.spec()!r})"


def count_nodes(model: ir.Model) -> int:
    """The nodes of the main graph and of all bodies."""
    return sum(1 for _ in nodes_of(model.graph))


def _source(pass_class: type[Pass]) -> str:
    """Where a pass that is not ours is written."""
    if is_ours(pass_class.__module__):
        return ""
    module = sys.modules.get(pass_class.__module__)
    return getattr(module, "__file__", None) or pass_class.__module__


def _run_pass(pass_: Pass, model: ir.Model, rewriter: Rewriter) -> None:
    try:
        pass_.run(model.graph, rewriter)
    except GraphForgeError:
        raise
    except Exception as error:
        if not is_ours(type(pass_).__module__):
            raise user_error(f"the pass {pass_.name!r} failed", error, *getattr(error, "__notes__", ())) from error
        if isinstance(error, InternalError):
            raise
        raise InternalError(f"the pass {pass_.name!r} failed: {type(error).__name__}: {error}") from error


def make_pass(name: str, options: dict[str, Any], registry: PassRegistry | None = None) -> Pass:
    """One pass by name with options.

    Raises:
        UsageError: no such pass or option, or an option's value has the wrong type.
    """
    pass_class = (default_registry() if registry is None else registry).get(name)
    known = pass_class.option_names()
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            raise UsageError(
                f"pass {name} has no option {option!r}",
                f"did you mean {near[0]}?" if near else "",
                f"its options: {', '.join(known)}" if known else "it has no options",
            )
    declared = {field.name: field.type for field in dataclasses.fields(pass_class)}
    fitted = {
        option: _fitting(name, option, value, _hint(pass_class, declared[option])) for option, value in options.items()
    }
    missing = [
        field.name
        for field in dataclasses.fields(pass_class)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in fitted
    ]
    if missing:
        raise UsageError(f"pass {name} needs the option {missing[0]!r}", f"write {name}{{{missing[0]}=...}}")
    return pass_class(**fitted)


def _hint(pass_class: type[Pass], annotation: Any) -> Any:
    """The type an option is declared with; annotations are strings under ``from __future__ import annotations``."""
    if not isinstance(annotation, str):
        return annotation
    scope = vars(sys.modules[pass_class.__module__])
    return typing.get_type_hints(type("_", (), {"__annotations__": {"option": annotation}}), scope, {})["option"]


def _fitting(name: str, option: str, value: Any, hint: Any) -> Any:
    """The value when it has the option's type (lists become tuples, ints floats), else an error."""
    alternatives = typing.get_args(hint) if _is_union(hint) else (hint,)
    for kind in alternatives:
        plain = typing.get_origin(kind) or kind
        if kind is Any:
            return value
        if plain is types.NoneType or kind is None:
            if value is None:
                return None
        elif plain is tuple and isinstance(value, list | tuple):
            return tuple(value)
        elif plain is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        elif plain is int and isinstance(value, bool):
            continue
        elif isinstance(plain, type) and isinstance(value, plain):
            return value
    words = " or ".join(
        "none" if kind is types.NoneType else getattr(kind, "__name__", str(kind)) for kind in alternatives
    )
    raise UsageError(f"option {option} of pass {name} must be {words}, got {value!r}")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _split(text: str) -> list[tuple[str, dict[str, Any]]]:
    """``a,b{x=1}`` -> [("a", {}), ("b", {"x": 1})]."""
    items: list[tuple[str, dict[str, Any]]] = []
    for part in _at_commas(text, text):
        match = re.fullmatch(r"\s*([\w.-]+)\s*(?:\{(.*)\})?\s*", part, flags=re.DOTALL)
        if match is None:
            raise UsageError(
                f"cannot read {part.strip()!r} in pipeline {text!r}", "write passes as name or name{option=value,...}"
            )
        name, inside = match.groups()
        options: dict[str, Any] = {}
        for option in _at_commas(inside, text) if inside and inside.strip() else ():
            key, equals, value = option.partition("=")
            key = key.strip()
            if not equals or not key.isidentifier():
                raise UsageError(f"cannot read option {option.strip()!r} of pass {name}", "write it as option=value")
            if key in options:
                raise UsageError(f"option {key} of pass {name} is given twice")
            options[key] = _value(value.strip())
        items.append((name, options))
    return items


def _at_commas(text: str, whole: str) -> list[str]:
    """Split at the commas that stand in no bracket and no quotes."""
    if not text.strip():
        return []
    parts, depth, start, quote = [], 0, 0, ""
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "{[(":
            depth += 1
        elif letter in "}])":
            depth -= 1
            if depth < 0:
                raise UsageError(f"a bracket closes that was not opened in pipeline {whole!r}")
        elif letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if depth or quote:
        raise UsageError(f"a {'quote' if quote else 'bracket'} is left open in pipeline {whole!r}")
    return [*parts, text[start:]]


def _value(text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
