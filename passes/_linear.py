"""Operators with constant weights that are linear in their input, scaled and shifted per output channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from graphforge.ir import Node, Value, constant_of
from graphforge.transform import RewriterBuilder, dims_of, int_attribute, is_constant, is_op, rank_of

__all__ = ["Linear", "channel_vector", "derived_tensor", "linear_of", "rebuild"]

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

# Weights above this are computed when they are written, so that they do not pile up in memory.
_LAZY_BYTES = 1 << 18
# What is folded per channel is at most this many elements.
_CHANNELS = 1 << 16
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True, slots=True)
class Linear:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight.

    Attributes:
        node: the node.
        weight: its weight.
        bias: its bias, None when it has none.
        channels: how many output channels there are.
        axis: where they lie in the output.
        takes_bias: whether the operator can add a bias.
    """

    node: Node
    weight: Value
    bias: Value | None
    channels: int
    axis: int
    takes_bias: bool


def linear_of(node: Node | None) -> Linear | str:
    """The node as a Linear, or the reason why it is none."""
    if node is None or not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return "it is not a Conv, ConvTranspose, Gemm or MatMul"
    weight = node.inputs[1]
    if weight is None or not is_constant(weight):
        return f"the weight of {node.op_type} is not constant"
    dims = dims_of(weight)
    if dims is None or weight.dtype not in _FLOATS or not all(isinstance(dim, int) for dim in dims):
        return f"the weight of {node.op_type} has an unknown shape or is not a float"
    shape = [dim for dim in dims if isinstance(dim, int)]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (not is_constant(bias) or constant_of(bias, limit=_CHANNELS) is None):
        return f"the bias of {node.op_type} is not constant"
    if node.op_type == "Conv":
        return Linear(node, weight, bias, shape[0], 1, True)
    if node.op_type == "ConvTranspose":
        return Linear(node, weight, bias, shape[1] * int_attribute(node, "group", 1), 1, True)
    if node.op_type == "MatMul":
        rank = rank_of(node.outputs[0])
        if len(shape) != 2 or rank is None or rank < 2:
            return "the MatMul is not a product with one matrix"
        return Linear(node, weight, None, shape[1], rank - 1, False)
    for name in ("alpha", "beta"):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.as_float() != 1.0:
            return f"the Gemm has {name}"
    channels = shape[0] if int_attribute(node, "transB", 0) else shape[1]
    if bias is not None:
        bias_dims = dims_of(bias) or ()
        if any(dim != 1 for dim in bias_dims[:-1]):
            return "the bias of Gemm differs from row to row"
    return Linear(node, weight, bias, channels, 1, True)


def channel_vector(constant: Value, rank: int | None, axis: int, channels: int) -> Vector | str:
    """A constant that broadcasts to one number per channel, as a vector; else the reason why it does not."""
    if not is_constant(constant):
        return "the other operand is not constant"
    array = constant_of(constant, limit=_CHANNELS)
    if array is None:
        return "the constant is too large to be one number per channel"
    if array.size == 1 and (rank is None or array.ndim <= rank):
        return np.full((channels,), float(array.reshape(-1)[0]))
    if rank is None or array.ndim > rank:
        return "the constant broadcasts the other operand"
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[axis] != channels or array.size != channels:
        return "the constant is not one number per channel"
    return array.reshape(-1).astype(np.float64)


def derived_tensor(
    shape: Sequence[int], dtype: ir.DataType, compute: Callable[[], np.ndarray[Any, Any]]
) -> ir.TensorProtocol:
    """A tensor computed from weights: at once when it is small, else whenever it is read."""

    def tensor() -> ir.Tensor[Any]:
        return ir.Tensor(np.ascontiguousarray(compute().astype(dtype.numpy(), copy=False)), dtype=dtype)

    if int(np.prod(shape)) * dtype.itemsize <= _LAZY_BYTES:
        return tensor()
    return ir.LazyTensor(tensor, dtype=dtype, shape=ir.Shape(shape))


def rebuild(
    op: RewriterBuilder,
    linear: Linear,
    scale: Vector | None,
    shift: Vector | None,
    *,
    source: Value | None = None,
) -> Value:
    """``linear(x) * scale + shift`` as one node of the same operator.

    Args:
        op: builds in front of what is replaced.
        linear: what is scaled.
        scale: one factor per output channel; None for ones.
        shift: one summand per output channel; None for zeros.  Only where ``linear.takes_bias``.
        source: what the new node reads; None for what the old one read.
    """
    node = linear.node
    weight = linear.weight if scale is None else _scaled(op, linear, scale)
    inputs: list[Value | None] = [node.inputs[0] if source is None else source, weight]
    bias = None if linear.bias is None else constant_of(linear.bias, limit=_CHANNELS)
    if bias is not None or shift is not None:
        total: Vector = np.zeros((linear.channels,))
        if bias is not None:
            total = total + bias.reshape(-1).astype(np.float64)
        if scale is not None:
            total = total * scale
        if shift is not None:
            total = total + shift
        dtype = linear.weight.dtype
        assert dtype is not None
        tensor = ir.Tensor(total.astype(dtype.numpy()), dtype=dtype)
        base = linear.bias if linear.bias is not None else linear.weight
        inputs.append(op.constant(tensor, name=f"{base.name}/folded"))
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    result: Value = op.node(node.op_type, inputs, **attributes)
    return result


def _scaled(op: RewriterBuilder, linear: Linear, scale: Vector) -> Value:
    """The weight with each output channel scaled."""
    tensor, dtype = linear.weight.const_value, linear.weight.dtype
    assert tensor is not None
    assert dtype is not None
    shape = tensor.shape.numpy()
    node = linear.node

    def compute() -> np.ndarray[Any, Any]:
        array = tensor.numpy()
        factors = scale
        if node.op_type == "Conv" or (node.op_type == "Gemm" and int_attribute(node, "transB", 0)):
            factors = scale.reshape((-1,) + (1,) * (array.ndim - 1))
        elif node.op_type == "ConvTranspose":
            group = int_attribute(node, "group", 1)
            array = array.reshape((group, shape[0] // group, *shape[1:]))
            factors = scale.reshape((group, 1, shape[1]) + (1,) * (array.ndim - 3))
        product = np.empty(array.shape, dtype.numpy())
        # in double precision, a buffer at a time: the whole weight never stands in memory as doubles
        np.multiply(array, factors, out=product, dtype=np.float64, casting="unsafe")
        return product.reshape(shape)

    return op.constant(derived_tensor(shape, dtype, compute), name=f"{linear.weight.name}/folded")
