"""Lower a torch operator to the operator of the user's own that a declaration names for it (``ops/custom_op.py``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from graphforge.errors import LoweringError
from graphforge.frontend.emitter import Emitter, SymbolicScalar
from graphforge.ops.custom_op import CustomOp, declared_ops

__all__ = ["declared_for", "lower_declared"]


def declared_for(target: torch._ops.OpOverload) -> CustomOp | None:
    """The declaration whose ``torch_name`` is this operator, ``acme::scaled_sort``; None when there is none."""
    name = target.name().split(".")[0]
    return next((one for one in declared_ops() if one.torch_name == name), None)


def lower_declared(
    op: Emitter,
    declared: CustomOp,
    target: torch._ops.OpOverload,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Any:
    """One node: arguments named like a declared input are inputs, those named like an attribute are attributes.

    Raises:
        LoweringError: an argument has neither, or an input or attribute gets what it cannot hold.
    """
    given = {argument.name: value for argument, value in zip(target._schema.arguments, arguments, strict=False)}
    given |= keywords
    inputs: list[ir.Value | None] = []
    for parameter in declared.inputs:
        value = given.pop(parameter.name, None)
        if parameter.variadic:
            inputs += list(value or ())
            continue
        if value is None and not parameter.optional:
            raise LoweringError(
                f"{declared.qualified_name}: the call gives nothing for input {parameter.name!r}",
                f"name the inputs as {target} names its arguments: {_names(target)}",
            )
        inputs.append(value if value is None or isinstance(value, ir.Value) else op.scalar(value))
    attributes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in declared.attributes:
            raise LoweringError(
                f"{declared.qualified_name}: argument {name!r} of {target} is not a declared input or attribute",
                f"inputs: {', '.join(one.name for one in declared.inputs)}; "
                f"attributes: {', '.join(declared.attributes) or 'none'}",
            )
        if isinstance(value, ir.Value | SymbolicScalar):
            raise LoweringError(
                f"{declared.qualified_name}: attribute {name!r} is known at run time only", "declare it as an input"
            )
        if value is not None:
            attributes[name] = value
    op.constants.opset_imports.setdefault(declared.domain, declared.version)
    return op.node(declared.name, inputs, _domain=declared.domain, _outputs=len(declared.outputs), **attributes)


def _names(target: torch._ops.OpOverload) -> str:
    return ", ".join(argument.name for argument in target._schema.arguments)
