"""Sums of products over named axes: einsum, tensordot, bilinear; and pairwise distances.

ONNX has Einsum, and ONNX Runtime runs it 1.1 to 3.5 times slower on CPU than the MatMul it stands for, so two operands
become one MatMul with as few transposes and reshapes around it as their order allows.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from graphforge.frontend.aten._windows import empty_result
from graphforge.frontend.emitter import Dim, Emitter, dim_label_of
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True, slots=True)
class _Term:
    """A tensor with a letter for each axis."""

    value: ir.Value
    labels: str


def _parse(op: Emitter, equation: str, operands: Sequence[ir.Value]) -> tuple[list[str], str]:
    """Labels of every operand and of the result, ellipses spelled out in letters of their own."""
    equation = equation.replace(" ", "")
    left, arrow, result = equation.partition("->")
    texts = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    covered = [
        op.rank(value) - len(text.replace("...", "")) if "..." in text else 0
        for text, value in zip(texts, operands, strict=True)
    ]
    hidden = "".join(free[: max(covered, default=0)])
    spelled = [
        text.replace("...", hidden[len(hidden) - count :] if count else "")
        for text, count in zip(texts, covered, strict=True)
    ]
    if arrow:
        return spelled, result.replace("...", hidden)
    visible = "".join(text.replace("...", "") for text in texts)
    once = sorted(letter for letter in set(visible) if visible.count(letter) == 1)
    return spelled, hidden + "".join(once)


def _sizes(op: Emitter, terms: Sequence[_Term]) -> dict[str, Dim] | None:
    """The size of every letter; None when operands broadcast or take a diagonal, which one MatMul cannot say."""
    sizes: dict[str, Dim] = {}
    for term in terms:
        if len(set(term.labels)) != len(term.labels):
            return None
        for axis, letter in enumerate(term.labels):
            size = op.size(term.value, axis)
            known = sizes.setdefault(letter, size)
            if dim_label_of(known) != dim_label_of(size):
                return None
    return sizes


def _summed(op: Emitter, term: _Term, keep: str) -> _Term:
    """Without the axes that nothing else needs."""
    gone = [axis for axis, letter in enumerate(term.labels) if letter not in keep]
    if not gone:
        return term
    labels = "".join(letter for letter in term.labels if letter in keep)
    return _Term(op.ReduceSum(term.value, gone, keepdims=0), labels)


def _arranged(op: Emitter, term: _Term, order: str) -> ir.Value:
    return op.transpose(term.value, [term.labels.index(letter) for letter in order])


def _as_matrix(op: Emitter, term: _Term, order: str, groups: Sequence[str], sizes: dict[str, Dim]) -> ir.Value:
    """Transposed to ``order``, then reshaped so that each group of letters is one axis."""
    value = _arranged(op, term, order)
    dims: list[Dim] = []
    for group in groups:
        dims.append(_product([sizes[letter] for letter in group]))
    if len(dims) == len(order) and all(len(group) == 1 for group in groups):
        return value
    if dims.count(-1) > 1:
        raise op.fail("two groups of dynamic axes would have to be merged", "write the product with matmul")
    return op.reshape(value, dims)


def _product(dims: Sequence[Dim]) -> Dim:
    """The product of sizes: a number, a single dynamic size, or -1 for what Reshape has to find out."""
    if len(dims) == 1:
        return dims[0]
    total = 1
    for dim in dims:
        if not isinstance(dim, int):
            return -1
        total *= dim
    return total


@dataclass(frozen=True, slots=True)
class _Plan:
    """How two terms become a MatMul: the letters of each role."""

    first: _Term
    second: _Term
    batch: str
    left: str
    shared: str
    right: str

    @property
    def left_groups(self) -> list[str]:
        """Axes of the first factor; without a batch, MatMul takes any number of leading axes as they are."""
        return [*self.batch, *([self.left] if self.batch else self.left), self.shared]

    @property
    def right_groups(self) -> list[str]:
        """Axes of the second factor."""
        return [*self.batch, self.shared, self.right]

    @property
    def joined(self) -> str:
        """The letters of the product, in its order."""
        return self.batch + self.left + self.right

    def cost(self, out: str) -> int:
        """What stands around the MatMul: a transpose moves data, a reshape does not, on a weight both are free."""
        total = _TRANSPOSE * int(out != self.joined)
        total += _RESHAPE * int(len(self.right) != 1 or (bool(self.batch) and len(self.left) != 1))
        for term, groups in ((self.first, self.left_groups), (self.second, self.right_groups)):
            if not term.value.is_initializer():
                total += _TRANSPOSE * int(term.labels != "".join(groups))
                total += _RESHAPE * int(any(len(group) != 1 for group in groups))
        return total


_TRANSPOSE = 3
_RESHAPE = 2


def _plan(first: _Term, second: _Term, out: str) -> _Plan:
    batch = "".join(letter for letter in out if letter in first.labels and letter in second.labels)
    left = "".join(letter for letter in out if letter in first.labels and letter not in batch)
    right = "".join(letter for letter in out if letter in second.labels and letter not in batch)
    shared = "".join(letter for letter in first.labels if letter in second.labels and letter not in batch)
    return _Plan(first, second, batch, left, shared, right)


def _pair(op: Emitter, first: _Term, second: _Term, out: str, sizes: dict[str, Dim]) -> _Term:
    """The product of two terms, summed over the letters that ``out`` does not have."""
    first = _summed(op, first, out + second.labels)
    second = _summed(op, second, out + first.labels)
    plan = min((_plan(first, second, out), _plan(second, first, out)), key=lambda candidate: candidate.cost(out))
    if not plan.shared:
        return _Term(_outer(op, first, second, out), out)
    if not plan.left and not plan.right and plan.batch:
        products = _Term(_outer(op, first, second, plan.batch + plan.shared), plan.batch + plan.shared)
        return _summed(op, products, plan.batch)
    a = _as_matrix(op, plan.first, plan.batch + plan.left + plan.shared, plan.left_groups, sizes)
    b = _as_matrix(op, plan.second, plan.batch + plan.shared + plan.right, plan.right_groups, sizes)
    product: ir.Value = op.MatMul(a, b)
    if len(plan.right) != 1 or (plan.batch and len(plan.left) != 1):
        product = op.reshape(product, [sizes[letter] for letter in plan.joined])
    return _Term(_arranged(op, _Term(product, plan.joined), out), out)


def _outer(op: Emitter, first: _Term, second: _Term, out: str) -> ir.Value:
    """A plain product with broadcasting: nothing is summed."""
    factors = []
    for term in (first, second):
        order = "".join(letter for letter in out if letter in term.labels)
        value = _arranged(op, term, order)
        # leading axes of size 1 come by themselves
        start = next((i for i, letter in enumerate(out) if letter in term.labels), len(out))
        missing = [i - start for i, letter in enumerate(out) if i > start and letter not in term.labels]
        factors.append(op.unsqueeze(value, missing))
    product: ir.Value = op.Mul(*factors)
    return product


def _contract(op: Emitter, inputs: Sequence[str], out: str, operands: Sequence[ir.Value]) -> ir.Value:
    terms = [_Term(value, labels) for value, labels in zip(operands, inputs, strict=True)]
    sizes = _sizes(op, terms)
    if sizes is None:
        whole: ir.Value = op.Einsum(*(term.value for term in terms), equation=f"{','.join(inputs)}->{out}")
        return whole
    while len(terms) > 1:
        first, second, *rest = terms
        needed = out + "".join(term.labels for term in rest)
        both = first.labels + second.labels
        kept = "".join(letter for letter in dict.fromkeys(out + both) if letter in needed and letter in both)
        terms = [_pair(op, first, second, kept, sizes), *rest]
    return _arranged(op, _summed(op, terms[0], out), out)


@lowers("aten.einsum.default")
def einsum(op: Emitter, equation: str, operands: Sequence[ir.Value], *, path: Any = None) -> ir.Value:
    """MatMul with transposes around it; Einsum where operands broadcast or take a diagonal."""
    inputs, out = _parse(op, equation, operands)
    return _contract(op, inputs, out, operands)


@lowers("aten.tensordot.default")
def tensordot(op: Emitter, a: ir.Value, b: ir.Value, dims_self: Sequence[int], dims_other: Sequence[int]) -> ir.Value:
    """MatMul with transposes around it."""
    letters = iter(string.ascii_letters)
    first = [next(letters) for _ in range(op.rank(a))]
    second = [next(letters) for _ in range(op.rank(b))]
    summed = []
    for mine, other in zip(dims_self, dims_other, strict=True):
        second[other % len(second)] = first[mine % len(first)]
        summed.append(first[mine % len(first)])
    out = "".join(letter for letter in [*first, *second] if letter not in summed)
    return _contract(op, ["".join(first), "".join(second)], out, [a, b])


@lowers("aten.bilinear.default")
def bilinear(
    op: Emitter, first: ir.Value, second: ir.Value, weight: ir.Value, bias: ir.Value | None = None
) -> ir.Value:
    """``y[o] = x1[i] weight[o, i, j] x2[j] + bias[o]``."""
    lead = string.ascii_lowercase[: op.rank(first) - 1]
    result = _contract(op, [lead + "X", "ZXY", lead + "Y"], lead + "Z", [first, weight, second])
    if bias is None:
        return result
    total: ir.Value = op.Add(result, bias)
    return total


# -- distances ---------------------------------------------------------------------------------------------------------

# Above this many rows, torch itself goes by products instead of differences (compute_mode None).
_MANY_ROWS = 25


@lowers("aten.cdist.default", "aten._cdist_forward.default")
def cdist(op: Emitter, a: ir.Value, b: ir.Value, p: float = 2.0, compute_mode: int | None = None) -> ir.Value:
    """The p-norm of every difference of a row of ``a`` and a row of ``b``."""
    empty = empty_result(op)
    if empty is not None:
        return empty
    if p == 2 and _by_products(op, a, b, compute_mode):
        return _euclidean(op, a, b)
    difference = op.Sub(op.unsqueeze(a, [op.rank(a) - 1]), op.unsqueeze(b, [op.rank(b) - 2]))
    if p == 1:
        return op.ReduceL1(difference, [-1], keepdims=0)
    if p == 2:
        return op.ReduceL2(difference, [-1], keepdims=0)
    size = op.Abs(difference)
    dtype = a.dtype or _FLOAT
    if p == 0:
        return op.ReduceSum(op.cast(op.Greater(size, 0), dtype), [-1], keepdims=0)
    if p == float("inf"):
        return op.ReduceMax(size, [-1], keepdims=0)
    total = op.ReduceSum(op.Pow(size, op.constant(p, dtype)), [-1], keepdims=0)
    return op.Pow(total, op.constant(1.0 / p, dtype))


def _by_products(op: Emitter, a: ir.Value, b: ir.Value, compute_mode: int | None) -> bool:
    if compute_mode in (1, 2):
        return compute_mode == 1
    return any(isinstance(rows, int) and rows > _MANY_ROWS for rows in (op.size(a, -2), op.size(b, -2)))


def _euclidean(op: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """sqrt(|a|^2 + |b|^2 - 2 a b^T), in the form that torch takes for many rows."""
    rank = op.rank(b)
    squares_a = op.ReduceSumSquare(a, [-1], keepdims=1)
    squares_b = op.ReduceSumSquare(b, [-1], keepdims=1)
    swap = [*range(rank - 2), rank - 1, rank - 2]
    products = op.MatMul(op.Mul(a, op.constant(-2.0, a.dtype)), op.transpose(b, swap))
    total = op.Add(op.Add(products, squares_a), op.transpose(squares_b, swap))
    return op.Sqrt(op.Max(total, op.constant(0.0, a.dtype)))


# -- determinants ------------------------------------------------------------------------------------------------------


@lowers("aten.det.default", "aten.linalg_det.default")
def det(op: Emitter, x: ir.Value) -> ir.Value:
    """Det."""
    result: ir.Value = op.Det(x)
    return result
