"""Operators in double precision made of others that runtimes do have kernels for, so that no digit is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.ir import Builder

__all__ = ["DOUBLE_FORMS", "DoubleForm"]


@dataclass(frozen=True, slots=True)
class DoubleForm:
    """How to write an operator by others.

    Attributes:
        build: builder and node -> the value of its one output, in front of the node; None where the node is of a kind
            that has no such form.
        needs: the operators it is made of.
    """

    build: Callable[[Builder, ir.Node], ir.Value | None]
    needs: frozenset[str]


def _of_one(build: Callable[[Builder, ir.Value], ir.Value], needs: str) -> DoubleForm:
    def of_node(op: Builder, node: ir.Node) -> ir.Value | None:
        (x,) = node.inputs
        return None if x is None else build(op, x)

    return DoubleForm(of_node, frozenset(needs.split()))


def _tan(op: Builder, x: ir.Value) -> ir.Value:
    result: ir.Value = op.Div(op.Sin(x), op.Cos(x))
    return result


def _sinh(op: Builder, x: ir.Value) -> ir.Value:
    half = op.Exp(op.Mul(op.Abs(x), 0.5))  # its square overflows no sooner than sinh does
    size = op.Sub(op.Mul(op.Mul(half, 0.5), half), op.Div(0.5, op.Mul(half, half)))
    result: ir.Value = op.Mul(op.Sign(x), size)
    return result


def _cosh(op: Builder, x: ir.Value) -> ir.Value:
    half = op.Exp(op.Mul(op.Abs(x), 0.5))
    result: ir.Value = op.Add(op.Mul(op.Mul(half, 0.5), half), op.Div(0.5, op.Mul(half, half)))
    return result


def _asinh(op: Builder, x: ir.Value) -> ir.Value:
    size = op.Abs(x)
    # where the square would overflow, 1 is lost in it anyway: log(2) + log(x)
    large = op.Greater(size, 1e150)
    small = op.Where(large, 1.0, size)
    root = op.Sqrt(op.Add(op.Mul(small, small), 1.0))
    value = op.Where(large, op.Add(op.Log(size), math.log(2)), op.Log(op.Add(small, root)))
    result: ir.Value = op.Mul(op.Sign(x), value)
    return result


def _acosh(op: Builder, x: ir.Value) -> ir.Value:
    # sqrt(x - 1) * sqrt(x + 1) does not overflow where x * x - 1 would
    root = op.Mul(op.Sqrt(op.Sub(x, 1.0)), op.Sqrt(op.Add(x, 1.0)))
    result: ir.Value = op.Log(op.Add(x, root))
    return result


def _atanh(op: Builder, x: ir.Value) -> ir.Value:
    result: ir.Value = op.Mul(op.Log(op.Div(op.Add(x, 1.0), op.Sub(1.0, x))), 0.5)
    return result


def _softplus(op: Builder, x: ir.Value) -> ir.Value:
    # max(x, 0) + log(1 + exp(-|x|)) cannot overflow
    fading = op.Exp(op.Neg(op.Abs(x)))
    result: ir.Value = op.Add(op.Max(x, 0.0), op.Log(op.Add(fading, 1.0)))
    return result


def _mish(op: Builder, x: ir.Value) -> ir.Value:
    result: ir.Value = op.Mul(x, op.Tanh(_softplus(op, x)))
    return result


def _hard_swish(op: Builder, x: ir.Value) -> ir.Value:
    result: ir.Value = op.Div(op.Mul(x, op.Clip(op.Add(x, 3.0), 0.0, 6.0)), 6.0)
    return result


def _gelu(op: Builder, node: ir.Node) -> ir.Value | None:
    approximate = node.attributes.get("approximate")
    (x,) = node.inputs
    if x is None or approximate is None or approximate.as_string() != "tanh":
        return None  # the exact one is made of Erf, which has no kernel either
    cube = op.Mul(op.Mul(x, x), x)
    inner = op.Mul(op.Add(x, op.Mul(cube, 0.044715)), math.sqrt(2 / math.pi))
    result: ir.Value = op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(inner), 1.0))
    return result


def _prelu(op: Builder, node: ir.Node) -> ir.Value | None:
    x, slope = node.inputs
    if x is None or slope is None:
        return None
    result: ir.Value = op.Where(op.Greater(x, 0.0), x, op.Mul(x, slope))
    return result


def _clip(op: Builder, node: ir.Node) -> ir.Value | None:
    x, low, high = (*node.inputs, None, None)[:3]
    if x is None:
        return None
    result = x if low is None else op.Max(x, low)
    return result if high is None else op.Min(result, high)


def _global_average_pool(op: Builder, node: ir.Node) -> ir.Value | None:
    (x,) = node.inputs
    if x is None or x.shape is None:
        return None
    result: ir.Value = op.ReduceMean(x, list(range(2, len(x.shape))), keepdims=1)
    return result


DOUBLE_FORMS: dict[str, DoubleForm] = {
    "Acosh": _of_one(_acosh, "Add Log Mul Sqrt Sub"),
    "Asinh": _of_one(_asinh, "Abs Add Greater Log Mul Sign Sqrt Where"),
    "Atanh": _of_one(_atanh, "Add Div Log Mul Sub"),
    "Clip": DoubleForm(_clip, frozenset({"Max", "Min"})),
    "Cosh": _of_one(_cosh, "Abs Add Div Exp Mul"),
    "Gelu": DoubleForm(_gelu, frozenset("Add Mul Tanh".split())),
    "GlobalAveragePool": DoubleForm(_global_average_pool, frozenset({"ReduceMean"})),
    "HardSwish": _of_one(_hard_swish, "Add Clip Div Mul"),
    "Mish": _of_one(_mish, "Abs Add Exp Log Max Mul Neg Tanh"),
    "PRelu": DoubleForm(_prelu, frozenset("Greater Mul Where".split())),
    "Sinh": _of_one(_sinh, "Abs Div Exp Mul Sign Sub"),
    "Softplus": _of_one(_softplus, "Abs Add Exp Log Max Neg"),
    "Tan": _of_one(_tan, "Cos Div Sin"),
}
