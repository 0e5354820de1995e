"""Products of sums over pairs: matrix products, convolutions; and reductions that are no sums."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.frontend.complex.algebra import Algebra
from graphforge.frontend.complex.pair import Pair, as_pair, component_dtype
from graphforge.frontend.complex.parts import real_rule
from graphforge.frontend.complex.registry import lowers_pairs
from graphforge.frontend.emitter import Emitter

__all__: list[str] = []


def _half(value: Any, part: str) -> ir.Value | None:
    """A part of a factor; None for the imaginary part of a real one."""
    if isinstance(value, Pair):
        half: ir.Value = getattr(value, part)
        return half
    return value if part == "real" and isinstance(value, ir.Value) else None


def _bilinear(op: Emitter, a: Any, b: Any, *rest: Any, **keywords: Any) -> Pair:
    """(a + i b)(c + i d), each of the four products by the rule for reals."""
    dtype = component_dtype(op)

    def product(one: str, other: str) -> ir.Value | None:
        left, right = _half(a, one), _half(b, other)
        if left is None or right is None:
            return None
        made: ir.Value = real_rule(op, op.target, op.cast(left, dtype), op.cast(right, dtype), *rest, **keywords)
        return made

    straight, crossed = product("real", "real"), product("imag", "imag")
    first, second = product("real", "imag"), product("imag", "real")
    assert straight is not None
    real = straight if crossed is None else op.Sub(straight, crossed)
    if first is not None and second is not None:
        return Pair(real, op.Add(first, second))
    imag = first if first is not None else second
    assert imag is not None
    return Pair(real, imag)


@lowers_pairs("aten.mm.default", "aten.bmm.default", "aten.matmul.default", "aten.mv.default", "aten.dot.default")
def matmul(op: Emitter, a: Any, b: Any) -> Pair:
    """Matrix and vector products."""
    return _bilinear(op, a, b)


@lowers_pairs("aten.outer.default", "aten.ger.default", "aten.inner.default", "aten.kron.default")
def outer(op: Emitter, a: Any, b: Any) -> Any:
    """Products of every element with every other: as torch decomposes them, where there is no rule for reals."""
    from graphforge.frontend.rules import lowering_for

    return _bilinear(op, a, b) if lowering_for(op.target) is not None else NotImplemented


@lowers_pairs("aten.vdot.default")
def vdot(op: Emitter, a: Pair, b: Pair) -> Pair:
    """The dot product with the first conjugated."""
    op.target = "aten.dot.default"
    return _bilinear(op, Pair(a.real, op.Neg(a.imag)), b)


@lowers_pairs("aten.einsum.default")
def einsum(op: Emitter, equation: str, operands: list[Any], **keywords: Any) -> Any:
    """Of one operand by its parts, of two as a product; of more as torch decomposes it."""
    if len(operands) == 1 and isinstance(operands[0], Pair):
        return Pair(
            real_rule(op, op.target, equation, [operands[0].real], **keywords),
            real_rule(op, op.target, equation, [operands[0].imag], **keywords),
        )
    if len(operands) != 2:
        return NotImplemented
    dtype = component_dtype(op)
    a, b = (as_pair(op, item, dtype) for item in operands)

    def product(left: ir.Value, right: ir.Value) -> ir.Value:
        made: ir.Value = real_rule(op, op.target, equation, [left, right], **keywords)
        return made

    return Pair(
        op.Sub(product(a.real, b.real), product(a.imag, b.imag)),
        op.Add(product(a.real, b.imag), product(a.imag, b.real)),
    )


@lowers_pairs("aten.linear.default")
def linear(op: Emitter, x: Any, weight: Any, bias: Any = None) -> Pair:
    """x W^T + b"""
    return _with_bias(op, _bilinear(op, x, weight), bias, ())


@lowers_pairs("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def added(op: Emitter, x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """Beta x + alpha (a b)"""
    twins = {"addmm": "aten.mm.default", "baddbmm": "aten.bmm.default", "addmv": "aten.mv.default"}
    op.target = twins[op.target.split(".")[1]]
    algebra = Algebra(op, component_dtype(op))
    product = _bilinear(op, a, b)
    scaled = algebra.mul(product, algebra.number(complex(alpha))) if alpha != 1 else product
    base = as_pair(op, x, algebra.dtype)
    return algebra.add(algebra.mul(base, algebra.number(complex(beta))) if beta != 1 else base, scaled)


@lowers_pairs("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
def convolution(op: Emitter, x: Any, weight: Any, bias: Any = None, *rest: Any, **keywords: Any) -> Pair:
    """A convolution of each part with each part."""
    spatial = int(op.target.split(".")[1].removeprefix("conv").removesuffix("d"))
    product = _bilinear(op, x, weight, None, *rest, **keywords)
    return _with_bias(op, product, bias, tuple(range(1, spatial + 1)))


def _with_bias(op: Emitter, product: Pair, bias: Any, axes: tuple[int, ...]) -> Pair:
    if bias is None:
        return product
    algebra = Algebra(op, component_dtype(op))
    pair = as_pair(op, bias, algebra.dtype)
    return algebra.add(product, Pair(op.unsqueeze(pair.real, axes), op.unsqueeze(pair.imag, axes)))


# -- reductions --------------------------------------------------------------------------------------------------------


@lowers_pairs("aten.linalg_vector_norm.default", "aten.norm.Scalar", "aten.norm.ScalarOpt_dim")
def norm(op: Emitter, z: Pair, *arguments: Any, **keywords: Any) -> Any:
    """Of the magnitudes."""
    from graphforge.frontend.rules import lowering_for

    if lowering_for(op.target) is None:
        return NotImplemented
    keywords.pop("dtype", None)
    return real_rule(op, op.target, Algebra(op, component_dtype(op, z)).abs(z), *arguments, **keywords)


@lowers_pairs("aten.var.correction", "aten.var.dim", "aten.var.default")
def variance(op: Emitter, z: Pair, *arguments: Any, **keywords: Any) -> ir.Value:
    """The sum of both parts' variances."""
    return op.Add(*(real_rule(op, op.target, part, *arguments, **keywords) for part in (z.real, z.imag)))


@lowers_pairs("aten.var_mean.correction", "aten.var_mean.dim", "aten.var_mean.default")
def variance_and_mean(op: Emitter, z: Pair, *arguments: Any, **keywords: Any) -> tuple[ir.Value, Pair]:
    """Variance as above, mean part by part."""
    parts = [real_rule(op, op.target, part, *arguments, **keywords) for part in (z.real, z.imag)]
    return op.Add(parts[0][0], parts[1][0]), Pair(parts[0][1], parts[1][1])


@lowers_pairs("aten.std_mean.correction", "aten.std_mean.dim", "aten.std_mean.default")
def deviation_and_mean(op: Emitter, z: Pair, *arguments: Any, **keywords: Any) -> tuple[ir.Value, Pair]:
    """The root of the variance, and the mean."""
    op.target = op.target.replace("std", "var")
    spread, mean = variance_and_mean(op, z, *arguments, **keywords)
    return op.Sqrt(spread), mean


@lowers_pairs("aten.std.correction", "aten.std.dim", "aten.std.default")
def deviation(op: Emitter, z: Pair, *arguments: Any, **keywords: Any) -> ir.Value:
    """Its root."""
    op.target = op.target.replace("std", "var")
    return op.Sqrt(variance(op, z, *arguments, **keywords))


@lowers_pairs("aten.prod.default", "aten.prod.dim_int")
def product(op: Emitter, z: Pair, dim: int | None = None, keepdim: bool = False, **_: Any) -> Pair:
    """Halves multiplied with each other until one is left; the size must be fixed."""
    if dim is None:
        z = Pair(op.reshape(z.real, [-1]), op.reshape(z.imag, [-1]))
        dim = 0
    algebra = Algebra(op, component_dtype(op, z))
    if op.rank(z.real) == 0:
        return z
    axis = dim % op.rank(z.real)
    size = op.static_size(z.real, axis)
    if size == 0:
        raise op.fail("complex numbers: the product of no elements")
    while size > 1:
        half = size // 2
        halves = [
            Pair(op.slice(z.real, axis, at, at + half), op.slice(z.imag, axis, at, at + half)) for at in (0, half)
        ]
        made = algebra.mul(*halves)
        if size % 2:
            rest = Pair(op.slice(z.real, axis, size - 1, size), op.slice(z.imag, axis, size - 1, size))
            made = Pair(op.Concat(made.real, rest.real, axis=axis), op.Concat(made.imag, rest.imag, axis=axis))
        z, size = made, half + size % 2
    return z if keepdim else Pair(op.squeeze(z.real, [axis]), op.squeeze(z.imag, [axis]))
