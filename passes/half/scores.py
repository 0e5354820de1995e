"""Scores: how large the products of queries and keys inside an Attention may be on the samples.

The operator hands them out nowhere.  A score is at most the length of its query times that of its key, and lengths are
measured: ReduceL2 over what each head reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.ranges import Samples, measure
from graphforge.transform import Rewriter

__all__ = ["largest_scores"]

# Positions of what an Attention reads: queries, keys, and keys of earlier calls.
_QUERIES, _KEYS, _EARLIER = 0, 1, 4


def largest_scores(model: ir.Model, samples: Samples) -> dict[int, float]:
    """Place of each Attention in the main graph -> what none of its scaled scores is larger than."""
    if not any(_is_attention(node) for node in model.graph):
        return {}
    copy = model.clone()
    rewriter = Rewriter(copy, pass_name="scores")
    probes: dict[int, tuple[list[str], list[str], float]] = {}
    for place, node in enumerate(list(copy.graph)):
        if not _is_attention(node):
            continue
        queries = _lengths(rewriter, node, [_QUERIES])
        keys = _lengths(rewriter, node, [_KEYS, _EARLIER])
        size = _size_of_head(node)
        scale = node.attributes["scale"].as_float() if "scale" in node.attributes else None
        if queries and keys and (scale or size):
            probes[place] = (queries, keys, scale or 1 / math.sqrt(size or 1))
    names = {name for queries, keys, _ in probes.values() for name in (*queries, *keys)}
    copy.graph.outputs.extend(value for node in copy.graph for value in node.outputs if value.name in names)
    found = measure(runnable(copy), samples, only=names)
    return {
        place: abs(scale) * math.prod(max(found[name].ordinary for name in side) for side in (queries, keys))
        for place, (queries, keys, scale) in probes.items()
    }


def _is_attention(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type == "Attention"


def _lengths(rewriter: Rewriter, node: ir.Node, positions: Sequence[int]) -> list[str]:
    """Names of the lengths of what the node reads there, a number for each row of each head."""
    names = []
    for position in positions:
        value = node.inputs[position] if position < len(node.inputs) else None
        if value is None or value.shape is None or value.dtype != ir.DataType.FLOAT:
            continue
        op = rewriter.builder(None)
        if len(value.shape) == 3:
            heads = _heads(node.attributes, "q_num_heads" if position == _QUERIES else "kv_num_heads")
            value = op.Reshape(value, [0, 0, heads, -1])
        length = op.ReduceL2(value, [-1])
        rewriter.forget_fresh()
        names.append(str(length.name))
    return names


def _size_of_head(node: ir.Node) -> int | None:
    queries = node.inputs[_QUERIES]
    size = None if queries is None or queries.shape is None else queries.shape[-1]
    if queries is None or queries.shape is None or not isinstance(size, int):
        return None
    return size // _heads(node.attributes, "q_num_heads") if len(queries.shape) == 3 else size


def _heads(attributes: Mapping[str, ir.Attr], name: str) -> int:
    return attributes[name].as_int() if name in attributes else 1
