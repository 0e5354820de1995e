"""Keep one copy of constants that are equal: same type, shape and bytes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph
from graphforge.transform import Pass, Rewriter

__all__ = ["DeduplicateWeights"]

# About how many elements of a large tensor are looked at before it is read in full.
_SAMPLE = 2048


@dataclass(frozen=True)
class DeduplicateWeights(Pass):
    """Group by type and shape, then by storage, then by a sample, and only then by the whole content: linear.

    Attributes:
        max_bytes: larger constants are only compared by storage; 0 compares all in full.
    """

    name: ClassVar[str] = "deduplicate-weights"
    max_bytes: int = 0

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Merge equal initializers of the main graph."""
        groups: dict[Hashable, list[ir.Value]] = {}
        for value in graph.initializers.values():
            tensor = value.const_value
            if (
                tensor is None
                or value.is_graph_input()
                or value.is_graph_output()
                or tensor.dtype == ir.DataType.STRING
            ):
                continue
            groups.setdefault((tensor.dtype, tuple(tensor.shape.numpy())), []).append(value)
        for group in groups.values():
            if len(group) > 1:
                self._merge(group, rewriter)

    def _merge(self, group: list[ir.Value], rewriter: Rewriter) -> None:
        by_storage: dict[Hashable, ir.Value] = {}
        distinct: list[ir.Value] = []
        for value in group:
            assert value.const_value is not None
            kept = by_storage.setdefault(_storage(value.const_value), value)
            if kept is value:
                distinct.append(value)
            else:
                _replace(value, kept, rewriter)
        if len(distinct) < 2:
            return
        by_sample: dict[Hashable, list[ir.Value]] = {}
        for value in distinct:
            tensor = value.const_value
            assert tensor is not None
            if self.max_bytes and tensor.nbytes > self.max_bytes:
                continue
            by_sample.setdefault(_sample(tensor), []).append(value)
        for similar in by_sample.values():
            if len(similar) < 2:
                continue
            by_content: dict[bytes, ir.Value] = {}
            for value in similar:
                assert value.const_value is not None
                kept = by_content.setdefault(_digest(value.const_value), value)
                if kept is not value:
                    _replace(value, kept, rewriter)


def _replace(value: ir.Value, kept: ir.Value, rewriter: Rewriter) -> None:
    rewriter.replace_value(value, kept)
    rewriter.drop_initializer(value)


def _storage(tensor: ir.TensorProtocol) -> Hashable:
    """Where the elements lie; tensors that view the same memory, or the same place in a file, are equal."""
    if isinstance(tensor, ir.ExternalTensor):
        return ("file", str(tensor.path), tensor.offset)
    if isinstance(tensor, ir.LazyTensor):
        return ("lazy", id(tensor.raw))
    raw = getattr(tensor, "raw", None)
    if isinstance(raw, np.ndarray):
        return ("memory", raw.__array_interface__["data"][0], raw.strides, raw.nbytes)
    pointer = getattr(raw, "data_ptr", None)
    if callable(pointer) and raw is not None:
        return ("memory", pointer(), tuple(raw.stride()), tensor.nbytes)
    return ("object", id(tensor))


def _sample(tensor: ir.TensorProtocol) -> Hashable:
    """Some elements of a tensor, enough to tell most of them apart; lazy ones are not computed for it."""
    if isinstance(tensor, ir.LazyTensor) and tensor.size > _SAMPLE:
        return ("lazy", id(tensor.raw))
    array = tensor.numpy()
    if array.size > _SAMPLE:
        # A grid over all axes: it views any layout, where flattening a transposed weight would copy it.
        along = math.ceil(_SAMPLE ** (1 / array.ndim))
        array = array[tuple(slice(None, None, max(1, size // along)) for size in array.shape)]
    return array.tobytes()


def _digest(tensor: ir.TensorProtocol) -> bytes:
    return hashlib.blake2b(_bytes(tensor).data, digest_size=16).digest()


def _bytes(tensor: ir.TensorProtocol) -> np.ndarray:
    array = np.ascontiguousarray(tensor.numpy())
    return array.reshape(-1).view(np.uint8) if array.size else np.zeros((0,), np.uint8)
