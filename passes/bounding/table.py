"""What each operator does to ragged tensors carried in fixed shapes: the table, filled by one file for each kind.

A bounding reads what is known of the inputs from the walk, builds the fixed form, and says what is known of the
outputs.
"""

from __future__ import annotations

from graphforge.passes.bounding import elementwise, picking, row_by_row, shapes, sources
from graphforge.passes.bounding.common import BOUNDINGS
from graphforge.passes.bounding.elementwise import ELEMENTWISE
from graphforge.passes.bounding.square import SQUARES

__all__ = ["BOUNDINGS", "ELEMENTWISE", "SOURCES", "SQUARES"]

# Operators whose result is ragged although no input is.
SOURCES = frozenset({"NonZero", "Compress", "BatchedNMS", "SoftNMS", "NMSRotated"})

assert all((elementwise, picking, row_by_row, shapes, sources))  # importing them fills the table
