"""What the user declares (substitutions, operators), for one call, for a block, or for the process; and takes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from graphforge.errors import GraphForgeError, UsageError
from graphforge.frontend import substitution
from graphforge.frontend.substitution import SUBSTITUTIONS, Substitution, given_substitutions
from graphforge.ops import custom_op
from graphforge.ops.custom_op import CUSTOM_OPS, CustomOp
from graphforge.scopes import Scope
from graphforge.user_files import load_file, reading

__all__ = [
    "GivenOperator",
    "GivenSubstitution",
    "custom_ops",
    "declarations",
    "files_with_operators",
    "substitutions",
    "withdraw",
]

GivenSubstitution: TypeAlias = Substitution | Callable[..., Any] | str | Path
GivenOperator: TypeAlias = CustomOp | str | Path


@contextmanager
def declarations(
    substitutes: Sequence[GivenSubstitution] = (), custom_ops: Sequence[GivenOperator] = ()
) -> Iterator[None]:
    """What is given, and what is declared inside the block, holds until the block ends, in this thread only.

    Args:
        substitutes: substitutions, functions decorated with ``substitute``, or files that declare some.
        custom_ops: operators (what ``custom_op`` returns), or files that declare some.

    Raises:
        UsageError: something else is given, or there is no such file.
        GraphForgeError: a file raises, or declares nothing.
    """
    for name, given in (("substitutes", substitutes), ("custom_ops", custom_ops)):
        if isinstance(given, str | Path) or not isinstance(given, Sequence):
            raise UsageError(f"{name} is a list, got {given!r}", f"write {name}=[...]")
    with ExitStack() as stack:
        chosen, operators = Scope[Substitution](), Scope[CustomOp]()
        for one in substitutes:
            if isinstance(one, str | Path):
                _add_file(Path(one), "substitution", chosen, operators)
                continue
            for each in given_substitutions(one):
                chosen.add(each, {}, lambda other, each=each: other is each)  # type: ignore[misc]
        for op in custom_ops:
            if isinstance(op, CustomOp):
                operators.add(op, {}, op.has_the_name_of)
            elif isinstance(op, str | Path):
                _add_file(Path(op), "operator", chosen, operators)
            else:
                raise UsageError(
                    f"{op!r} is not an operator", "give what graphforge.custom_op(...) returns, or a file's path"
                )
        stack.enter_context(SUBSTITUTIONS.scope(chosen))
        stack.enter_context(CUSTOM_OPS.scope(operators))
        yield


def substitutions(*given: GivenSubstitution) -> Any:
    """A block in which these substitutions hold: ``with graphforge.substitutions(one, "mine.py"):``.

    What is declared inside, by ``@graphforge.substitute`` or ``graphforge.custom_op``, ends with the block too.
    """
    return declarations(substitutes=given)


def custom_ops(*given: GivenOperator) -> Any:
    """A block in which these operators are known: ``with graphforge.custom_ops(scaled_sort):``."""
    return declarations(custom_ops=given)


def withdraw(declared: Callable[..., Any] | Substitution | CustomOp | str) -> None:
    """Take back what was declared: a substitute, a substitution, an operator, or the name of one.

    Args:
        declared: the decorated function, the object, ``"package.module.function"`` or ``"domain::Name"``.

    Raises:
        UsageError: nothing of the kind is declared.
    """
    operator = isinstance(declared, CustomOp) or (isinstance(declared, str) and "::" in declared)
    gone = custom_op.withdraw(declared) if operator else substitution.withdraw(declared)  # type: ignore[arg-type]
    if not gone:
        raise UsageError(f"{declared!r} is not declared here", "scopes end by themselves, with their block")


def files_with_operators(given: Sequence[Any]) -> list[Path]:
    """Those of what was given that are files which declare operators."""
    return [Path(one).resolve() for one in given if isinstance(one, str | Path) and _read(Path(one)).operators]


# -- files that declare ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Declaring:
    """What a file declared when it was read."""

    module: ModuleType
    substitutions: tuple[Substitution, ...]
    operators: tuple[CustomOp, ...]


_files: dict[str, _Declaring] = {}


def _add_file(path: Path, wanted: str, chosen: Scope[Substitution], operators: Scope[CustomOp]) -> None:
    """Declare what a file declares; it is read again only once it was edited."""
    found = _read(path)
    if not (found.substitutions if wanted == "substitution" else found.operators):
        example = (
            "decorate a function with @graphforge.substitute('full.name')"
            if wanted == "substitution"
            else "call graphforge.custom_op('domain::Name', inputs=[...], outputs=[...])"
        )
        raise GraphForgeError(f"{path} declares no {wanted}", example)
    for one in found.substitutions:
        chosen.add(one, {}, lambda other, one=one: other is one)  # type: ignore[misc]
    for op in found.operators:
        operators.add(op, {}, op.has_the_name_of)


def _read(path: Path) -> _Declaring:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}", "give a Python file that declares something")
    folder = path.resolve().parent
    with (
        reading,  # another thread that reads the file again would make outdated what is declared here
        SUBSTITUTIONS.scope(Scope(folder=folder)) as declared,
        CUSTOM_OPS.scope(Scope(folder=folder)) as operators,
    ):
        module = load_file(path, failed=f"{path} cannot be loaded")
        known = _files.get(module.__name__)
        if (known is None or known.module is not module) and not (declared.items() or operators.items()):
            # it was read before, for something else, so that what it declares went to the process
            module = load_file(path, failed=f"{path} cannot be loaded", fresh=True)
        if known is None or known.module is not module:
            known = _Declaring(module, tuple(declared.items()), tuple(operators.items()))
            _files[module.__name__] = known
        return known
