"""Nodes by what users call them: their module, themselves, or a value that they compute."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.describe import node_name
from graphforge.ir.origin import origins_of

__all__ = ["is_inside", "nodes_named", "similar_names"]

# In messages.
_SHOWN = 8


def is_inside(node: ir.Node, module: str) -> bool:
    """Whether any of the node's origins lies in the module: a folded batch norm is still the convolution's too."""
    return any(origin.module == module or origin.module.startswith(f"{module}.") for origin in origins_of(node))


def nodes_named(nodes: Iterable[ir.Node], names: Iterable[str], purpose: str) -> set[ir.Node]:
    """The nodes that these names stand for.

    Args:
        nodes: to look among.
        names: paths of modules, which stand for all that is inside them, names of nodes, of values, or of values of
            the captured program; ``*`` stands for anything.
        purpose: what they are for, as it ends a message: ``to keep in float32``.

    Raises:
        GraphForgeError: nothing is called so.
    """
    among = list(nodes)
    found: set[ir.Node] = set()
    for name in names:
        named = {node for node in among if is_inside(node, name) or _is_called(node, name)}
        if not named:
            raise GraphForgeError(f"there is no module, node or value {name!r} {purpose}", *similar_names(among, name))
        found |= named
    return found


def similar_names(nodes: Iterable[ir.Node], name: str) -> list[str]:
    """Notes on what there is, the nearest first."""
    among = list(nodes)
    modules = {origin.module for node in among for origin in origins_of(node) if origin.module}
    known = [*modules, *(node_name(node) for node in among)]
    close = difflib.get_close_matches(name, known, n=3)
    return [
        *([f"did you mean {' or '.join(close)}?"] if close else []),
        *([f"modules: {', '.join(sorted(modules)[:_SHOWN])}"] if modules else []),
    ]


def _is_called(node: ir.Node, name: str) -> bool:
    called = [node.name, *(value.name for value in node.outputs)]
    called += [name for origin in origins_of(node) for name in (origin.module, origin.value) if name]
    return any(one is not None and fnmatch.fnmatchcase(one, name) for one in called)
