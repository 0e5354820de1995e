"""Which dtypes ONNX Runtime's CPU kernels take, and where to compute instead of those they do not.

The schema of an operator says what is legal; what runs is less.  The ``Emitter`` asks this table for every node it
makes: where a kernel exists the node stands as the rule wrote it, else it computes in another dtype, between casts.
The table was read off ONNX Runtime 1.31 at opset 26 by loading a one-node model per operator and dtype.  float16
counts as supported wherever float32 is: ONNX Runtime inserts casts by itself, and accelerators have such kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir

from graphforge.ir import Operand

if TYPE_CHECKING:
    from graphforge.frontend.emitter import Emitter, SymbolicScalar

__all__ = ["HALVES", "INTEGERS", "detour", "has_kernel", "is_exact", "is_float", "kernel_dtype", "run", "working_dtype"]

_D = ir.DataType

HALVES: Final = frozenset({_D.FLOAT16, _D.BFLOAT16})
INTEGERS: Final = frozenset(
    {_D.INT64, _D.INT32, _D.INT16, _D.INT8, _D.UINT8, _D.UINT16, _D.UINT32, _D.UINT64},
)
_FLOATS: Final = frozenset({_D.FLOAT, _D.FLOAT16, _D.DOUBLE})
_SINGLE: Final = frozenset({_D.FLOAT, _D.FLOAT16})
_SIGNED: Final = frozenset({_D.INT64, _D.INT32, _D.INT16, _D.INT8})
_NUMBERS: Final = _FLOATS | INTEGERS
_WIDE: Final = _FLOATS | {_D.INT64, _D.INT32}
_BITS: Final = _NUMBERS | {_D.BOOL}

_KERNELS: Final[dict[str, frozenset[ir.DataType]]] = {
    **dict.fromkeys(
        "Attention BatchNormalization Ceil Cos DFT Exp Floor Gemm GridSample GroupNormalization Log "
        "LogSoftmax LpNormalization RMSNormalization Reciprocal Round Sigmoid Sin Softmax Sqrt Sum Tanh".split(),
        _FLOATS,
    ),
    **dict.fromkeys(
        "Acos Acosh Asin Asinh Atan Atanh AveragePool Col2Im Conv ConvTranspose Cosh Det Elu Erf GRU Gelu "
        "GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Hardmax InstanceNormalization LRN LSTM LeakyRelu LpPool "
        "MaxUnpool Mean MeanVarianceNormalization Mish PRelu RNN RotaryEmbedding Selu Sinh Softplus Softsign Tan "
        "ThresholdedRelu".split(),
        _SINGLE,
    ),
    "Celu": frozenset({_D.FLOAT}),
    "LayerNormalization": _FLOATS | {_D.BFLOAT16},
    **dict.fromkeys("IsInf IsNaN".split(), _FLOATS | {_D.BFLOAT16}),
    **dict.fromkeys("Abs Add Div Greater GreaterOrEqual Less LessOrEqual Mod Mul Sub".split(), _NUMBERS),
    "Sign": _NUMBERS | {_D.BFLOAT16},
    "Neg": _FLOATS | _SIGNED,
    "Relu": _FLOATS | {_D.INT32, _D.INT8},
    "Pow": _WIDE,
    "MatMul": _WIDE | {_D.UINT32, _D.UINT64},
    **dict.fromkeys("Clip Max Min".split(), _WIDE | {_D.INT8, _D.UINT8, _D.UINT32, _D.UINT64}),
    "Where": _WIDE | {_D.INT8, _D.UINT8, _D.UINT32},
    **dict.fromkeys(
        "CumSum Einsum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSum "
        "ReduceSumSquare".split(),
        _WIDE,
    ),
    "CumProd": _WIDE | {_D.UINT32, _D.UINT64},
    **dict.fromkeys("ReduceMax ReduceMin".split(), _WIDE | {_D.INT8, _D.UINT8, _D.BOOL}),
    **dict.fromkeys("ArgMax ArgMin".split(), _WIDE | {_D.INT8, _D.UINT8}),
    "TopK": _WIDE | {_D.INT16, _D.INT8, _D.UINT8},
    **dict.fromkeys("DepthToSpace MaxPool SpaceToDepth".split(), _FLOATS | {_D.INT8, _D.UINT8}),
    "Resize": _SINGLE | {_D.INT32, _D.INT8, _D.UINT8},
    "BitShift": frozenset({_D.UINT8, _D.UINT32, _D.UINT64}),
    **dict.fromkeys("Compress Equal Expand ReverseSequence Size Tile".split(), _BITS),
    "Pad": _WIDE | {_D.INT8, _D.UINT8, _D.UINT32, _D.UINT64, _D.BOOL},
    "EyeLike": _WIDE | {_D.UINT64},
    "NonZero": frozenset({_D.FLOAT, _D.FLOAT16, _D.INT64, _D.INT32, _D.UINT8, _D.BOOL}),
    "OneHot": _SINGLE | {_D.INT64},
    "Range": frozenset({_D.FLOAT, _D.DOUBLE, _D.INT64, _D.INT32, _D.INT16}),
    "Trilu": _WIDE | {_D.BOOL},
    "Unique": _FLOATS | {_D.INT64, _D.INT8},
    # with a reduction only: these load for every dtype, and fail when they run
    **dict.fromkeys("ScatterElements ScatterND".split(), frozenset({_D.FLOAT, _D.DOUBLE}) | INTEGERS),
}

# Which input's dtype decides, where that is not the first.
_DECIDES: Final = {"Where": 1, "OneHot": 2}

# Where to compute instead, the first that has a kernel.
_INSTEAD: Final[dict[ir.DataType, tuple[ir.DataType, ...]]] = {
    _D.BFLOAT16: (_D.FLOAT,),
    _D.FLOAT16: (_D.FLOAT,),
    _D.DOUBLE: (_D.FLOAT,),
    _D.FLOAT: (_D.DOUBLE,),
    _D.BOOL: (_D.UINT8, _D.INT32, _D.INT64, _D.FLOAT),
    _D.INT8: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.INT16: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.UINT8: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.UINT16: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.INT32: (_D.INT64, _D.DOUBLE, _D.FLOAT),
    _D.UINT32: (_D.INT64, _D.DOUBLE, _D.FLOAT),
    _D.INT64: (_D.DOUBLE, _D.FLOAT),
    _D.UINT64: (_D.INT64, _D.DOUBLE, _D.FLOAT),
}

# Pairs (asked for, computed in) by which digits can be lost.
_LOSSY: Final = frozenset(
    {
        (_D.DOUBLE, _D.FLOAT),
        (_D.INT32, _D.FLOAT),
        (_D.UINT32, _D.FLOAT),
        (_D.INT64, _D.FLOAT),
        (_D.INT64, _D.DOUBLE),
        (_D.UINT64, _D.INT64),
        (_D.UINT64, _D.DOUBLE),
        (_D.UINT64, _D.FLOAT),
    }
)


def is_float(dtype: ir.DataType | None) -> bool:
    """Whether values of the dtype are floating-point numbers."""
    return dtype in _FLOATS or dtype in HALVES


def is_exact(asked: ir.DataType, computed: ir.DataType) -> bool:
    """Whether every value of the one dtype is a value of the other."""
    return (asked, computed) not in _LOSSY


def has_kernel(op_type: str, dtype: ir.DataType) -> bool:
    """Whether ONNX Runtime runs the operator on the dtype on a CPU."""
    supported = _KERNELS.get(op_type)
    return supported is None or dtype in supported


def kernel_dtype(op_type: str, dtype: ir.DataType) -> ir.DataType:
    """The dtype to compute in: ``dtype`` itself where a kernel exists, else another."""
    if has_kernel(op_type, dtype):
        return dtype
    return next((other for other in _INSTEAD.get(dtype, ()) if has_kernel(op_type, other)), dtype)


def detour(
    op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]
) -> tuple[ir.DataType, ir.DataType] | None:
    """The dtype that a node's inputs have and the one to compute in; None where the node runs as it stands."""
    supported = _KERNELS.get(op_type)
    if supported is None:
        return None
    position = _DECIDES.get(op_type, 0)
    value = inputs[position] if position < len(inputs) else None
    dtype = None if value is None else value.dtype
    if dtype is None or dtype in supported:
        return None
    if op_type.startswith("Scatter") and attributes.get("reduction", "none") == "none":
        return None
    instead = kernel_dtype(op_type, dtype)
    return None if instead == dtype else (dtype, instead)


def run(op: Emitter, op_type: str, *operands: Operand | SymbolicScalar, **attributes: Any) -> ir.Value:
    """One node of one result; numbers among the operands take the dtype of the values beside them."""
    first = _DECIDES.get(op_type, 0)
    values = [operand for operand in operands[first:] if isinstance(operand, ir.Value)]
    if not values or values[0].dtype is None:
        raise op.fail(f"{op_type} has no operand whose dtype is known")
    dtype = values[0].dtype
    inputs: list[Operand] = []
    for operand in operands:
        if isinstance(operand, bool | int | float):
            inputs.append(op.constant(operand, dtype))
        elif operand is None or isinstance(operand, ir.Value | Sequence):
            inputs.append(operand)
        else:
            inputs.append(op.scalar(operand, dtype))  # type: ignore[arg-type]
    result: ir.Value = op.node(op_type, inputs, **attributes)
    return result


def working_dtype(dtype: ir.DataType, *numbers: Any) -> ir.DataType:
    """The dtype in which a rule of several nodes should compute: single precision where halves would go wrong.

    bfloat16 has hardly a kernel, so casts around the whole beat casts around each node.  float16 cannot hold large and
    small Python numbers: torch computes halves with numbers in single precision, so ``x * 1e5`` must not overflow.
    """
    if dtype == ir.DataType.BFLOAT16:
        return ir.DataType.FLOAT
    if dtype != ir.DataType.FLOAT16:
        return dtype
    for number in numbers:
        if isinstance(number, bool | int | float):
            size = abs(number)
            if size != 0 and not 6.2e-5 < size <= 65504 and size != float("inf"):
                return ir.DataType.FLOAT
    return dtype
