"""Ragged tensors in fixed shapes: what a ragged axis is (``rows``) and what each operator does to one (``table``)."""

from __future__ import annotations

from graphforge.passes.bounding.rows import Ragged, Refusal, Rows, RowsTable
from graphforge.passes.bounding.walk import Walk

__all__ = ["Ragged", "Refusal", "Rows", "RowsTable", "Walk"]
