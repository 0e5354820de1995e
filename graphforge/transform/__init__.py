"""Passes and what drives them: Pass, Rewriter, Rule, Pipeline, instruments and the registry."""

from __future__ import annotations

from graphforge.transform.account import explain, idle_notes, near_misses, pass_times
from graphforge.transform.base import Pass
from graphforge.transform.facts import (
    bodies_of,
    dims_of,
    has_one_use,
    int_attribute,
    ints_attribute,
    is_constant,
    is_op,
    known_dims,
    rank_of,
    scalar_of,
    use_count,
)
from graphforge.transform.listener import RewriteListener
from graphforge.transform.pipeline import Instrument, PassRecord, Pipeline, count_nodes, make_pass
from graphforge.transform.print_after import PrintAfter
from graphforge.transform.registry import PassRegistry, default_registry, load_pass_from_file
from graphforge.transform.rewriter import NearMiss, Rewriter, RewriterBuilder
from graphforge.transform.rewrites import Rewrite, RewriteLog
from graphforge.transform.rule import Match, NoMatch, Replacement, Rule
from graphforge.transform.seams import VerifyGraph, check_level

__all__ = [
    "Instrument",
    "Match",
    "NearMiss",
    "NoMatch",
    "Pass",
    "PassRecord",
    "PassRegistry",
    "Pipeline",
    "PrintAfter",
    "Replacement",
    "Rewrite",
    "RewriteListener",
    "RewriteLog",
    "Rewriter",
    "RewriterBuilder",
    "Rule",
    "VerifyGraph",
    "bodies_of",
    "check_level",
    "count_nodes",
    "default_registry",
    "dims_of",
    "explain",
    "has_one_use",
    "idle_notes",
    "int_attribute",
    "ints_attribute",
    "is_constant",
    "is_op",
    "known_dims",
    "load_pass_from_file",
    "make_pass",
    "near_misses",
    "pass_times",
    "rank_of",
    "scalar_of",
    "use_count",
]
