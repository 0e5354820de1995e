"""Forms: which of a node's float32 operands and results become halves when it is computed in half precision."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphforge.ir.bodies import bodies_of
from graphforge.ir.infer import schema_of

__all__ = ["HEAVY", "Form", "form_of", "is_indifferent"]

# Sums of products: where half precision saves time, and whose weights are most of a file.
HEAVY = frozenset(
    ("Attention", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
)
# Operators whose result says nothing of the elements.
_OF_SHAPES = frozenset(("Shape", "Size"))
# What draws numbers is not run twice alike, and what is quantised has its types already.
_LEFT_ALONE = frozenset(
    (
        "Bernoulli",
        "ConstantOfShape",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "EyeLike",
        "Multinomial",
        "QuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)


@dataclass(frozen=True, slots=True)
class Form:
    """What changes when a node is computed in half precision.

    Attributes:
        inputs: positions of the float32 operands that become halves.
        outputs: positions of the float32 results that do.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def form_of(node: ir.Node, half: ir.DataType, opset: int) -> Form | None:
    """How the node is written with halves; None where ONNX does not admit it, or it is none of our business."""
    if node.domain != "" or node.op_type in _LEFT_ALONE | _OF_SHAPES or bodies_of(node):
        return None
    schema = schema_of(node.op_type, "", opset)
    if schema is None or any(value is not None and value.dtype is None for value in (*node.inputs, *node.outputs)):
        return None
    admitted = {
        one.type_param_str for one in schema.type_constraints if f"tensor({half.name.lower()})" in one.allowed_type_strs
    }
    moved = set()
    inputs = []
    for position, value in enumerate(node.inputs):
        if value is None or value.dtype != ir.DataType.FLOAT:
            continue
        if not isinstance(value.type, ir.TensorType):
            return None
        variable = schema.inputs[min(position, len(schema.inputs) - 1)].type_str
        if variable in admitted:
            inputs.append(position)
            moved.add(variable)
    outputs = []
    for position, value in enumerate(node.outputs):
        if value.dtype != ir.DataType.FLOAT:
            continue
        if not isinstance(value.type, ir.TensorType):
            return None
        variable = schema.outputs[min(position, len(schema.outputs) - 1)].type_str
        if variable in moved or (node.op_type == "Cast" and variable in admitted):
            outputs.append(position)
        elif not inputs:
            return None
    return Form(tuple(inputs), tuple(outputs)) if inputs or outputs else None


def is_indifferent(node: ir.Node) -> bool:
    """Whether the node takes its operand in any type without a difference to its result."""
    return node.domain == "" and node.op_type in _OF_SHAPES
