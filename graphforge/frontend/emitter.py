"""Emitter: the Builder that lowering rules write with; knows dtypes, symbolic sizes and the operator being lowered."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, overload

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype, to_torch_dtype

from graphforge.errors import LoweringError
from graphforge.ir import Builder, Operand, schema_of
from graphforge.ir.detour import Rounding, compute_in, decides
from graphforge.ir.dtypes import SUBSTITUTES, dtype_name, holds
from graphforge.ir.sizes import may_be_zero
from graphforge.ir.versions import admitted_types, onnx_type_name

__all__ = ["Dim", "Emitter", "SymbolicScalar", "dim_label", "dim_label_of"]

_MAX_INT64 = 2**63 - 1


class SymbolicScalar:
    """An integer (or float or bool) known at run time only: a size, or arithmetic on sizes.

    Nothing is emitted until a rule asks for it with ``Emitter.scalar`` or ``Emitter.vector``.

    Args:
        label: canonical text of its symbolic expression (``2*batch + 1``); equal labels are equal sizes.
        scalar: emits it, with rank 0 or as a vector of one element, whichever is cheaper.
        vector: another name for ``scalar``.
        dtype: INT64, or DOUBLE / BOOL for symbolic floats and bools.
        source: the value and axis that this is the size of, where it is one.
    """

    def __init__(
        self,
        label: str,
        *,
        scalar: Callable[[Emitter], ir.Value] | None = None,
        vector: Callable[[Emitter], ir.Value] | None = None,
        dtype: ir.DataType = ir.DataType.INT64,
        source: tuple[ir.Value, int] | None = None,
    ) -> None:
        make = scalar or vector
        assert make is not None
        self.label = label
        self.dtype = dtype
        self.source = source
        self._make = make
        self._native: ir.Value | None = None
        self._scalar: ir.Value | None = None
        self._vector: ir.Value | None = None

    @property
    def emitted(self) -> bool:
        """Whether it stands in a graph already."""
        return self._native is not None

    def native(self, op: Emitter) -> ir.Value:
        """As it comes, with rank 0 or 1: what arithmetic takes, which broadcasts."""
        if self._native is None or not op.can_see(self._native):
            self._native = self._make(op)
            self._scalar = self._vector = None
        return self._native

    def scalar(self, op: Emitter) -> ir.Value:
        """As a rank-0 value."""
        native = self.native(op)
        if op.rank(native) == 0:
            return native
        if self._scalar is None or not op.can_see(self._scalar):
            self._scalar = op.Squeeze(native, [0])
        return self._scalar

    def vector(self, op: Emitter) -> ir.Value:
        """As a rank-1 value of one element, ready to be concatenated into a shape."""
        native = self.native(op)
        if op.rank(native) == 1:
            return native
        if self._vector is None or not op.can_see(self._vector):
            self._vector = op.Unsqueeze(native, [0])
        return self._vector

    def __repr__(self) -> str:
        return f"SymbolicScalar({self.label})"


Dim: TypeAlias = int | SymbolicScalar


@functools.cache
def _legal_instead(op_type: str, dtype: ir.DataType | None, opset: int) -> ir.DataType | None:
    """An element type that the operator admits in place of one that it does not; None where it admits the dtype."""
    schema = schema_of(op_type, "", opset)
    if schema is None or dtype is None or not schema.inputs:
        return None
    variable = schema.inputs[min(decides(op_type), len(schema.inputs) - 1)].type_str
    admitted = admitted_types(op_type, schema.since_version).get(variable)
    if admitted is None or onnx_type_name(ir.TensorType(dtype)) in admitted:
        return None
    usable = (other for other in SUBSTITUTES.get(dtype, ()) if onnx_type_name(ir.TensorType(other)) in admitted)
    return next(usable, None)


def dim_label(size: Any, names: dict[Any, Any] | None = None) -> int | str:
    """A captured size as an int, or as the text of its expression with the user's dim names put in."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression.is_Integer:
        return int(expression)
    if names:
        expression = expression.xreplace(names)
    return str(expression)


class _Build(Protocol):
    """``op.Add(a, b)`` is a value, ``op.Split(x, _outputs=2)`` a tuple of them."""

    @overload
    def __call__(self, *operands: Operand | SymbolicScalar, _outputs: int, **keywords: Any) -> Any: ...
    @overload
    def __call__(self, *operands: Operand | SymbolicScalar, **keywords: Any) -> ir.Value: ...


class Emitter(Builder):
    """Writes the lowering of one operator after another into a graph.

    Attributes:
        target: name of the operator being lowered, ``aten.add.Tensor``.
        result: what the captured program says it returns: a fake tensor, a SymInt, or a tuple of such.
        inputs: the captured program's fake arguments of the operator (``inputs[0].dtype`` is a torch dtype).
        symbol_names: sympy symbols of the capture -> symbols bearing the user's dim names.
        fx_node: the captured call being lowered (its users say which results are wanted), None outside of a call.
    """

    def __init__(self, graph: ir.Graph, **keywords: Any) -> None:
        super().__init__(graph, **keywords)
        self.target = ""
        self.result: Any = None
        self.inputs: tuple[Any, ...] = ()
        self.symbol_names: dict[Any, Any] = {}
        self.fx_node: torch.fx.Node | None = None

    def node(
        self,
        op_type: str,
        operands: Sequence[Operand | SymbolicScalar],
        *,
        _outputs: int = 1,
        _domain: str = "",
        **keywords: Any,
    ) -> Any:
        """Add one node; an element type that ONNX does not admit is computed in one that it does, between casts."""
        inputs = self._inputs(op_type, _domain, self._settled(operands))
        position = decides(op_type)
        value = inputs[position] if position < len(inputs) else None
        computed = None if _domain or value is None else _legal_instead(op_type, value.dtype, self.opset)
        if value is None or value.dtype is None or computed is None:
            return super().node(op_type, inputs, _outputs=_outputs, _domain=_domain, **keywords)
        asked = value.dtype
        results = compute_in(self, op_type, inputs, keywords, asked=asked, computed=computed, outputs=_outputs)
        if not holds(computed, asked):
            self.rounded.add(str(Rounding(op_type, dtype_name(asked), dtype_name(computed))))
        schema = schema_of(op_type, "", self.opset)
        assert schema is not None
        kind = schema.inputs[min(position, len(schema.inputs) - 1)].type_str
        back = [
            self.cast(value, asked) if formal.type_str == kind and value.dtype == computed else value
            for value, formal in zip(results, schema.outputs, strict=False)
        ]
        return back[0] if _outputs == 1 else tuple(back)

    def __getattr__(self, op_type: str) -> _Build:
        build: _Build = super().__getattr__(op_type)
        return build

    def single(self, op_type: str, *operands: Operand | SymbolicScalar, **keywords: Any) -> ir.Value:
        """One node of one result, for operators that are chosen by name."""
        result: ir.Value = self.node(op_type, operands, **keywords)
        return result

    def _settled(self, operands: Sequence[Operand | SymbolicScalar]) -> list[Operand]:
        """Sizes known at run time only are operands too; they take the element type of the values beside them."""
        values = [operand for operand in operands if isinstance(operand, ir.Value)]
        dtype = values[-1].dtype if values else None
        return [self.scalar(operand, dtype) if isinstance(operand, SymbolicScalar) else operand for operand in operands]

    @property
    def rounded(self) -> set[str]:
        """What the graph computes with fewer digits than the model does, for ONNX has no other form; one line each."""
        lines: set[str] = self.constants.meta.setdefault("graphforge.rounded", set())
        return lines

    @property
    def notes(self) -> set[str]:
        """What else the user should know about the lowered graph; one line each."""
        lines: set[str] = self.constants.meta.setdefault("graphforge.lowering_notes", set())
        return lines

    # -- facts -------------------------------------------------------------------------------------------------------

    def can_see(self, value: ir.Value) -> bool:
        """Whether ``value`` may be used in this graph: it is made here or in an enclosing graph."""
        producer = value.producer()
        owner = producer.graph if producer is not None else value.graph
        graph: Any = self.graph
        while graph is not None:
            if owner is graph:
                return True
            parent = getattr(graph, "parent_node", None)
            graph = parent.graph if parent is not None else None
        return owner is self.constants

    def fail(self, reason: str, *notes: str) -> LoweringError:
        """The error of an operator that cannot be lowered in this form; the driver adds where it stands."""
        return LoweringError(f"{self.target}: {reason}", *notes)

    def rank(self, value: ir.Value) -> int:
        """Number of dims of a value."""
        if value.shape is None:
            raise self.fail("the rank of an operand is unknown")
        return len(value.shape)

    def dims(self, value: ir.Value) -> list[Dim]:
        """The sizes of a value: ints, or symbolic scalars that read the size at run time when used."""
        if value.shape is None:
            raise self.fail("the shape of an operand is unknown")
        return [self.size(value, axis) for axis in range(len(value.shape))]

    def size(self, value: ir.Value, axis: int) -> Dim:
        """One size of a value."""
        shape = value.shape
        if shape is None:
            raise self.fail("the shape of an operand is unknown")
        axis %= len(shape)
        dim = shape[axis]
        if isinstance(dim, int):
            return dim
        return SymbolicScalar(
            dim.value or f"?{value.name}.{axis}",
            vector=lambda op: op.Shape(value, start=axis, end=axis + 1),
            source=(value, axis),
        )

    def static_size(self, value: ir.Value, axis: int) -> int:
        """One size of a value that must be known now.

        Raises:
            LoweringError: the size is dynamic.
        """
        size = self.size(value, axis)
        if not isinstance(size, int):
            raise self.fail(f"needs a fixed size on axis {axis}, got the dynamic dim {size.label}")
        return size

    def dtype_of(self, fake: Any = None) -> ir.DataType:
        """ONNX dtype of a fake tensor, by default of the operator's (first) result."""
        if fake is None:
            fake = self.result[0] if isinstance(self.result, tuple | list) else self.result
        if isinstance(fake, torch.SymInt):
            return ir.DataType.INT64
        return from_torch_dtype(fake.dtype)

    def result_dims(self, index: int | None = None) -> list[int | str]:
        """Labels of the (index-th) result's sizes."""
        fake = self.result if index is None else self.result[index]
        return [dim_label(size, self.symbol_names) for size in fake.shape]

    def wants(self, index: int) -> bool:
        """Whether anything uses the index-th result of the operator being lowered."""
        if self.fx_node is None:
            return True
        picks = [user for user in self.fx_node.users if user.target is operator.getitem]
        return len(picks) < len(self.fx_node.users) or any(user.args[1] == index and user.users for user in picks)

    # -- values ------------------------------------------------------------------------------------------------------

    def scalar(self, value: Dim | float | ir.Value, dtype: ir.DataType | None = None) -> ir.Value:
        """A rank-0 value of a Python number, a symbolic scalar or a value, cast to ``dtype``."""
        if isinstance(value, SymbolicScalar):
            value = value.scalar(self)
        if isinstance(value, ir.Value):
            return value if dtype is None else self.cast(value, dtype)
        return self.constant(value, dtype)

    def vector(self, dims: Sequence[Dim | ir.Value]) -> ir.Value | list[int]:
        """A list of sizes as one int64 vector: a plain list when all are ints, else a Concat."""
        if all(isinstance(dim, int) for dim in dims):
            return [int(dim) for dim in dims]  # type: ignore[arg-type]
        pieces: list[Operand] = []
        run: list[int] = []
        position = 0
        while position < len(dims):
            dim = dims[position]
            position += 1
            if isinstance(dim, int):
                run.append(dim)
                continue
            if run:
                pieces.append(self.constant(run, ir.DataType.INT64))
                run = []
            if isinstance(dim, SymbolicScalar):
                count = _neighbours(dims[position - 1 :])
                if count > 1 and dim.source is not None:
                    value, axis = dim.source
                    pieces.append(self.Shape(value, start=axis, end=axis + count))
                    position += count - 1
                else:
                    pieces.append(dim.vector(self))
            else:
                pieces.append(self.Unsqueeze(dim, [0]) if self.rank(dim) == 0 else dim)
        if run:
            pieces.append(self.constant(run, ir.DataType.INT64))
        if len(pieces) == 1:
            assert isinstance(pieces[0], ir.Value)
            return pieces[0]
        joined: ir.Value = self.Concat(*pieces, axis=0)
        return joined

    def tensor(self, tensor: torch.Tensor, name: str | None = None) -> ir.Value:
        """An initializer that views a torch tensor's storage (nothing is copied)."""
        return self.constant(TorchTensor(tensor.detach(), name=name), name=name)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another dtype; itself when it already has it."""
        if value.dtype == dtype:
            return value
        if value.const_value is not None and value.const_value.size <= 64:
            array = value.const_value.numpy()
            return self.constant(array.astype(dtype.numpy()), dtype)
        converted: ir.Value = self.Cast(value, to=dtype)
        return converted

    def operand(self, value: Any, dtype: ir.DataType) -> ir.Value:
        """A tensor or number argument as a value of ``dtype``."""
        if isinstance(value, ir.Value):
            return self.cast(value, dtype)
        return self.scalar(value, dtype)

    def compute_dtype(self, *operands: Any) -> ir.DataType:
        """The dtype torch computes in for these operands (its type promotion: category first, dims before scalars)."""
        fakes: list[Any] = []
        for value in operands:
            if isinstance(value, ir.Value):
                assert value.dtype is not None
                shape = () if value.shape is not None and len(value.shape) == 0 else (1,)
                fakes.append(torch.empty(shape, dtype=to_torch_dtype(value.dtype), device="meta"))
            elif isinstance(value, SymbolicScalar):
                fakes.append({ir.DataType.INT64: 1, ir.DataType.BOOL: True}.get(value.dtype, 1.0))
            elif value is not None:
                fakes.append(value)
        dtype = None
        if len(fakes) == 1:
            first = fakes[0]
            dtype = first.dtype if isinstance(first, torch.Tensor) else torch.result_type(first, first)
        else:
            # result_type is pairwise; a wrapped result keeps whether it came from dims, zero dims or numbers
            state = fakes[0]
            for other in fakes[1:]:
                dtype = torch.result_type(state, other)
                dimension = max(x.dim() if isinstance(x, torch.Tensor) else 0 for x in (state, other))
                state = torch.empty((1,) * dimension, dtype=dtype, device="meta")
        assert dtype is not None
        return from_torch_dtype(dtype)

    # -- shapes ------------------------------------------------------------------------------------------------------

    def reshape(self, value: ir.Value, dims: Sequence[Dim], labels: Sequence[int | str] | None = None) -> ir.Value:
        """Reshape with as little shape arithmetic as the sizes allow.

        Args:
            value: what to reshape.
            dims: the wanted sizes, at most one of them -1.
            labels: what the wanted sizes are known to be (see ``result_dims``), when more is known than in ``dims``.
        """
        known = [dim_label_of(dim) for dim in dims] if labels is None else list(labels)
        have = (
            [dim if isinstance(dim, int) else dim.value for dim in value.shape.dims]
            if value.shape is not None
            else None
        )
        if have is not None and have == known and None not in have:
            return value
        target: list[Dim] = []
        unresolved: list[int] = []
        for position, label in enumerate(known):
            if isinstance(label, int) and label >= 0:
                target.append(label)
            elif have is not None and position < len(have) and label == have[position] and label != -1:
                target.append(0)
            else:
                target.append(dims[position])
                unresolved.append(position)
        zero_size = any(label == 0 for label in known)
        if zero_size and (unresolved or any(isinstance(label, str) for label in known)):
            # a true size 0 and a copied dim cannot stand in one target: spell every size
            target = [known[i] if isinstance(known[i], int) else dims[i] for i in range(len(dims))]  # type: ignore[misc]
        elif unresolved:
            costly = [i for i in unresolved if isinstance(dims[i], SymbolicScalar) and not dims[i].emitted]  # type: ignore[union-attr]
            hole = next((i for i in unresolved if dims[i] == -1), [*costly, *unresolved][0])
            besides = [label for position, label in enumerate(known) if position != hole and isinstance(label, str)]
            # besides a dim that is 0 at run time, a -1 has no value; and a computed 0 would copy
            if any(map(self.may_be_zero, besides)) and (rest := self._rest(value, known, hole, dims[hole])) != -1:
                spelled = [label if isinstance(label, int) else dims[i] for i, label in enumerate(known)]
                target = [*spelled[:hole], rest, *spelled[hole + 1 :]]
                zero_size = True
            else:
                target[hole] = -1
        reshaped: ir.Value = self.Reshape(value, self.vector(target), allowzero=1 if zero_size else None)
        return reshaped

    def may_be_zero(self, label: str) -> bool:
        """Whether a size may be 0: it depends on data, or is made of a dim that is promised from 0 on."""
        return may_be_zero(label, [str(symbol) for symbol in self.symbol_names.values() if not symbol.is_positive])

    def _rest(self, value: ir.Value, known: Sequence[int | str], hole: int, asked: Dim) -> Dim:
        """The size that one axis of a new shape has: what is left of the axes between those that stay as they are.

        -1 where that is not known, ``asked`` where it is asked for as such.
        """
        if asked != -1:
            return asked
        have = [dim_label_of(dim) for dim in self.dims(value)]
        low, high = 0, len(have)
        while low < min(hole, high) and have[low] == known[low]:
            low += 1
        behind = len(known) - hole - 1
        while high > low and len(have) - high < behind and have[high - 1] == known[high - 1 - len(have)]:
            high -= 1
        others = [*known[low:hole], *known[hole + 1 : len(known) - len(have) + high]]
        numbers = [label for label in others if isinstance(label, int) and label > 0]
        between = self.dims(value)[low:high]
        varying = [one for one in between if isinstance(one, SymbolicScalar)]
        if len(numbers) < len(others) or not varying:
            return -1
        times, parts = math.prod(one for one in between if isinstance(one, int)), math.prod(numbers)

        def size(op: Emitter) -> ir.Value:
            whole: ir.Value = functools.reduce(op.Mul, [one.vector(op) for one in varying])
            whole = whole if times == 1 else op.Mul(whole, times)
            return whole if parts == 1 else op.Div(whole, parts)

        return SymbolicScalar(f"?{value.name}.rest", vector=size)

    def expand(self, value: ir.Value, dims: Sequence[Dim]) -> ir.Value:
        """Broadcast to ``dims`` (-1 keeps a size)."""
        offset = len(dims) - self.rank(value)
        target: list[Dim] = []
        same = offset == 0
        for position, dim in enumerate(dims):
            own = self.size(value, position - offset) if position >= offset else None
            if dim == -1 or (own is not None and dim_label_of(own) == dim_label_of(dim)):
                target.append(1)  # Expand keeps the input's size where the target says 1
            else:
                target.append(dim)
                same = False
        if same:
            return value
        expanded: ir.Value = self.Expand(value, self.vector(target))
        return expanded

    def slice(self, value: ir.Value, axis: int, start: Dim, end: Dim, step: Dim = 1) -> ir.Value:
        """One axis cut to ``start:end:step``; Python's rules for negative and overlong bounds."""
        size = self.size(value, axis)
        axis %= self.rank(value)
        if (
            start == 0
            and step == 1
            and isinstance(end, int)
            and (end == _MAX_INT64 or (isinstance(size, int) and end >= size))
        ):
            return value
        sliced: ir.Value = self.Slice(value, self.vector([start]), self.vector([end]), [axis], self.vector([step]))
        return sliced

    def squeeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Drop axes of size 1."""
        if not axes:
            return value
        squeezed: ir.Value = self.Squeeze(value, [axis % self.rank(value) for axis in axes])
        return squeezed

    def unsqueeze(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Insert axes of size 1 (positions in the result)."""
        if not axes:
            return value
        widened: ir.Value = self.Unsqueeze(value, list(axes))
        return widened

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Permute axes; constants that are weights stay views."""
        perm = [axis % len(perm) for axis in perm]
        if perm == list(range(len(perm))):
            return value
        permuted: ir.Value = self.Transpose(value, perm=perm)
        return permuted

    def weight(self, value: ir.Value) -> torch.Tensor | None:
        """The torch tensor behind an initializer, None when the value is computed."""
        tensor = value.const_value
        raw = tensor.raw if isinstance(tensor, TorchTensor) else None
        return raw if isinstance(raw, torch.Tensor) else None

    def number(self, value: Any) -> int | float | bool | None:
        """A Python number, or the one element of a constant value; None when it is known at run time only."""
        if isinstance(value, int | float | bool):
            return value
        if isinstance(value, ir.Value) and value.const_value is not None and value.const_value.size == 1:
            element: int | float | bool = np.asarray(value.const_value.numpy()).reshape(-1)[0].item()
            return element
        return None


def dim_label_of(dim: Dim) -> int | str:
    """The label of a size."""
    return dim if isinstance(dim, int) else dim.label


def _neighbours(dims: Sequence[Dim | ir.Value]) -> int:
    """How many of the leading dims are sizes of neighbouring axes of one value: one Shape node gives them all."""
    first = dims[0]
    assert isinstance(first, SymbolicScalar)
    count = 1
    for dim in dims[1:]:
        if first.source is None or not isinstance(dim, SymbolicScalar) or dim.source is None:
            break
        if dim.source[0] is not first.source[0] or dim.source[1] != first.source[1] + count:
            break
        count += 1
    return count
