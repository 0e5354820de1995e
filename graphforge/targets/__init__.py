"""Where a model can go: a lazy registry of targets, name -> factory.  Importing it imports no vendor."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from graphforge.errors import GraphForgeError, UsageError
from graphforge.runners.runner import Runner
from graphforge.targets.options import option, options_for
from graphforge.targets.target import EmitResult, Target, TargetOptions

__all__ = [
    "EmitResult",
    "Runner",
    "Target",
    "TargetOptions",
    "get_target",
    "option",
    "options_for",
    "target_names",
    "target_origin",
]

ENTRY_POINT_GROUP = "graphforge.targets"

# Name -> "module:class"; the module is imported only when the target is asked for.
_BUILT_IN = {
    "onnx": "graphforge.targets.onnx:OnnxTarget",
    "tensorrt": "graphforge.targets.tensorrt:TensorRTTarget",
    "magicmind": "graphforge.targets.magicmind:MagicMindTarget",
    "openvino": "graphforge.targets.openvino:OpenVINOTarget",
}


def target_names() -> tuple[str, ...]:
    """Every known target's name: the built-in ones first, then those that installed packages add."""
    return tuple(_known())


def get_target(name: str) -> Target:
    """The target of that name; imports its module, but no vendor package.

    Raises:
        UsageError: there is no target of that name.
        GraphForgeError: an installed package's target cannot be imported, falls short of the contract, or takes a name
            already taken.
    """
    known = _known()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"unknown target {name!r}",
            f"did you mean {close[0]!r}?" if close else "",
            f"known targets: {', '.join(known)}",
        )
    place = known[name]
    if isinstance(place, EntryPoint):
        return _loaded(place)
    module, _, attribute = place.partition(":")
    return cast(Target, getattr(importlib.import_module(module), attribute)())


def target_origin(name: str) -> str:
    """Where a known target comes from: "" for one of ours, else its package and the place in it."""
    place = _known()[name]
    if not isinstance(place, EntryPoint):
        return ""
    package = f"{place.dist.name} {place.dist.version}, " if place.dist is not None else ""
    return f"{package}{place.value}"


def _known() -> dict[str, str | EntryPoint]:
    known: dict[str, str | EntryPoint] = dict(_BUILT_IN)
    for entry in _installed():
        taken = known.setdefault(entry.name, entry)
        if taken is not entry:
            first = taken.value if isinstance(taken, EntryPoint) else taken
            raise GraphForgeError(
                f"target name {entry.name!r} is taken twice: by {first} and by {entry.value}",
                f"a package registers it under the entry point group {ENTRY_POINT_GROUP!r}: rename or remove it",
            )
    return known


def _installed() -> Iterable[EntryPoint]:
    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value))


def _loaded(entry: EntryPoint) -> Target:
    from graphforge.targets.contract import check_contract

    try:
        target = entry.load()()
    except Exception as error:  # a package of somebody else's may fail in any way
        raise GraphForgeError(
            f"target {entry.name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}",
            f"repair or uninstall the package that registers it{f': {entry.dist.name}' if entry.dist else ''}",
        ) from error
    check_contract(target, entry.name, entry.value)
    return cast(Target, target)
