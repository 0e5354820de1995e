"""CastLike is Cast as soon as the type is known."""

from __future__ import annotations

from graphforge.ir import schema_of
from graphforge.passes.opset.step import Step, Values

__all__ = ["cast_like"]


def cast_like(step: Step) -> Values:
    """CastLike(x, like)  ==>  Cast(x, to=type of like)."""
    schema = schema_of("Cast", "", step.opset)
    assert schema is not None
    attributes = {
        name: attribute.value for name, attribute in step.node.attributes.items() if name in schema.attributes
    }
    return [step.op.Cast(step.need(0), to=step.dtype(1).value, **attributes)]
