"""Which dtypes ONNX Runtime's CPU kernels take, and how a lowering gets around those they do not.

The schema of an operator says what is legal; what runs is less.  ``run`` emits a node as it stands where a kernel
exists and computes in a wider dtype, between two casts, where none does.  The tables were read off ONNX Runtime 1.31 at
opset 26 by loading a one-node model per operator and dtype.  float16 counts as supported wherever float32 is: ONNX
Runtime inserts casts by itself, and accelerators have such kernels.
"""

from __future__ import annotations

from typing import Any, Final

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter, SymbolicScalar
from graphforge.ir import Operand

__all__ = ["HALVES", "INTEGERS", "has_kernel", "is_float", "kernel_dtype", "run", "working_dtype"]

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

_KERNELS: Final[dict[str, frozenset[ir.DataType]]] = {
    **dict.fromkeys(
        "Floor Ceil Round Sqrt Reciprocal Exp Log Sin Cos Tanh Sigmoid Softmax LogSoftmax Sum Gemm".split(), _FLOATS
    ),
    **dict.fromkeys(
        "Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Erf LeakyRelu Elu Selu Softplus Softsign Mish HardSwish "
        "HardSigmoid Gelu ThresholdedRelu PRelu".split(),
        _SINGLE,
    ),
    "Celu": frozenset({_D.FLOAT}),
    **dict.fromkeys("Abs Sign Add Sub Mul Div Mod Less LessOrEqual Greater GreaterOrEqual".split(), _NUMBERS),
    "Neg": _FLOATS | _SIGNED,
    "Relu": _FLOATS | {_D.INT32, _D.INT8},
    "Equal": _NUMBERS | {_D.BOOL},
    "Pow": _WIDE,
    **dict.fromkeys("Max Min Clip".split(), _WIDE | {_D.INT8, _D.UINT8, _D.UINT32, _D.UINT64}),
    "Where": _WIDE | {_D.INT8, _D.UINT8, _D.UINT32},
    **dict.fromkeys(
        "ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceLogSum ReduceSumSquare CumSum "
        "Einsum".split(),
        _WIDE,
    ),
    **dict.fromkeys("ReduceMax ReduceMin".split(), _WIDE | {_D.INT8, _D.UINT8, _D.BOOL}),
    **dict.fromkeys("ArgMax ArgMin".split(), _WIDE | {_D.INT8, _D.UINT8}),
    "TopK": _WIDE | {_D.INT16, _D.INT8, _D.UINT8},
    "MatMul": _WIDE | {_D.UINT32, _D.UINT64},
    "CumProd": _WIDE | {_D.UINT32, _D.UINT64},
    "Range": frozenset({_D.FLOAT, _D.DOUBLE, _D.INT64, _D.INT32, _D.INT16}),
    **dict.fromkeys("Expand Tile Compress".split(), _NUMBERS | {_D.BOOL}),
    "Pad": _WIDE | {_D.INT8, _D.UINT8, _D.UINT32, _D.UINT64, _D.BOOL},
    "Unique": _FLOATS | {_D.INT64, _D.INT8},
    "Trilu": _WIDE | {_D.BOOL},
    "NonZero": frozenset({_D.FLOAT, _D.FLOAT16, _D.INT64, _D.INT32, _D.UINT8, _D.BOOL}),
    "BitShift": frozenset({_D.UINT8, _D.UINT32, _D.UINT64}),
    **dict.fromkeys("IsNaN IsInf".split(), _FLOATS | {_D.BFLOAT16}),
}

# Where to compute instead, the first that has a kernel.
_WIDER: Final[dict[ir.DataType, tuple[ir.DataType, ...]]] = {
    _D.BFLOAT16: (_D.FLOAT,),
    _D.FLOAT16: (_D.FLOAT,),
    _D.DOUBLE: (_D.FLOAT,),
    _D.FLOAT: (_D.DOUBLE,),
    _D.BOOL: (_D.UINT8, _D.INT32),
    _D.INT8: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.INT16: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.UINT8: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.UINT16: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.INT32: (_D.INT64, _D.DOUBLE),
    _D.UINT32: (_D.INT64, _D.DOUBLE),
    _D.INT64: (_D.DOUBLE, _D.FLOAT),
    _D.UINT64: (_D.INT64, _D.DOUBLE),
}

_BOOL_RESULT: Final = frozenset("Equal Less LessOrEqual Greater GreaterOrEqual IsNaN IsInf".split())
_OWN_RESULT: Final = _BOOL_RESULT | {"ArgMax", "ArgMin", "NonZero"}


def is_float(dtype: ir.DataType | None) -> bool:
    """Whether values of the dtype are floating-point numbers."""
    return dtype in _FLOATS or dtype in HALVES


def has_kernel(op_type: str, dtype: ir.DataType) -> bool:
    """Whether ONNX Runtime runs the operator on the dtype on a CPU."""
    known = _KERNELS.get(op_type)
    return known is None or dtype in known


def kernel_dtype(op_type: str, dtype: ir.DataType) -> ir.DataType:
    """The dtype to compute in: ``dtype`` itself where a kernel exists, else a wider one."""
    if has_kernel(op_type, dtype):
        return dtype
    return next((wider for wider in _WIDER.get(dtype, ()) if has_kernel(op_type, wider)), dtype)


def run(op: Emitter, op_type: str, *operands: Operand | SymbolicScalar, **attributes: Any) -> ir.Value:
    """One node whose (data) operands share a dtype, cast around where no kernel takes that dtype.

    Numbers take the dtype of the values beside them; the result has that dtype too, but for comparisons and indices.
    """
    first = 1 if op_type == "Where" else 0
    data = operands[first : first + _data_operands(op_type, len(operands))]
    dtype = next((value.dtype for value in data if isinstance(value, ir.Value) and value.dtype is not None), None)
    if dtype is None:
        raise op.fail(f"{op_type} has no operand whose dtype is known")
    wide = kernel_dtype(op_type, dtype)
    inputs: list[Operand] = []
    for position, operand in enumerate(operands):
        if isinstance(operand, SymbolicScalar):
            operand = operand.scalar(op)
        if not first <= position < first + len(data) or operand is None:
            inputs.append(operand)
        elif isinstance(operand, ir.Value):
            inputs.append(op.cast(operand, wide))
        else:
            inputs.append(op.constant(operand, wide))
    result: ir.Value = op.node(op_type, inputs, **attributes)
    if wide == dtype or op_type in _OWN_RESULT:
        return result
    return op.cast(result, dtype)


def _data_operands(op_type: str, count: int) -> int:
    """How many operands are data; axes, ranks and counts follow after."""
    if op_type.startswith("Reduce") or op_type in ("CumSum", "CumProd", "Expand", "TopK", "Trilu"):
        return 1
    return count


def working_dtype(dtype: ir.DataType, *numbers: Any) -> ir.DataType:
    """The dtype to compute in beside Python numbers: single precision where half could not hold one of them.

    torch computes half tensors with numbers in single precision, so ``x * 1e5`` must not turn 1e5 into infinity.
    """
    if dtype not in HALVES:
        return dtype
    for number in numbers:
        if isinstance(number, bool | int | float):
            size = abs(number)
            if size != 0 and not (6.2e-5 < size <= 65504) and size != float("inf"):
                return ir.DataType.FLOAT
    return dtype
