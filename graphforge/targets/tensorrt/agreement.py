"""Does TensorRT's network say the same as the ONNX file?  Its parser checks little, so it is checked here."""

from __future__ import annotations

import onnx_ir as ir

from graphforge.errors import GraphForgeError, argument
from graphforge.targets.tensorrt.build import BoundTensor, BuiltPlan, describe_shape

__all__ = ["check_agreement", "refuse_half_types"]

_TENSORRT_DTYPE = {
    ir.DataType.FLOAT: "FLOAT",
    ir.DataType.FLOAT16: "HALF",
    ir.DataType.BFLOAT16: "BF16",
    ir.DataType.INT64: "INT64",
    ir.DataType.INT32: "INT32",
    ir.DataType.INT8: "INT8",
    ir.DataType.UINT8: "UINT8",
    ir.DataType.BOOL: "BOOL",
}


def check_agreement(model: ir.Model, built: BuiltPlan) -> list[str]:
    """Compare names, shapes and dtypes of inputs and outputs; returns what the user should know.

    Raises:
        GraphForgeError: names differ, or a shape derived by TensorRT contradicts the model's.
    """
    notes = []
    for values, tensors, what in (
        (model.graph.inputs, built.inputs, "input"),
        (model.graph.outputs, built.outputs, "output"),
    ):
        expected, found = [value.name for value in values], [tensor.name for tensor in tensors]
        if set(expected) != set(found):
            raise GraphForgeError(
                f"the {what}s of the model are {', '.join(map(str, expected)) or 'none'}, "
                f"but TensorRT's network has {', '.join(found) or 'none'}",
                "an input that nothing uses disappears from the network: take it out of the model",
            )
        by_name = {value.name: value for value in values}
        for tensor in tensors:
            notes.extend(_compare(by_name[tensor.name], tensor, what))
    doubles = sum(value.dtype == ir.DataType.DOUBLE for value in model.graph.initializers.values())
    if doubles:
        notes.append(f"{doubles} float64 constants of the model are float32 in the plan: TensorRT has no float64")
    return notes


def refuse_half_types(model: ir.Model) -> None:
    """With precision ``fp32``: no value of the graph may be float16 or bfloat16.

    Raises:
        GraphForgeError: one is.
    """
    half = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.dtype in half:
                raise GraphForgeError(
                    f"precision fp32 was asked for, but value {value.name!r} of {node.op_type} ({node.name}) "
                    f"is {value.dtype.name.lower()}",
                    f"TensorRT builds the types that the graph has: leave {argument('precision')} out for that",
                )


def _compare(value: ir.Value, tensor: BoundTensor, what: str) -> list[str]:
    dims = None if value.shape is None else list(value.shape.dims)
    if dims is not None:
        known = [
            (size, found)
            for size, found in zip(dims, tensor.shape, strict=False)
            if isinstance(size, int) and found != -1
        ]
        if len(dims) != len(tensor.shape) or any(size != found for size, found in known):
            stated = describe_shape([dim if isinstance(dim, int) else -1 for dim in dims])
            raise GraphForgeError(
                f"{what} {tensor.name!r} is {stated} in the model, but TensorRT derives {describe_shape(tensor.shape)}",
                "the model contradicts itself, or TensorRT reads an operator differently; please report it",
            )
    if value.dtype is None or _TENSORRT_DTYPE.get(value.dtype) == tensor.dtype:
        return []
    return [f"{what} {tensor.name!r} is {value.dtype.name} in the model and {tensor.dtype} in the plan"]
