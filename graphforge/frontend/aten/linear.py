"""Matrix products: linear, matmul and its many spellings."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT
_GEMM = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
_TRANSPOSED = "graphforge.transposed_weights"


def _matmul(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    product: ir.Value = op.MatMul(a, b)
    return product


def _transposed_weight(op: Emitter, weight: ir.Value) -> ir.Value:
    """The transpose of a matrix: a view of the weight's storage, or a Transpose when it is needed both ways."""
    tensor = op.weight(weight)
    if tensor is None or _is_used_as_it_is(op, weight):
        return op.transpose(weight, [1, 0])
    known: dict[ir.Value, ir.Value] = op.constants.meta.setdefault(_TRANSPOSED, {})
    if weight not in known or not known[weight].is_initializer():
        known[weight] = op.tensor(tensor.t(), name=f"{weight.name}_transposed")
    return known[weight]


def _is_used_as_it_is(op: Emitter, weight: ir.Value) -> bool:
    """Whether anything but a linear layer uses the weight (a tied embedding): then storing its transpose doubles it."""
    if weight.uses():
        return True
    node = op.fx_node
    if node is None or len(node.args) < 2:
        return False
    source: Any = node.args[1]
    return any(not _takes_transposed(user) for user in getattr(source, "users", ()))


def _takes_transposed(user: Any) -> bool:
    """Whether a use of a weight will go by its transposed view as well."""
    if str(user.target) != "aten.linear.default" or not user.args:
        return False
    fake = getattr(user.args[0], "meta", {}).get("val")
    return fake is not None and fake.dim() != 2


@lowers("aten.linear.default")
def linear(op: Emitter, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None) -> ir.Value:
    """Gemm for a matrix, MatMul and Add for anything else."""
    if op.rank(x) == 2 and op.rank(weight) == 2 and x.dtype in _GEMM:
        result: ir.Value = op.Gemm(x, weight, bias, transB=1)
        return result
    if op.rank(weight) == 1:
        product = _matmul(op, x, weight)
    else:
        product = _matmul(op, x, _transposed_weight(op, weight))
    if bias is None:
        return product
    result = op.Add(product, op.cast(bias, product.dtype or ir.DataType.FLOAT))
    return result


@lowers(
    "aten.matmul.default",
    "aten.mm.default",
    "aten.bmm.default",
    "aten.mv.default",
    "aten.dot.default",
    "aten.vdot.default",
    "aten.linalg_matmul.default",
)
def matmul(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """MatMul."""
    return _matmul(op, a, b)


def _scaled(op: Emitter, value: ir.Value, factor: Any) -> ir.Value:
    if factor == 1:
        return value
    scaled: ir.Value = op.Mul(value, op.operand(factor, value.dtype or ir.DataType.FLOAT))
    return scaled


def _wide(op: Emitter, value: ir.Value) -> ir.Value:
    """bfloat16 as float, so that several steps round once."""
    return op.cast(value, ir.DataType.FLOAT) if value.dtype == ir.DataType.BFLOAT16 else value


def _add_product(op: Emitter, x: ir.Value, product: ir.Value, beta: Any, alpha: Any) -> ir.Value:
    """``beta * x + alpha * product``; a beta of 0 drops ``x`` even where it is NaN."""
    product = _scaled(op, product, alpha)
    if beta == 0:
        return product
    total: ir.Value = op.Add(_scaled(op, op.cast(x, product.dtype or ir.DataType.FLOAT), beta), product)
    return total


@lowers("aten.addmm.default")
def addmm(op: Emitter, x: ir.Value, a: ir.Value, b: ir.Value, *, beta: Any = 1, alpha: Any = 1) -> ir.Value:
    """Gemm."""
    numbers = isinstance(beta, int | float) and isinstance(alpha, int | float)
    if numbers and a.dtype == ir.DataType.DOUBLE:  # Gemm's attributes are single precision
        numbers = all(float(np.float32(one)) == one for one in (beta, alpha))
    if a.dtype not in _GEMM or not numbers or op.size(a, 1) == 0:
        # ONNX Runtime's Gemm forgets beta when there is nothing to sum over
        return _add_product(op, x, _matmul(op, _wide(op, a), _wide(op, b)), beta, alpha)
    attributes: dict[str, Any] = {}
    for position, (operand, flag) in enumerate(((a, "transA"), (b, "transB"))):
        source = _transpose_source(operand)
        if source is not None:
            attributes[flag] = 1
            a, b = (source, b) if position == 0 else (a, source)
    if beta != 1:
        attributes["beta"] = float(beta)
    if alpha != 1:
        attributes["alpha"] = float(alpha)
    result: ir.Value = op.Gemm(a, b, None if beta == 0 else x, **attributes)
    return result


def _transpose_source(value: ir.Value) -> ir.Value | None:
    """The matrix that ``value`` is the transpose of, None when it is not a transpose."""
    node = value.producer()
    if node is None or node.op_type != "Transpose" or node.domain != "":
        return None
    perm = node.attributes.get("perm")
    if perm is None or list(perm.value) != [1, 0]:
        return None
    return node.inputs[0]


@lowers("aten.addmv.default", "aten.baddbmm.default")
def add_matmul(op: Emitter, x: ir.Value, a: ir.Value, b: ir.Value, *, beta: Any = 1, alpha: Any = 1) -> ir.Value:
    """MatMul and Add."""
    return _add_product(op, x, _matmul(op, _wide(op, a), _wide(op, b)), beta, alpha)


@lowers("aten._scaled_mm.default")
def scaled(
    op: Emitter,
    a: ir.Value,
    b: ir.Value,
    scale_a: ir.Value,
    scale_b: ir.Value,
    bias: ir.Value | None = None,
    scale_result: ir.Value | None = None,
    *_: Any,
    **__: Any,
) -> ir.Value:
    """Matrices of eight-bit floats with a scale each; no runtime multiplies such, so their values are multiplied.

    Raises:
        LoweringError: scales of rows or blocks.
    """
    if any(op.rank(scale) and op.dims(scale) != [1] * op.rank(scale) for scale in (scale_a, scale_b)):
        raise op.fail("scales of rows or blocks of a matrix of eight-bit floats", "give each matrix one scale")
    scale_a, scale_b = (op.Reshape(op.cast(scale, _FLOAT), []) for scale in (scale_a, scale_b))
    result = op.Mul(op.MatMul(op.cast(a, _FLOAT), op.cast(b, _FLOAT)), op.Mul(scale_a, scale_b))
    if bias is not None:
        result = op.Add(result, op.cast(bias, _FLOAT))
    if scale_result is not None:
        result = op.Mul(result, op.Reshape(op.cast(scale_result, _FLOAT), []))
    return op.cast(result, op.dtype_of())


@lowers("aten.addbmm.default")
def addbmm(op: Emitter, x: ir.Value, a: ir.Value, b: ir.Value, *, beta: Any = 1, alpha: Any = 1) -> ir.Value:
    """The sum of a batch of products, added."""
    product = op.ReduceSum(_matmul(op, _wide(op, a), _wide(op, b)), [0], keepdims=0)
    return _add_product(op, x, product, beta, alpha)


def _outer(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    dtype = op.compute_dtype(a, b)
    product: ir.Value = op.Mul(op.Unsqueeze(op.cast(a, dtype), [1]), op.cast(b, dtype))
    return product


@lowers("aten.outer.default", "aten.ger.default")
def outer(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """A column times a row."""
    return _outer(op, a, b)


@lowers("aten.addr.default")
def addr(op: Emitter, x: ir.Value, a: ir.Value, b: ir.Value, *, beta: Any = 1, alpha: Any = 1) -> ir.Value:
    """An outer product, added."""
    return _add_product(op, x, _outer(op, _wide(op, a), _wide(op, b)), beta, alpha)
