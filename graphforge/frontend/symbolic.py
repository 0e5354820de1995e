"""Arithmetic on sizes: Python operators and torch.sym_* functions on symbolic scalars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from graphforge.errors import LoweringError
from graphforge.frontend.emitter import Emitter, SymbolicScalar, dim_label

__all__ = ["dim_sources", "from_expression", "lower_symbolic", "symbolic_result"]

_INT = ir.DataType.INT64
_DOUBLE = ir.DataType.DOUBLE
_BOOL = ir.DataType.BOOL


def symbolic_result(op: Emitter, value: ir.Value, result: Any) -> SymbolicScalar:
    """Wrap a rank-0 value computed in the graph as the symbolic scalar that capture says it is."""
    label = dim_label(result, op.symbol_names) if isinstance(result, torch.SymInt) else f"?{value.name or op.target}"
    dtype = _INT if isinstance(result, torch.SymInt) else _BOOL if isinstance(result, torch.SymBool) else _DOUBLE
    return SymbolicScalar(str(label), scalar=lambda _: value, dtype=dtype)


def _floordiv(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    if a.dtype == _INT:
        # ONNX integer Div truncates: right for what is not negative (see lower_symbolic), wrong for the rest
        remainder = op.Mod(a, b)
        return op.Div(op.Sub(a, remainder), b)
    return op.Floor(op.Div(a, b))


def _not_equal(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    return op.Not(op.Equal(a, b))


_BINARY: dict[str, Callable[[Emitter, ir.Value, ir.Value], ir.Value]] = {
    "add": lambda op, a, b: op.Add(a, b),
    "sub": lambda op, a, b: op.Sub(a, b),
    "mul": lambda op, a, b: op.Mul(a, b),
    "floordiv": _floordiv,
    "truncated_div": lambda op, a, b: op.Div(a, b),
    "mod": lambda op, a, b: op.Mod(a, b),
    "pow": lambda op, a, b: op.Pow(a, b),
    "sym_max": lambda op, a, b: op.Max(a, b),
    "sym_min": lambda op, a, b: op.Min(a, b),
    "max": lambda op, a, b: op.Max(a, b),
    "min": lambda op, a, b: op.Min(a, b),
    "eq": lambda op, a, b: op.Equal(a, b),
    "ne": _not_equal,
    "lt": lambda op, a, b: op.Less(a, b),
    "le": lambda op, a, b: op.LessOrEqual(a, b),
    "gt": lambda op, a, b: op.Greater(a, b),
    "ge": lambda op, a, b: op.GreaterOrEqual(a, b),
}
_LOGIC: dict[str, Callable[[Emitter, ir.Value, ir.Value], ir.Value]] = {
    "and_": lambda op, a, b: op.And(a, b),
    "or_": lambda op, a, b: op.Or(a, b),
}
_ALIASES = {"_sym_max": "sym_max", "_sym_min": "sym_min"}


def _not_negative(fake: Any) -> bool:
    """Whether a captured size is known to be zero or more."""
    if isinstance(fake, int):
        return fake >= 0
    if not isinstance(fake, torch.SymInt):
        return False
    if fake.node.expr.is_nonnegative:
        return True
    bounds = fake.node.shape_env.bound_sympy(fake.node.expr)
    return bool(bounds.lower >= 0)


def lower_symbolic(
    op: Emitter, target: Any, args: Sequence[Any], result: Any, fakes: Sequence[Any] = ()
) -> SymbolicScalar:
    """Lower one call on sizes.

    Args:
        op: where to emit, later, when the result is used.
        target: the Python operator or ``torch.sym_*`` function.
        args: its arguments as a lowering rule receives them.
        result: what capture says it returns.
        fakes: what capture says its arguments are.

    Raises:
        LoweringError: the function is unknown.
    """
    name = getattr(target, "__name__", str(target))
    name = _ALIASES.get(name, name)
    if isinstance(result, torch.SymInt):
        label = str(dim_label(result, op.symbol_names))
        dtype = _INT
    else:
        label, dtype = f"?{name}", _BOOL if isinstance(result, torch.SymBool) else _DOUBLE
    origins = op.origins
    if name == "floordiv" and dtype == _INT and len(fakes) == 2 and all(_not_negative(fake) for fake in fakes):
        name = "truncated_div"

    def make(emit: Emitter) -> ir.Value:
        outer, emit.origins = emit.origins, origins
        try:
            return _compute(emit, name, args, dtype)
        finally:
            emit.origins = outer

    if name not in _KNOWN:
        raise LoweringError(f"arithmetic on sizes: {name} has no lowering")
    return SymbolicScalar(label, scalar=make, dtype=dtype)


def dim_sources(op: Emitter, value: ir.Value, fake: torch.Tensor) -> dict[Any, SymbolicScalar]:
    """Which symbols of the capture an input's sizes tell: the symbol itself, or a multiple of it."""
    sources: dict[Any, SymbolicScalar] = {}
    for axis, size in enumerate(fake.shape):
        if isinstance(size, int):
            continue
        factor, rest = size.node.expr.as_coeff_Mul()
        whole = op.size(value, axis)
        if not rest.is_Symbol or isinstance(whole, int):
            continue
        if factor == 1:
            sources[rest] = whole
        else:
            sources.setdefault(rest, _quotient(str(rest), whole, int(factor)))
    return sources


def _quotient(label: str, whole: SymbolicScalar, factor: int) -> SymbolicScalar:
    return SymbolicScalar(label, scalar=lambda op: op.Div(whole.native(op), factor))


def from_expression(op: Emitter, result: torch.SymInt, sources: Mapping[Any, SymbolicScalar]) -> SymbolicScalar:
    """A size computed from the inputs' sizes by its expression, for operators that only ask for it (strides).

    Raises:
        LoweringError: the expression depends on data, or holds a function that we have no form for.
    """
    expression = result.node.expr
    unknown = sorted(str(symbol) for symbol in expression.free_symbols if symbol not in sources)
    if unknown:
        raise LoweringError(f"the size {expression} depends on {', '.join(unknown)}, which no input tells")
    _check_functions(expression)
    return SymbolicScalar(
        str(dim_label(result, op.symbol_names)), scalar=lambda emit: _evaluate(emit, expression, sources)
    )


_SYMPY_BINARY = {"Add": "add", "Mul": "mul", "Mod": "mod", "PythonMod": "mod", "Max": "max", "Min": "min"}


def _check_functions(expression: Any) -> None:
    name = type(expression).__name__
    known = expression.is_Integer or expression.is_Symbol or name in ("FloorDiv", "Pow") or name in _SYMPY_BINARY
    if not known or (name == "Pow" and not (expression.exp.is_Integer and expression.exp > 0)):
        raise LoweringError(f"the size {expression} has no lowering")
    for part in expression.args:
        _check_functions(part)


def _evaluate(op: Emitter, expression: Any, sources: Mapping[Any, SymbolicScalar]) -> ir.Value:
    if expression.is_Integer:
        return op.constant(int(expression))
    if expression.is_Symbol:
        return sources[expression].native(op)
    parts = [_evaluate(op, part, sources) for part in expression.args]
    name = type(expression).__name__
    combine = _BINARY["floordiv" if name == "FloorDiv" else "pow" if name == "Pow" else _SYMPY_BINARY[name]]
    total = parts[0]
    for part in parts[1:]:
        total = combine(op, total, part)
    return total


def _compute(op: Emitter, name: str, args: Sequence[Any], dtype: ir.DataType) -> ir.Value:
    if name in _BINARY or name == "truediv":
        floating = name == "truediv" or any(_dtype_of(arg) == _DOUBLE for arg in args)
        kind = _DOUBLE if floating else _INT
        a, b = (_operand(op, arg, kind) for arg in args)
        return op.Div(a, b) if name == "truediv" else _BINARY[name](op, a, b)
    if name in _LOGIC:
        a, b = (_operand(op, arg, _BOOL) for arg in args)
        return _LOGIC[name](op, a, b)
    if name == "sym_sum":
        total = _operand(op, args[0][0], _INT)
        for item in args[0][1:]:
            total = op.Add(total, _operand(op, item, _INT))
        return total
    if name == "sym_ite":
        return op.Where(*(_operand(op, arg) for arg in args))
    value = _operand(op, args[0])
    if name in ("sym_float", "sym_int", "trunc", "int", "float"):
        return op.cast(value, dtype)
    if name in ("neg", "abs"):
        return op.Neg(value) if name == "neg" else op.Abs(value)
    if name in ("sym_not", "not_", "__not__"):
        return op.Not(op.cast(value, _BOOL))
    if name in ("ceil", "floor", "round"):
        rounded = {"ceil": op.Ceil, "floor": op.Floor, "round": op.Round}[name](op.cast(value, _DOUBLE))
        return op.cast(rounded, dtype)
    if name in ("_sym_sqrt", "sym_sqrt", "sqrt"):
        return op.Sqrt(op.cast(value, _DOUBLE))
    if name == "_sym_log2":
        return _log2(op, op.cast(value, _DOUBLE))
    if name in _TRIGONOMETRIC:
        return op.single(_TRIGONOMETRIC[name], op.cast(value, _DOUBLE))
    raise LoweringError(f"arithmetic on sizes: {name} has no lowering")


def _log2(op: Emitter, value: ir.Value) -> ir.Value:
    """The logarithm to the base 2, which is a whole number for powers of two: `math.ceil(math.log2(n))` asks for it."""
    divided = op.Div(op.Log(value), op.scalar(math.log(2), _DOUBLE))
    whole = op.Round(divided)
    near = op.Less(op.Abs(op.Sub(divided, whole)), op.scalar(1e-12, _DOUBLE))
    return op.Where(near, whole, divided)


_TRIGONOMETRIC = {f"_sym_{name.lower()}": name for name in "Sin Cos Tan Sinh Cosh Tanh Asin Acos Atan".split()}


def _operand(op: Emitter, arg: Any, dtype: ir.DataType | None = None) -> ir.Value:
    """An argument as it comes: rank 0, or a vector of one element; arithmetic broadcasts."""
    value = arg.native(op) if isinstance(arg, SymbolicScalar) else op.scalar(arg, dtype)
    return value if dtype is None else op.cast(value, dtype)


def _dtype_of(arg: Any) -> ir.DataType:
    if isinstance(arg, SymbolicScalar):
        return arg.dtype
    return _DOUBLE if isinstance(arg, float) else _INT


_KNOWN = {
    *_BINARY,
    *_LOGIC,
    "truediv",
    "sym_sum",
    "sym_ite",
    "sym_float",
    "sym_int",
    "trunc",
    "int",
    "float",
    "neg",
    "abs",
    "sym_not",
    "not_",
    "__not__",
    "ceil",
    "floor",
    "round",
    "_sym_sqrt",
    "sym_sqrt",
    "sqrt",
    "_sym_log2",
    *_TRIGONOMETRIC,
}
