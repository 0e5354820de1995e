"""Fold BatchNorm into the linear operator before it, or after it.    bn(conv(x, w)) ==> conv(x, w')"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphforge.ir import Graph, Node, constant_of
from graphforge.passes._linear import Linear, Vector, derived_tensor, linear_of, rebuild
from graphforge.transform import (
    Match,
    NoMatch,
    Pass,
    Rewriter,
    Rule,
    dims_of,
    int_attribute,
    ints_attribute,
    is_constant,
    rank_of,
)

__all__ = ["FoldBatchNorm"]


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Conv, ConvTranspose, Gemm and MatMul before it; Conv without padding, Gemm and MatMul after it."""

    name: ClassVar[str] = "fold-batch-norm"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Fold them in the graph and its bodies."""
        rewriter.apply(_RULES, graph)


def _scale_and_shift(node: Node) -> tuple[Vector, Vector] | str:
    """What the BatchNorm does to each channel, in double precision; else the reason why it is unknown."""
    if int_attribute(node, "training_mode", 0):
        return "the BatchNorm is in training mode"
    parameters = [constant_of(value, limit=1 << 16) if is_constant(value) else None for value in node.inputs[1:5]]
    arrays = [array.astype(np.float64) for array in parameters if array is not None]
    if len(arrays) != 4:
        return "the parameters of the BatchNorm are not constant"
    gamma, beta, mean, variance = arrays
    epsilon = node.attributes.get("epsilon")
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + (1e-5 if epsilon is None else epsilon.as_float()))
    if not np.isfinite(scale).all():
        return "the BatchNorm divides by zero"
    return scale, beta - mean * scale


class LinearBatchNorm(Rule):
    """bn(linear(x, w))"""

    def __init__(self, op_type: str) -> None:
        self.op_type = op_type

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"{self.op_type}BatchNorm"

    def pattern(self, op: Any, x: Any, w: Any) -> Any:
        return op.BatchNormalization(op.node(self.op_type, x, w, ..., _name="linear"), ..., _name="bn")

    def check(self, m: Match) -> Match | NoMatch:
        linear = linear_of(m.linear)
        if isinstance(linear, str):
            return m.no(linear, m.linear)
        if linear.axis != 1:
            return m.no("the channels of the MatMul are not those of the BatchNorm", m.linear)
        found = _scale_and_shift(m.bn)
        if isinstance(found, str):
            return m.no(found)
        if len(found[0]) != linear.channels:
            return m.no("the BatchNorm has another number of channels")
        return m.having(parts=linear, scale=found[0], shift=found[1])

    def rewrite(self, op: Any, m: Match) -> Any:
        linear: Linear = m.parts
        if linear.takes_bias:
            return rebuild(op, linear, m.scale, m.shift)
        dtype = m.w.dtype.numpy()
        return op.Add(rebuild(op, linear, m.scale, None), m.shift.astype(dtype))


class MatMulReshapeBatchNorm(Rule):
    """bn(reshape(matmul(x, w), [-1, C])) ==> reshape(matmul(x, w') + b', [-1, C]): a Linear before a BatchNorm1d."""

    def pattern(self, op: Any, x: Any, w: Any, target: Any) -> Any:
        return op.BatchNormalization(op.Reshape(op.MatMul(x, w, _name="linear"), target), ..., _name="bn")

    def check(self, m: Match) -> Match | NoMatch:
        linear = linear_of(m.linear)
        if isinstance(linear, str):
            return m.no(linear, m.linear)
        rows = dims_of(m.reshape.outputs[0])
        if rows is None or len(rows) != 2 or rows[1] != linear.channels:
            return m.no("the Reshape moves the channels", m.reshape)
        found = _scale_and_shift(m.bn)
        if isinstance(found, str):
            return m.no(found)
        return m.having(parts=linear, scale=found[0], shift=found[1])

    def rewrite(self, op: Any, m: Match) -> Any:
        product = rebuild(op, m.parts, m.scale, None)
        allowzero = int_attribute(m.reshape, "allowzero", 0)
        return op.Reshape(op.Add(product, m.shift.astype(m.w.dtype.numpy())), m.target, allowzero=allowzero or None)


class BatchNormLinear(Rule):
    """linear(bn(x), w)"""

    def __init__(self, op_type: str) -> None:
        self.op_type = op_type

    @property
    def name(self) -> str:
        """How messages call the rule."""
        return f"BatchNorm{self.op_type}"

    def pattern(self, op: Any, x: Any, w: Any) -> Any:
        return op.node(self.op_type, op.BatchNormalization(x, ..., _name="bn"), w, ..., _name="linear")

    def check(self, m: Match) -> Match | NoMatch:
        linear = linear_of(m.linear)
        if isinstance(linear, str):
            return m.no(linear)
        found = _scale_and_shift(m.bn)
        if isinstance(found, str):
            return m.no(found, m.bn)
        if self.op_type == "Conv":
            auto = m.linear.attributes.get("auto_pad")
            padded = any(ints_attribute(m.linear, "pads") or ()) or (
                auto is not None and auto.as_string() not in ("NOTSET", "VALID")
            )
            if padded and found[1].any():
                return m.no("the padding of the Conv is not shifted by the BatchNorm")
        elif rank_of(m.x) != 2:
            return m.no("the channels of the BatchNorm are not those of the product")
        elif int_attribute(m.linear, "transA", 0):
            return m.no("the Gemm transposes what the BatchNorm scales")
        return m.having(parts=linear, scale=found[0], shift=found[1])

    def rewrite(self, op: Any, m: Match) -> Any:
        linear: Linear = m.parts
        weight = linear.weight
        tensor = weight.const_value
        assert tensor is not None
        assert weight.dtype is not None
        group = int_attribute(m.linear, "group", 1)
        input_axis = 1 if self.op_type == "Conv" or int_attribute(m.linear, "transB", 0) else 0
        dims = tuple(dim for dim in dims_of(weight) or () if isinstance(dim, int))
        scale, shift = m.scale, m.shift

        def per_input(vector: Vector) -> Vector:
            """The vector over the weight's input channels, shaped to multiply the weight."""
            if self.op_type != "Conv":
                return vector.reshape((1, -1) if input_axis else (-1, 1))
            # Output channel m belongs to group m // (M / group), which reads its own slice of the input channels.
            rows = np.repeat(vector.reshape(group, dims[1]), dims[0] // group, axis=0)
            return rows.reshape(dims[:2] + (1,) * (len(dims) - 2))

        def scaled() -> Any:
            return tensor.numpy().astype(np.float64) * per_input(scale)

        folded = op.constant(derived_tensor(dims, weight.dtype, scaled), name=f"{weight.name}/folded")
        product = tensor.numpy().astype(np.float64) * per_input(shift)
        axes = tuple(axis for axis in range(len(dims)) if axis != (0 if input_axis else 1))
        extra = product.sum(axis=axes)
        rest = Linear(m.linear, folded, linear.bias, linear.channels, linear.axis, linear.takes_bias)
        if not linear.takes_bias:
            return op.Add(op.MatMul(m.x, folded), extra.astype(weight.dtype.numpy()))
        return rebuild(op, rest, None, extra, source=m.x)


_RULES = (
    *(LinearBatchNorm(op_type) for op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")),
    MatMulReshapeBatchNorm(),
    *(BatchNormLinear(op_type) for op_type in ("Conv", "Gemm", "MatMul")),
)
