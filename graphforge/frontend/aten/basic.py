"""Identity-like operators: those that change nothing an artifact can see."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []


@lowers(
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.resolve_conj.default",
    "aten.resolve_neg.default",
    "aten.positive.default",
)
def identity(op: Emitter, value: ir.Value, *_: Any, **__: Any) -> ir.Value:
    """The operand itself: memory layout and autograd have no meaning in an artifact."""
    return value


@lowers("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")
def dropout(op: Emitter, value: ir.Value, p: float, train: bool) -> ir.Value:
    """Nothing in inference.

    Raises:
        LoweringError: the model was captured in training mode.
    """
    if train and p > 0:
        raise op.fail("dropout is active", "call model.eval() before compiling")
    return value


@lowers(
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten.to.device",
    "aten.to.other",
    "aten.type_as.default",
    "aten._to_copy.default",
)
def to(op: Emitter, value: ir.Value, *_: Any, **__: Any) -> ir.Value:
    """A cast to the dtype that capture says the result has; devices and layouts are dropped."""
    return op.cast(value, op.dtype_of())


@lowers("aten.sym_size.int")
def sym_size(op: Emitter, value: ir.Value, dim: int) -> Any:
    """One size of a tensor."""
    return op.size(value, dim)


@lowers("aten.native_dropout.default")
def native_dropout(op: Emitter, value: ir.Value, p: float, train: bool | None) -> tuple[ir.Value, Any]:
    """Nothing in inference, and a mask that keeps everything.

    Raises:
        LoweringError: the model was captured in training mode.
    """
    kept = op.Expand(True, op.Shape(value)) if op.wants(1) else None
    return dropout(op, value, p, train is not False), kept


@lowers("aten.sym_numel.default")
def sym_numel(op: Emitter, value: ir.Value) -> Any:
    """The number of elements."""
    from graphforge.frontend.symbolic import symbolic_result

    return symbolic_result(op, op.Size(value), op.result)


@lowers("aten.item.default", "aten._local_scalar_dense.default")
def item(op: Emitter, value: ir.Value) -> Any:
    """The one element of a tensor, as a number known at run time."""
    from graphforge.frontend.symbolic import symbolic_result

    number = op.number(value)
    if number is not None:
        return number
    scalar = op.Reshape(value, op.constant([], ir.DataType.INT64)) if op.rank(value) else value
    kinds = {torch.SymInt: ir.DataType.INT64, torch.SymBool: ir.DataType.BOOL}
    wanted = kinds.get(type(op.result), ir.DataType.DOUBLE)
    return symbolic_result(op, op.cast(scalar, wanted), op.result)


@lowers("aten.size.default", "aten.sym_size.default")
def size(op: Emitter, value: ir.Value) -> Any:
    """All sizes of a tensor."""
    return op.dims(value)
