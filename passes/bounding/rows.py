"""Rows: the ragged axis of a tensor, as positions in a dense axis of fixed size, of which some are valid.

``boxes[scores > 0.5]`` has a size that depends on data.  In fixed shapes it is ``boxes`` itself with a mask: nothing is
moved, the positions that the mask leaves out just do not count.  A ragged axis is of one of two kinds:

- *masked*: any position may be valid; ``mask`` says which.  Picking by a mask makes these, at the cost of an And.
- *prefix*: the first ``count`` positions are valid.  Top-k and suppression make these, and every output is one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphforge.ir import Builder

__all__ = ["Extent", "Ragged", "Refusal", "Rows", "RowsTable", "Square"]

_INT = ir.DataType.INT64


class Refusal(Exception):
    """A node that cannot be carried in fixed shapes; the pass adds where it stands."""


@dataclass(eq=False)
class Rows:
    """One ragged axis; tensors that were picked in the same way share it.

    Attributes:
        size: number of positions, valid or not.
        key: what determines the number of valid positions; equal keys of prefix rows are equal counts.
        parts: the rows that were concatenated into these.
        repeats: (rows, n) when every position of those rows became n neighbouring positions.
    """

    size: int
    key: Hashable
    parts: tuple[Rows, ...] = ()
    repeats: tuple[Rows, int] | None = None
    _mask: ir.Value | None = None
    _count: ir.Value | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether the valid positions are the first ones."""
        return self._mask is None

    @property
    def is_full(self) -> bool:
        """Whether every position is valid always."""
        return self._mask is None and self._count is None

    def mask(self, op: Builder) -> ir.Value:
        """bool [size]: which positions are valid."""
        if self._mask is not None:
            return self._mask
        if self._count is None:
            return op.constant(np.ones(self.size, dtype=bool))
        valid: ir.Value = op.Less(op.constant(np.arange(self.size, dtype=np.int64)), self._count)
        return valid

    def count(self, op: Builder) -> ir.Value:
        """int64 []: how many positions are valid."""
        if self._count is None:
            if self._mask is None:
                return op.constant(self.size)
            self._count = op.ReduceSum(op.Cast(self._mask, to=_INT), op.constant([0]), keepdims=0)
        return self._count

    def places(self, op: Builder) -> ir.Value:
        """int64 [size]: the valid positions in order, then others."""
        if self.is_prefix:
            return op.constant(np.arange(self.size, dtype=np.int64))
        # distinct keys, so that no target's treatment of ties matters; exact in float32 up to 2^24 positions
        key = op.constant(np.arange(self.size, 0, -1, dtype=np.float32))
        ordered: ir.Value = op.TopK(op.Where(self._mask, key, op.constant(0.0)), op.constant([self.size]), _outputs=2)[
            1
        ]
        return ordered

    def ranks(self, op: Builder) -> ir.Value:
        """int64 [size]: for each valid position, which one it is."""
        if self.is_prefix:
            return op.constant(np.arange(self.size, dtype=np.int64))
        ranked: ir.Value = op.Max(op.Sub(op.CumSum(op.Cast(self._mask, to=_INT), op.constant(0)), 1), 0)
        return ranked


@dataclass(frozen=True)
class Ragged:
    """A tensor with a ragged axis, in fixed shape.

    Attributes:
        dense: the tensor in fixed shape; what stands at positions that are not valid means nothing.
        axis: the ragged one.
        rows: which positions are valid.
        into: the elements are positions in these rows (not ranks among the valid ones).
        iota: the elements are 0, 1, 2, ... along the axis.
    """

    dense: ir.Value
    axis: int
    rows: Rows
    into: Rows | None = None
    iota: bool = False


@dataclass(frozen=True)
class Square:
    """A tensor with two ragged axes of the same rows, in fixed shape.

    Attributes:
        dense: the tensor in fixed shape.
        axes: the ragged ones, in order.
        rows: which positions are valid, along both.
    """

    dense: ir.Value
    axes: tuple[int, int]
    rows: Rows


@dataclass(frozen=True)
class Extent:
    """A size that depends on data, as a number in the graph.

    Attributes:
        bound: it is never more.
        key: what determines it; the key of some rows when it is their count.
    """

    bound: int
    key: Hashable


@dataclass
class RowsTable:
    """All ragged axes of a graph; the same selection gives the same rows."""

    _by_key: dict[tuple[int, Hashable], Rows] = field(default_factory=dict)
    _by_count: dict[Hashable, Rows] = field(default_factory=dict)

    def masked(self, op: Builder, mask: ir.Value, size: int, of: Rows | None = None) -> Rows:
        """The rows that a mask picks, out of all or out of the valid ones of other rows."""
        key = ("mask", mask, of)
        known = self._by_key.get((size, key))
        if known is None:
            combined = mask if of is None or of.is_full else op.And(of.mask(op), mask)
            known = self._add(Rows(size, key, _mask=combined))
        return known

    def prefix(self, size: int, key: Hashable, count: ir.Value | None) -> Rows:
        """The first ``count`` of ``size``."""
        known = self._by_key.get((size, key))
        return known or self._add(Rows(size, key, _count=count))

    def full(self, size: int) -> Rows:
        """All of a dense axis."""
        return self.prefix(size, ("full", size), None)

    def joined(self, op: Builder, parts: tuple[Rows, ...]) -> Rows:
        """Rows one after the other."""
        size = sum(part.size for part in parts)
        key = ("joined", parts)
        known = self._by_key.get((size, key))
        if known is None:
            mask = op.Concat(*(part.mask(op) for part in parts), axis=0)
            known = self._add(Rows(size, key, parts=parts, _mask=mask))
        return known

    def repeated(self, op: Builder, rows: Rows, times: int) -> Rows:
        """Every position becomes ``times`` neighbouring ones."""
        key = ("repeated", rows, times)
        known = self._by_key.get((rows.size * times, key))
        if known is None:
            grid = op.Expand(op.Unsqueeze(rows.mask(op), [1]), [rows.size, times])
            known = self._add(Rows(rows.size * times, key, repeats=(rows, times), _mask=op.Reshape(grid, [-1])))
        return known

    def counted(self, extent: Extent) -> Rows | None:
        """The rows whose count a size is."""
        return self._by_count.get(extent.key)

    def extent(self, rows: Rows) -> Extent:
        """The count of rows as a size."""
        return Extent(rows.size, ("count", rows))

    def least(self, limit: int, extent: Extent) -> Extent:
        """min(limit, extent)"""
        if limit >= extent.bound:
            return extent
        return Extent(limit, ("least", limit, extent.key))

    def completing(self, extent: Extent, rows: Rows) -> int | None:
        """The k of ``k - n`` where n is the count of these rows; None where a size is not that."""
        key = extent.key
        if not isinstance(key, tuple) or len(key) != 2 or key[0] != "Sub" or len(key[1]) != 2:
            return None
        total, count = key[1]
        return total if isinstance(total, int) and self._by_count.get(count) is rows else None

    def of_extent(self, op: Builder, extent: Extent, count: ir.Value) -> Rows:
        """Prefix rows of as many positions as a size says; the rows whose count it is, where they are a prefix."""
        rows = self.counted(extent)
        if rows is not None and rows.is_prefix:
            return rows
        made = self.prefix(extent.bound, ("of", extent.key), count)
        self._by_count.setdefault(extent.key, made)
        return made

    def _add(self, rows: Rows) -> Rows:
        self._by_key[rows.size, rows.key] = rows
        self._by_count[("count", rows)] = rows
        return rows
