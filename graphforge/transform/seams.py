"""Seams: the graph is checked where it changes hands, and whoever broke it is named.

Between passes that is ``VerifyGraph``: in front of and behind every pass that is not ours, whose authors meet their
mistakes here for the first time, and behind every pass where asked.  Between the stages of a compilation, where the
graph reaches a level, it is ``check_level``.  A pass promises no level: a level is what a whole pipeline reaches.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphforge.errors import GraphForgeError, InternalError
from graphforge.ir import describe, here, nodes_of
from graphforge.ir.levels import Level
from graphforge.ir.verifier import first_problems
from graphforge.transform.base import Pass
from graphforge.user_code import is_ours, shown_path

if TYPE_CHECKING:
    from graphforge.transform.pipeline import PassRecord

__all__ = ["VerifyGraph", "check_level", "whose", "written_in"]


def written_in(thing: object) -> str:
    """Where the class of a pass (or target) is written: ``class Mine in passes.py:12``, as far as it is known."""
    kind = type(thing)
    try:
        place = f"{shown_path(inspect.getsourcefile(kind) or '?')}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):  # typed at a prompt: there is no file
        place = kind.__module__
    return f"class {kind.__qualname__} in {place}"


def whose(pass_: Pass) -> str:
    """Where a pass is written that is not ours, told as a note; "" for one of ours."""
    return "" if is_ours(type(pass_).__module__) else f"the pass is {written_in(pass_)}"


def check_level(model: ir.Model, level: Level | None, stage: str, *, owner: object = None) -> None:
    """Check that a graph is well formed and has reached a level (None: well formed is enough).

    Args:
        model: the graph.
        level: the level.
        stage: what has just been done, for the message: ``capture``, ``the canonical passes``.
        owner: who did it, where it may be somebody else than us: a target.

    Raises:
        InternalError: it has not.
        GraphForgeError: it has not, and the owner is not ours.
    """
    problems = first_problems(model, level)
    if not problems:
        return
    at = "" if level is None else f" at level {level.value}"
    message = f"after {stage} the graph is not valid{at}: {problems[0]}"
    if owner is not None and not is_ours(type(owner).__module__):
        raise GraphForgeError(message, *problems[1:], f"{stage} come from {written_in(owner)}")
    raise InternalError("\n  ".join([message, *problems[1:]]))


@dataclass
class VerifyGraph:
    """The instrument that checks between passes; every pipeline runs it, after passes that are not ours at least.

    Attributes:
        each: check around every pass, ours included.
    """

    each: bool = True
    _checked: bool = field(default=False, repr=False)
    _unstated: frozenset[str] = field(default=frozenset(), repr=False)

    def before(self, pass_: Pass, model: ir.Model) -> None:
        """What somebody else's pass is given is sound, or what we broke would be laid at its door.

        Raises:
            InternalError: it is not.
        """
        if not self._checked and (self.each or not is_ours(type(pass_).__module__)):
            problems = first_problems(model)
            if problems:
                raise InternalError("\n  ".join([f"before pass {pass_.name!r} the graph is not valid", *problems]))
            self._checked = True
        if not is_ours(type(pass_).__module__):
            self._unstated = frozenset(_unstated_domains(model))

    def after(self, pass_: Pass, model: ir.Model, record: PassRecord) -> None:
        """Check what the pass left.

        Raises:
            GraphForgeError: it is not sound, and the pass is not ours.
            InternalError: it is not sound, and the pass is ours.
        """
        if not self.each and not record.changes:
            return
        self._checked = False
        ours = is_ours(type(pass_).__module__)
        if ours and not self.each:
            return
        problems = first_problems(model)
        if not problems:
            self._checked = True
            if not ours:
                self._see_that_domains_are_stated(pass_, model)
            return
        message = f"the pass {pass_.name!r} leaves a graph that is not valid: {problems[0]}"
        if ours:
            raise InternalError("\n  ".join([message, *problems[1:]]))
        raise GraphForgeError(
            message,
            *problems[1:],
            whose(pass_),
            "nodes made by rewriter.builder(node) and put in place by rewriter.replace keep order, uses and types true",
        )

    def _see_that_domains_are_stated(self, pass_: Pass, model: ir.Model) -> None:
        """The level at the end asks for it; there the target would be named, not the pass."""
        for domain, node in _unstated_domains(model).items():
            if domain not in self._unstated:
                raise GraphForgeError(
                    f"the pass {pass_.name!r} leaves a graph that is not valid: {describe(node)}: "
                    f"the model does not say which version of the domain {domain!r} it uses",
                    here(node),
                    f"the pass is {written_in(pass_)}",
                    f"state it in the pass: rewriter.set_opset(1, {domain!r})",
                )


def _unstated_domains(model: ir.Model) -> dict[str, ir.Node]:
    """Domains whose version the model does not state, each with its first node."""
    stated = {"", "graphforge", *model.graph.opset_imports, *(one.domain for one in model.functions.values())}
    found: dict[str, ir.Node] = {}
    for node in nodes_of(model.graph):
        if node.domain not in stated:
            found.setdefault(node.domain, node)
    return found
