"""Step: one node on its way over one version, with what the step wants to know about it and may do to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import onnx_ir as ir

from graphforge.ir import Operand, constant_of
from graphforge.transform import Rewriter, RewriterBuilder

__all__ = ["NoLowerForm", "Step", "StepDown", "Values"]

Values: TypeAlias = Sequence["ir.Value | None"]
"""What replaces the node, one value for each of its outputs."""

_MANY = 1 << 20
# Element types that have fewer bits than float's mantissa needs: arithmetic on them runs in float.
HALF_FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class NoLowerForm(Exception):
    """The lower opset cannot say what the node says.

    Args:
        reason: why, as a phrase that completes "node N needs opset M: ...".
        cure: what the user can change, "" when there is nothing.
    """

    def __init__(self, reason: str, cure: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Step:
    """One node that the lower opset must be able to say.

    Attributes:
        node: the node, legal at ``opset + 1``.
        opset: the opset it has to be legal at.
        rewriter: edits go through it.
        op: builds nodes of ``opset`` in front of the node.
    """

    node: ir.Node
    opset: int
    rewriter: Rewriter
    op: RewriterBuilder

    # What the node says

    def input(self, position: int) -> ir.Value | None:
        """An input, None when it is left out."""
        return self.node.inputs[position] if position < len(self.node.inputs) else None

    def need(self, position: int) -> ir.Value:
        """An input that the operator requires."""
        value = self.input(position)
        assert value is not None
        return value

    def constant(self, position: int) -> np.ndarray | None:
        """The elements of an input that is constant, else None."""
        return constant_of(self.input(position), limit=_MANY)

    def constant_ints(self, position: int) -> list[int] | None:
        """The elements of a constant integer input as a flat list, else None."""
        found = self.constant(position)
        return None if found is None else [int(item) for item in found.reshape(-1)]

    def dtype(self, position: int = 0) -> ir.DataType:
        """The element type of an input."""
        value = self.input(position)
        if value is None or value.dtype is None:
            self.fail(f"the element type of input {position} is not known")
        return value.dtype

    def rank(self, position: int = 0) -> int:
        """The rank of an input."""
        value = self.input(position)
        if value is None or value.shape is None:
            self.fail(
                f"its lower form depends on the rank of input {position}, which is not known",
                "give the model's inputs shapes",
            )
        return len(value.shape)

    def dim(self, position: int, axis: int) -> int | None:
        """A static dim of an input, None when it is dynamic or unknown."""
        value = self.input(position)
        if value is None or value.shape is None:
            return None
        if not -len(value.shape) <= axis < len(value.shape):
            self.fail(
                f"input {position} has {len(value.shape)} axes and none of the number {axis}", "is the file valid?"
            )
        found = value.shape[axis]
        return found if isinstance(found, int) else None

    def int_of(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def float_of(self, name: str, default: float) -> float:
        """A float attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def text_of(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def ints_of(self, name: str) -> list[int] | None:
        """A list-of-integers attribute, None when absent."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else list(attribute.as_ints())

    def is_read(self, output: int) -> bool:
        """Whether anybody reads an output."""
        if output >= len(self.node.outputs):
            return False
        value = self.node.outputs[output]
        return bool(value._uses) or value.is_graph_output()

    # What is done to it

    def fail(self, reason: str, cure: str = "") -> NoReturn:
        """Say that there is no lower form."""
        raise NoLowerForm(reason, cure)

    def set(self, name: str, value: Any) -> None:
        """Set an attribute in place; None removes it."""
        self.rewriter.set_attribute(self.node, name, value)

    def trim(self, count: int) -> None:
        """Keep the first inputs only."""
        self.rewriter.keep_inputs(self.node, count)

    def same(self, *inputs: Operand, **changes: Any) -> ir.Value:
        """The same operator on other inputs, with the node's attributes except for ``changes`` (None removes one)."""
        attributes: dict[str, Any] = dict(self.node.attributes.items())
        attributes.update(changes)
        made = self.op.node(self.node.op_type, inputs, **attributes)
        assert isinstance(made, ir.Value)
        return made

    def input_to_attribute(self, position: int, name: str) -> None:
        """Turn a constant integer input, the last one, into an attribute.

        Raises:
            NoLowerForm: it is computed at run time.
        """
        if self.input(position) is not None:
            found = self.constant_ints(position)
            if found is None:
                self.fail(
                    f"{name} is computed at run time, opset {self.opset} wants it as an attribute",
                    f"make {name} a constant of the model",
                )
            if found:
                self.set(name, found)
        self.trim(position)

    def to_float(self, value: ir.Value | None) -> ir.Value | None:
        """The value in float when it is a half float."""
        if value is None or value.dtype not in HALF_FLOATS:
            return value
        cast = self.op.Cast(value, to=ir.DataType.FLOAT.value)
        assert isinstance(cast, ir.Value)
        return cast


StepDown: TypeAlias = Callable[[Step], "Values | None"]
"""Returns what replaces the node, or None when the node stays, perhaps edited in place.  Raises NoLowerForm."""
