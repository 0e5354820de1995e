"""Substitutions: while a model is captured, calls of a known function go to another one in its place.

    import graphforge

    @graphforge.substitute("my_package.heads.select_boxes")
    def select_boxes(boxes, scores):
        ...                     # the same arguments and results, written so that it can be captured

A function that hides its meaning (a hand-written suppression loop) or cannot be captured (a Python loop over boxes) is
declared once, by its full name: for the process as above, for one call by ``compile(..., substitutes=[...])``, or for a
block by ``with graphforge.substitutions(...)``.  `replacing.py` puts it in force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from graphforge.errors import GraphForgeError, UsageError
from graphforge.scopes import Declared

__all__ = [
    "SUBSTITUTIONS",
    "Substitution",
    "declared_substitutions",
    "given_substitutions",
    "refuse_substitutions",
    "substitute",
    "withdraw",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Substitution:
    """One function to be put in place of another; made by hand, it is declared by giving it to a call or a scope.

    Attributes:
        path: full name of the function or method to replace: ``package.module.function``, ``...Class.method``, and for
            the model's own file ``net.function`` or ``net.py:function``.
        function: what is called instead, with the same arguments.
        target: only when compiling for this target; None for every one.
        required: matching nothing is an error; False for those that serve whatever model comes along.
        process: declared for every model of the process: one that never calls it is told so by a note, no more.
    """

    path: str
    function: Callable[..., Any]
    target: str | None = None
    required: bool = True
    process: bool = False

    def __post_init__(self) -> None:
        if "." not in self.path.strip("."):
            raise UsageError(f"cannot substitute {self.path!r}", "give the full name, package.module.function")


SUBSTITUTIONS: Declared[Substitution] = Declared("substitutions")


def substitute(path: str, *, target: str | None = None, required: bool = True) -> Callable[[_Function], _Function]:
    """Declare that the decorated function takes the place of ``path`` while a model is captured.

    Inside ``with graphforge.substitutions()`` it holds until the block ends, elsewhere for the process.  Declaring the
    same function again (a cell run twice, an edited file) takes the place of the earlier declaration.

    Args:
        path: full name of a function or method, as ``package.module.function`` or ``package.module.Class.method``.
        target: name of the only target for which it holds; a declaration for the target goes before a general one.
        required: whether never being called is worth telling: an error in a scope, a note for the process.

    Raises:
        UsageError: the name has no module in it.
    """
    Substitution(path, lambda: None)  # a name that cannot be is refused before anything is decorated

    def declare(function: _Function) -> _Function:
        scope, names = SUBSTITUTIONS.destination()
        one = Substitution(path, function, target, required, process=scope is SUBSTITUTIONS.process)

        def same(other: Substitution) -> bool:
            return (other.path, other.target) == (path, target) and _same_place(other.function, function)

        scope.add(one, names, same)
        return function

    return declare


def declared_substitutions(target: str | None = None) -> list[Substitution]:
    """Those in force here for a target: of each function the last one declared, the target's own before a general one.

    What a scope declares goes before what the process declares.
    """
    in_force: dict[str, Substitution] = {}
    for scope in (SUBSTITUTIONS.process, *SUBSTITUTIONS.scopes()):
        chosen: dict[str, Substitution] = {}
        for one in scope.items():
            known = chosen.get(one.path)
            if one.target not in (None, target) or (known is not None and known.target and not one.target):
                continue
            chosen[one.path] = one
        in_force = {path: one for path, one in in_force.items() if path not in chosen} | chosen
    return list(in_force.values())


def refuse_substitutions(spec: str, target: str | None = None) -> None:
    """See that nothing is to be substituted in a model that is a graph already.

    Raises:
        GraphForgeError: a required one was given for this call.
    """
    for one in declared_substitutions(target):
        if one.required and not one.process:
            raise GraphForgeError(
                f"the substitution of {one.path} matched nothing: {spec} is a graph already and calls no function",
                "give the PyTorch model, or leave the substitution out",
            )


def given_substitutions(given: Substitution | Callable[..., Any]) -> list[Substitution]:
    """What a user gave to a call or a scope: a `Substitution`, or a function that `substitute` decorated.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(given, Substitution):
        return [replace(given, process=False)]
    everywhere = (SUBSTITUTIONS.process, *SUBSTITUTIONS.scopes())
    found = [one for scope in everywhere for one in scope.items() if one.function is given]
    if not found:
        raise UsageError(
            f"{given!r} is not a substitution",
            "give graphforge.Substitution('package.module.function', function), a function decorated with "
            "@graphforge.substitute, or the path of a file that declares some",
        )
    return [replace(one, process=False) for one in found]


def withdraw(declared: Callable[..., Any] | Substitution | str) -> bool:
    """Forget every declaration of a substitute, or (by its full name) of a function; False when there was none."""

    def matches(one: Substitution) -> bool:
        return declared in (one, one.path) or one.function is declared

    return bool(SUBSTITUTIONS.withdraw(matches))


def _same_place(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    def place(function: Any) -> tuple[Any, ...]:
        return getattr(function, "__module__", None), getattr(function, "__qualname__", id(function))

    return place(one) == place(other)
