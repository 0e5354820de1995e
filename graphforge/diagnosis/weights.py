"""The weights of the file against the model's, before anything is run: other weights give other values everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from graphforge.diagnosis.artifact import Artifact
from graphforge.runners.arrays import Array

__all__ = ["Weights", "weights_of"]

# A single number is a bound or a factor.
_SMALL = 2
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
# What a fold into a weight may round.
_ROUNDING = 1e-5
# Above this share another model is meant, not a fault in a place.
_MANY = 0.5


@dataclass(frozen=True, slots=True)
class Weights:
    """How the weights compare.

    Attributes:
        compared: tensors that stand under one name on both sides.
        differing: those that are not the same.
    """

    compared: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def are_others(self) -> bool:
        """Most of them differ: the two are not of one model."""
        return len(self.differing) > 1 and len(self.differing) > _MANY * len(self.compared)

    def describe(self) -> str:
        """``weights differ in 3 of 120 tensors: head.weight, ...``, "" where none does."""
        if not self.differing:
            return ""
        named = ", ".join(self.differing[:5]) + (", ..." if len(self.differing) > 5 else "")
        return f"weights differ in {len(self.differing)} of {len(self.compared)} tensors: {named}"


def weights_of(artifact: Artifact, reference: Mapping[str, Array]) -> Weights:
    """The file's weights against the reference's of the same names; a transposed one counts as the same."""
    compared, differing = [], []
    for tensor in artifact.proto.graph.initializer:
        if tensor.name.removesuffix("_transposed") not in reference and tensor.name not in reference:
            continue
        if int(np.prod(tensor.dims, dtype=np.int64)) < _SMALL:
            continue
        if tensor.data_type not in _FLOATS:
            continue
        mine = artifact.elements_of(tensor)
        theirs = reference.get(tensor.name)
        if theirs is None:
            theirs = reference[tensor.name.removesuffix("_transposed")].T
        compared.append(tensor.name)
        if not _same(mine, theirs):
            differing.append(tensor.name)
    return Weights(tuple(compared), tuple(differing))


def _same(mine: Array, theirs: Array) -> bool:
    if mine.shape != theirs.shape:
        return False
    if np.array_equal(mine, theirs):
        return True
    narrow = min((mine.dtype, theirs.dtype), key=lambda dtype: dtype.itemsize)
    largest = float(np.max(np.abs(theirs.astype(np.float64)), initial=0.0)) or 1e-30
    allowed = max(_ROUNDING, float(np.finfo(narrow).eps)) if narrow.itemsize < 4 else _ROUNDING
    apart = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
    return bool(np.max(apart, initial=0.0) <= allowed * largest)
