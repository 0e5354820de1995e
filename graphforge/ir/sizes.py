"""Sizes written as expressions (``x_2_div8*x_3_div8``): what they are at most within the promised ranges."""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ["PROMISED_SIZES", "largest", "may_be_zero"]

# In a model's meta: the name of a dim -> the promised sizes, a range.
PROMISED_SIZES = "graphforge.promised_sizes"

# Combinations of sizes up to which every one is tried; beyond, both ends of each range.
_EVERY = 4096

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Max": max,
    "Min": min,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "ToFloat": float,
    "TruncToInt": int,
    "FloorToInt": math.floor,
    "CeilToInt": math.ceil,
    "floor": math.floor,
    "ceiling": math.ceil,
    "Abs": abs,
}


def largest(expression: str, promised: Mapping[str, range]) -> int | None:
    """The largest value of an expression over sizes; None where it names something that is not promised."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        return None
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(_FUNCTIONS))
    ranges: list[range] = []
    for name in names:
        base, _, step = name.rpartition("_div")
        if name in promised:
            ranges.append(promised[name])
        elif base in promised and step.isdigit():
            whole = promised[base]
            ranges.append(range(whole[0] // int(step), whole[-1] // int(step) + 1))
        else:
            return None
    if math.prod(len(one) for one in ranges) > _EVERY:
        corners: list[Any] = [(one[0], one[-1]) for one in ranges]
    else:
        corners = list(ranges)
    try:
        return max(int(_value(tree, dict(zip(names, sizes, strict=True)))) for sizes in itertools.product(*corners))
    except (ArithmeticError, KeyError, TypeError):
        return None


def may_be_zero(expression: str | None, zeros: Collection[str]) -> bool:
    """Whether a size may well be 0: unknown ones, those that depend on data (``u0``: how many boxes are left), and
    what is made of dims that are promised from 0 on, whose names are given.
    """
    if expression is None or re.search(r"\bu\d+\b|\?", expression):
        return True
    return bool(zeros) and any(name in zeros for name in re.findall(r"\w+", expression))


def _value(tree: ast.expr, sizes: Mapping[str, int]) -> Any:
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.Name):
        return sizes[tree.id]
    if isinstance(tree, ast.BinOp):
        return _OPERATORS[type(tree.op)](_value(tree.left, sizes), _value(tree.right, sizes))
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_value(tree.operand, sizes)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        return _FUNCTIONS[tree.func.id](*(_value(one, sizes) for one in tree.args))
    raise KeyError(type(tree).__name__)
