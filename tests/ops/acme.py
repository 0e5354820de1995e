"""An operator of somebody's own, acme::ScaledSort, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphforge.ops.custom_op import TensorFact, custom_op

__all__ = ["declare", "sort_shapes"]


def sort_shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    first = inputs[0]
    assert first is not None
    assert attributes["axis"] == -1
    return [first, TensorFact("int64", first.shape)]


def declare(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "inputs": ["x", "scale: float", "mask: bool?"],
        "outputs": ["sorted", "order: int64"],
        "attributes": {"axis": -1, "mode": str},
        "shapes": sort_shapes,
    }
    return custom_op("acme::ScaledSort", **{**settings, **changes})
