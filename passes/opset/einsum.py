"""Einsum as transposes, products and sums:  operands brought to one order of labels, multiplied, summed over the rest.

Two operands at a time go through MatMul, with the labels sorted into batch, rows, columns and what is summed over.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.passes.opset.step import Step, Values

__all__ = ["einsum"]


@dataclass
class _Term:
    """A tensor and the label of each of its dims."""

    value: ir.Value
    labels: str


def einsum(step: Step) -> Values:
    """Einsum(equation)  ==>  Transpose, Reshape, MatMul, ReduceSum."""
    left, result = _read(step)
    terms = [_diagonal(step, _Term(step.need(i), labels)) for i, labels in enumerate(left)]
    total = _summed(step, terms[0], "".join(term.labels for term in terms[1:]) + result)
    for position, term in enumerate(terms[1:], start=1):
        later = "".join(other.labels for other in terms[position + 1 :]) + result
        total = _product(step, total, _summed(step, term, total.labels + later), later)
    total = _summed(step, total, result)
    if sorted(total.labels) != sorted(result):
        step.fail(f"equation {step.text_of('equation', '')!r} has a label in its result that no operand has")
    y = _ordered(step, total, result).value
    return [y if y not in step.node.inputs else step.op.Identity(y)]


def _read(step: Step) -> tuple[list[str], str]:
    """The labels of the operands and of the result, with letters in the place of '...'."""
    equation = step.text_of("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    operands = left.split(",")
    if len(operands) != len(step.node.inputs):
        step.fail(f"equation {equation!r} is for {len(operands)} operands")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    longest = 0
    for position, labels in enumerate(operands):
        if "..." in labels:
            longest = max(longest, step.rank(position) - len(labels) + 3)
    dots = "".join(free[:longest])
    filled = []
    for position, labels in enumerate(operands):
        own = step.rank(position) - len(labels) + 3
        filled.append(labels.replace("...", dots[longest - own :] if own else ""))
    if arrow:
        return filled, right.replace("...", dots)
    every = "".join(filled)
    once = sorted(label for label in set(every) - set(dots) if every.count(label) == 1)
    return filled, dots + "".join(once)


def _diagonal(step: Step, term: _Term) -> _Term:
    """A label that is there twice in one operand means its diagonal."""
    for label in sorted(set(term.labels)):
        while term.labels.count(label) > 1:
            first = term.labels.index(label)
            second = term.labels.index(label, first + 1)
            term = _one_diagonal(step, term, first, second)
    return term


def _one_diagonal(step: Step, term: _Term, first: int, second: int) -> _Term:
    op, rank = step.op, len(term.labels)
    order = [axis for axis in range(rank) if axis not in (first, second)] + [first, second]
    moved = op.Transpose(term.value, perm=order)
    size = op.Squeeze(op.Slice(op.Shape(moved), [rank - 1], [rank]), axes=[0])
    numbers = op.Range(0, size, 1)
    shape = op.Shape(moved)
    index = op.Expand(op.Unsqueeze(numbers, axes=[1]), op.Concat(op.Slice(shape, [0], [rank - 1]), [1], axis=0))
    picked = op.Squeeze(op.GatherElements(moved, index, axis=rank - 1), axes=[rank - 1])
    labels = "".join(term.labels[axis] for axis in order[:-1])
    return _Term(picked, labels)


def _summed(step: Step, term: _Term, wanted: str) -> _Term:
    """Without the labels that nobody asks for any more."""
    gone = [axis for axis, label in enumerate(term.labels) if label not in wanted]
    if not gone:
        return term
    value = step.op.ReduceSum(term.value, axes=gone, keepdims=0)
    return _Term(value, "".join(label for label in term.labels if label in wanted))


def _ordered(step: Step, term: _Term, order: str) -> _Term:
    perm = [term.labels.index(label) for label in order]
    if perm == list(range(len(perm))):
        return term
    return _Term(step.op.Transpose(term.value, perm=perm), order)


def _product(step: Step, a: _Term, b: _Term, wanted: str) -> _Term:
    """One matrix product:  (batch, rows, inner) x (batch, inner, columns)."""
    op = step.op
    shared = [label for label in a.labels if label in b.labels]
    batch = "".join(label for label in shared if label in wanted)
    inner = "".join(label for label in shared if label not in wanted)
    rows = "".join(label for label in a.labels if label not in shared)
    columns = "".join(label for label in b.labels if label not in shared)
    if not inner:
        # Nothing to sum over: a plain product of the two, each with the other's dims as ones.
        left, right = _ordered(step, a, batch + rows), _ordered(step, b, batch + columns)
        wide = left.value
        if columns:
            first = len(left.labels)
            wide = op.Unsqueeze(wide, axes=list(range(first, first + len(columns))))
        other = right.value
        if rows:
            other = op.Unsqueeze(other, axes=list(range(len(batch), len(batch) + len(rows))))
        return _Term(op.Mul(wide, other), batch + rows + columns)
    left, right = _ordered(step, a, batch + rows + inner), _ordered(step, b, batch + inner + columns)
    shape_a, shape_b = op.Shape(left.value), op.Shape(right.value)
    count, height = len(batch), len(rows)
    both = op.Slice(shape_a, [0], [count]) if count else None

    def flat(term: _Term, shape: ir.Value, groups: tuple[int, int]) -> ir.Value:
        if groups == (1, 1):
            return term.value
        first = _size(step, shape, count, count + groups[0])
        pieces = [first, [-1]] if both is None else [_cut(step, shape, 0, count), first, [-1]]
        result = op.Reshape(term.value, op.Concat(*pieces, axis=0))
        assert isinstance(result, ir.Value)
        return result

    matrix_a = flat(left, shape_a, (height, len(inner)))
    matrix_b = flat(right, shape_b, (len(inner), len(columns)))
    y = op.MatMul(matrix_a, matrix_b)
    labels = batch + rows + columns
    if (height, len(columns)) != (1, 1):
        pieces = [_cut(step, shape_a, 0, count)] if count else []
        if rows:
            pieces.append(_cut(step, shape_a, count, count + height))
        if columns:
            pieces.append(_cut(step, shape_b, count + len(inner), len(right.labels)))
        target = op.Concat(*pieces, axis=0) if pieces else []
        y = op.Reshape(y, op.constant([]) if not pieces else target)
    return _Term(y, labels)


def _cut(step: Step, shape: ir.Value, start: int, end: int) -> ir.Value:
    piece = step.op.Slice(shape, [start], [end])
    assert isinstance(piece, ir.Value)
    return piece


def _size(step: Step, shape: ir.Value, start: int, end: int) -> ir.Value | list[int]:
    """The number of elements in some dims, as a shape of one."""
    if start == end:
        return [1]
    product = step.op.ReduceProd(_cut(step, shape, start, end), axes=[0], keepdims=1)
    assert isinstance(product, ir.Value)
    return product
