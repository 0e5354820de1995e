"""Merge what only rearranges dims: Reshape, Flatten, Squeeze, Unsqueeze in a row become one Reshape or none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, Node, Value, constant_of, nodes_of
from graphforge.ir.sizes import PROMISED_SIZES, may_be_zero
from graphforge.passes.remove_identities import dims_equal
from graphforge.transform import Pass, Rewriter, dims_of, int_attribute, ints_attribute, is_op

__all__ = ["MergeReshapes"]

_RESHAPING = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))


@dataclass(frozen=True)
class MergeReshapes(Pass):
    """One walk: each reshaping node reads as far up as it can."""

    name: ClassVar[str] = "merge-reshapes"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge them in the graph and its bodies."""
        for node in nodes_of(graph):
            if node.domain == "" and node.op_type in _RESHAPING:
                _merge(node, rewriter)


def _merge(node: Node, rewriter: Rewriter) -> None:
    """Let the node read from as far up as its result can be told from there."""
    chain = [node]
    while (above := _reshaping_producer(chain[-1])) is not None:
        chain.append(above)
    output = node.outputs[0]
    for length in range(len(chain), 1, -1):
        origin = chain[length - 1].inputs[0]
        assert origin is not None
        if dims_equal(origin, output):
            if output.is_graph_output() and (origin.producer() is None or origin.is_graph_output()):
                return  # an Identity would take its place
            rewriter.replace(chain[:length], origin)
            return
        target = reshape_target(origin, output, promised_zeros(rewriter)) or _absolute_target(node)
        if target is not None:
            shape, allowzero = target
            op = rewriter.builder(node)
            rewriter.replace(chain[:length], op.Reshape(origin, shape, allowzero=allowzero or None))
            return
    if len(chain) > 1:
        rewriter.declined("the target depends on the shape in between", node)


def _reshaping_producer(node: Node) -> Node | None:
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    if producer is None or producer.graph is not node.graph or producer.inputs[0] is None:
        return None
    return producer if _only_moves_dims(producer) else None


def _only_moves_dims(node: Node) -> bool:
    if node.domain != "":
        return False
    return node.op_type in _RESHAPING or (is_op(node, "Transpose") and moves_ones_only(node))


def moves_ones_only(node: Node) -> bool:
    """Whether a Transpose leaves all elements in place because only dims of size 1 change places."""
    dims = dims_of(node.inputs[0])
    if dims is None:
        return False
    perm = ints_attribute(node, "perm") or tuple(reversed(range(len(dims))))
    kept = [axis for axis in perm if dims[axis] != 1]
    return kept == sorted(kept)


def reshape_target(source: Value, result: Value, zeros: Collection[str] = ()) -> tuple[list[int], int] | None:
    """A constant target that reshapes ``source`` to the dims of ``result``, with ``allowzero``; None if there is none.

    Numbers are written out, a named dim at the same place as in the source is copied by 0, one more may be -1.  Not so
    where what is copied may be 0, as it may be of the dims whose names are in ``zeros``.
    """
    ours, theirs = dims_of(source), dims_of(result)
    if ours is None or theirs is None:
        return None
    if all(isinstance(dim, int) for dim in theirs):
        sizes = [dim for dim in theirs if isinstance(dim, int)]
        return sizes, int(0 in sizes)
    if 0 in theirs or 0 in ours:
        return None
    target: list[int] = []
    for axis, dim in enumerate(theirs):
        if isinstance(dim, int):
            target.append(dim)
        elif axis < len(ours) and dim.value is not None and ours[axis] == dim:
            target.append(0)
        elif -1 in target:
            return None
        else:
            target.append(-1)
    if -1 in target and any(may_be_zero(dim.value, zeros) for dim in theirs if not isinstance(dim, int)):
        return None  # besides a copied dim of size 0, a -1 has no value
    return target, 0


def promised_zeros(rewriter: Rewriter) -> frozenset[str]:
    """The names of the dims that are promised from 0 on."""
    promised = rewriter.model.meta.get(PROMISED_SIZES, {})
    return frozenset(name for name, sizes in promised.items() if 0 in sizes)


def _absolute_target(node: Node) -> tuple[list[int], int] | None:
    """The target of a Reshape when it does not look at the dims of its input."""
    if node.op_type != "Reshape":
        return None
    target = constant_of(node.inputs[1])
    if target is None:
        return None
    allowzero = int_attribute(node, "allowzero", 0)
    if (target == 0).any() and not allowzero:
        return None
    return [int(size) for size in target], allowzero
