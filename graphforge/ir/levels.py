"""Levels: what may stand in a graph on its way from capture to a target, as one table checked at the seams."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["LEVEL_RULES", "Level", "LevelRule"]


class Level(enum.Enum):
    """How far a graph has come."""

    CAPTURED = "captured"
    CANONICAL = "canonical"
    LEGAL = "legal"


@dataclass(frozen=True, slots=True)
class LevelRule:
    """What a level promises beyond a well-formed graph.

    Attributes:
        types_known: every value has an element type, where it can be known: operators of other domains need not say it.
        constants_are_initializers: no ``Constant`` node stands in the graph.
        functions_inlined: the model has no functions of its own.
        standard_opset_is_home: operators of the default domain are written in the home opset.
        semantic_ops: nodes of the ``graphforge`` domain may stand.
        domains_imported: the model says which version of each domain it uses, as a file has to.
        forbidden_ops: operators of the default domain that may not stand at all, with the reason.
    """

    types_known: bool
    constants_are_initializers: bool
    functions_inlined: bool
    standard_opset_is_home: bool
    semantic_ops: bool
    domains_imported: bool = False
    forbidden_ops: tuple[tuple[str, str], ...] = ()


LEVEL_RULES: dict[Level, LevelRule] = {
    Level.CAPTURED: LevelRule(
        types_known=False,
        constants_are_initializers=True,
        functions_inlined=True,
        standard_opset_is_home=True,
        semantic_ops=True,
    ),
    Level.CANONICAL: LevelRule(
        types_known=True,
        constants_are_initializers=True,
        functions_inlined=True,
        standard_opset_is_home=True,
        semantic_ops=True,
        forbidden_ops=(("CastLike", "it becomes a Cast as soon as the type is known"),),
    ),
    # The opset is the target's own here, and what else may stand is the target's legality table.
    Level.LEGAL: LevelRule(
        types_known=False,
        constants_are_initializers=False,
        functions_inlined=False,
        standard_opset_is_home=False,
        semantic_ops=False,
        domains_imported=True,
    ),
}
