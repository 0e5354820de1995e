"""Rows of tables: embedding, embedding_bag, one_hot."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import operator
from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten.index import gather_index
from graphforge.frontend.aten.scatter import neutral_of, reduced_in
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_INT64 = ir.DataType.INT64


@lowers("aten.embedding.default")
def embedding(op: Emitter, weight: ir.Value, indices: ir.Value, *_: Any, **__: Any) -> ir.Value:
    """One row for each index."""
    return op.Gather(weight, gather_index(op, indices), axis=0)


@lowers("aten.one_hot.default")
def one_hot(op: Emitter, x: ir.Value, num_classes: int = -1) -> ir.Value:
    """Class numbers as rows of zeros with a one."""
    if op.rank(x) == 0:
        return op.squeeze(one_hot(op, op.unsqueeze(x, [0]), num_classes), [0])
    depth: Any = num_classes
    if num_classes == -1:
        depth = op.Add(op.ReduceMax(x, None, keepdims=0), 1)
    return op.OneHot(x, op.scalar(depth, _INT64), op.constant([0, 1], x.dtype), axis=-1)


@lowers(
    "aten.embedding_bag.default",
    "aten.embedding_bag.padding_idx",
    "aten._embedding_bag.default",
    "aten._embedding_bag_forward_only.default",
)
def embedding_bag(
    op: Emitter,
    weight: ir.Value,
    indices: ir.Value,
    offsets: ir.Value,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: ir.Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[ir.Value | None, ...]:
    """Sums, means or maxima of rows, bag by bag: every row is scattered to the number of its bag.

    Raises:
        LoweringError: results beside the bags are wanted, which only training uses.
    """
    for user in op.fx_node.users if op.fx_node is not None else ():
        if user.target is operator.getitem and user.args[1] != 0 and user.users:
            raise op.fail("only the first result has a lowering; the others serve training")
    dtype = weight.dtype
    assert dtype is not None
    kind = ("sum", "mean", "amax")[mode]
    carrier = reduced_in(dtype)
    indices, offsets = op.cast(indices, _INT64), op.cast(offsets, _INT64)
    rows = op.cast(op.Gather(weight, indices, axis=0), carrier)
    if per_sample_weights is not None:
        rows = op.Mul(rows, op.unsqueeze(op.cast(per_sample_weights, carrier), [1]))
    bags = op.size(offsets, 0)
    count = op.Shape(indices)
    # the running sum of marks at the offsets is the number of the bag; an offset may stand behind the last index
    marks = op.ScatterElements(
        op.Expand(op.constant(0), op.Add(count, 1)), offsets, op.Expand(1, op.Shape(offsets)), axis=0, reduction="add"
    )
    bag = op.Sub(op.Slice(op.CumSum(marks, op.constant(0)), [0], count, [0], [1]), 1)
    if op.target == "aten.embedding_bag.padding_idx" and padding_idx is not None and padding_idx < 0:
        padding_idx += op.static_size(weight, 0)
    if padding_idx is not None and padding_idx >= 0:  # the inner operators say -1 for none
        # rows of the padding go to one bag more than there are
        bag = op.Where(op.Equal(indices, padding_idx), op.scalar(bags, _INT64), bag)
    places = op.unsqueeze(bag, [1])
    size = op.Add(op.constant(op.vector([bags])), 1)
    shape = op.Concat(size, op.constant(op.vector([op.size(weight, 1)])), axis=0)
    start = op.Expand(op.scalar(neutral_of(kind, carrier), carrier), shape)
    result = op.ScatterND(start, places, rows, reduction="max" if kind == "amax" else "add")
    if kind != "sum":
        ones = op.Expand(op.constant(1, carrier), count)
        filled = op.ScatterND(op.Expand(op.constant(0, carrier), size), places, ones, reduction="add")
        filled = op.unsqueeze(filled, [1])
        if kind == "mean":
            result = op.Div(result, op.Max(filled, op.scalar(1, carrier)))
        else:
            result = op.Where(op.Equal(filled, op.scalar(0, carrier)), op.scalar(0, carrier), result)
    end = bags if not include_last_offset else (bags - 1 if isinstance(bags, int) else -2)
    return op.cast(op.slice(result, 0, 0, end), dtype), None, None, None
