"""Builder: adds nodes to a graph at one place, with constants, types, shapes and origins seen to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.errors import InternalError
from graphforge.ir.infer import infer_node, schema_of
from graphforge.ir.origin import Origin, set_origins

__all__ = ["HOME_OPSET", "Builder", "Operand", "attribute_of"]


# The opset that graphs are written in: the newest that the rules and passes here were written for.
HOME_OPSET = min(26, onnx.defs.onnx_opset_version())

Scalar: TypeAlias = int | float | bool
Operand: TypeAlias = ir.Value | Scalar | Sequence[Scalar] | np.ndarray | ir.TensorProtocol | None

# What is not a tensor yet.  Asking `isinstance(x, ir.TensorProtocol)` instead takes 0.1 ms: it is a runtime protocol.
_PLAIN = (bool, int, float, list, tuple, range, np.ndarray, np.generic)

_CONSTANTS = "graphforge.constants"
# Constants of at most this many bytes are shared when equal.
_SHARED_BYTES = 512


@functools.lru_cache(maxsize=1024)
def _type_strings(op_type: str, domain: str, opset: int) -> tuple[str, ...]:
    """What the operator's schema binds the type of each input to."""
    schema = schema_of(op_type, domain, opset)
    return () if schema is None else tuple(parameter.type_str for parameter in schema.inputs)


def attribute_of(name: str, value: Any) -> ir.Attr:
    """An attribute; the common kinds are told apart here, which is a hundred times faster than asking onnx_ir."""
    if isinstance(value, bool | int):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, list | tuple) and value:
        if all(isinstance(item, int) for item in value):
            return ir.AttrInt64s(name, [int(item) for item in value])
        if all(isinstance(item, int | float) for item in value):
            return ir.AttrFloat32s(name, [float(item) for item in value])
        if all(isinstance(item, str) for item in value):
            return ir.AttrStrings(name, list(value))
    return ir.convenience.convert_attribute(name, value)


class Builder:
    """Creates nodes; ``op.Add(a, 1.0)`` appends (or inserts) an Add and returns its output value.

    Operands may be values, None (an optional input left out), Python scalars, lists of scalars or numpy arrays;
    constants take the dtype that the operator's schema binds them to (``op.Clip(x, 0, 6)``: that of ``x``).
    Keyword arguments are attributes; those starting with an underscore steer the builder:
    ``_outputs`` (how many, default 1; more than one returns a tuple), ``_domain``, ``_name`` (a hint for the output).

    Args:
        graph: where nodes and constants go.
        before: node in front of which new nodes are inserted; None appends at the end.
        origins: recorded on every new node.
        opset: version of the default domain that operators are written in.
        made_by: name of the pass, stamped on the origins.
        constants: the graph that owns new constants when ``graph`` is a subgraph body; default ``graph``.
    """

    def __init__(
        self,
        graph: ir.Graph,
        *,
        before: ir.Node | None = None,
        origins: Iterable[Origin] = (),
        opset: int = HOME_OPSET,
        made_by: str = "",
        constants: ir.Graph | None = None,
    ) -> None:
        self.graph = graph
        self.before = before
        self.origins: tuple[Origin, ...] = tuple(origins)
        self.opset = opset
        self.made_by = made_by
        self.constants = graph if constants is None else constants
        self.created: list[ir.Node] = []

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if op_type.startswith("_") or not op_type[0].isupper():
            raise AttributeError(op_type)

        def build(*operands: Operand, **keywords: Any) -> Any:
            return self.node(op_type, operands, **keywords)

        return build

    def node(
        self,
        op_type: str,
        operands: Sequence[Operand],
        *,
        _outputs: int = 1,
        _domain: str = "",
        _name: str | None = None,
        **attributes: Any,
    ) -> Any:
        """Add one node; returns its output value, or a tuple of them when ``_outputs`` is above one."""
        inputs = self._inputs(op_type, _domain, operands)
        attrs = [attribute_of(name, value) for name, value in attributes.items() if value is not None]
        node = ir.Node(_domain, op_type, inputs, attrs, num_outputs=_outputs)
        if self.origins:
            set_origins(node, self.origins, made_by=self.made_by)
        infer_node(node, self.opset)
        if _name is not None:
            node.outputs[0].name = _name
        if self.before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.before, node)
        self.created.append(node)
        return node.outputs[0] if _outputs == 1 else tuple(node.outputs)

    def inside(self, body: ir.Graph) -> Builder:
        """A builder at the end of a body (of a Loop, say) whose node stands in this graph."""
        return Builder(body, origins=self.origins, opset=self.opset, made_by=self.made_by, constants=self.constants)

    def fresh_name(self, base: str) -> str:
        """A name for a value that is not a node's output, such as the input of a body."""
        return base

    def constant(self, value: Operand, dtype: ir.DataType | None = None, name: str | None = None) -> ir.Value:
        """An initializer holding ``value``; small equal ones are shared.

        Python ints become INT64, floats FLOAT, bools BOOL unless ``dtype`` says otherwise.
        """
        if isinstance(value, ir.Value):
            return value
        if value is not None and not isinstance(value, _PLAIN):
            return self._initializer(cast(ir.TensorProtocol, value), name)
        array = np.asarray(value)
        if dtype is None and not isinstance(value, np.ndarray | np.generic):
            kind = array.dtype.kind
            dtype = {"i": ir.DataType.INT64, "f": ir.DataType.FLOAT, "b": ir.DataType.BOOL}.get(kind)
            if array.size == 0:
                dtype = ir.DataType.INT64
            if dtype is None:
                raise InternalError(f"no constant can be made of {value!r}")
        if dtype is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                array = array.astype(dtype.numpy())
        if array.nbytes > _SHARED_BYTES:
            return self._initializer(ir.Tensor(np.ascontiguousarray(array), dtype=dtype), name)
        cache: dict[tuple[Any, ...], tuple[ir.Value, Any]] = self.constants.meta.setdefault(_CONSTANTS, {})
        key = (array.dtype.str, dtype, array.shape, array.tobytes())
        known, tensor = cache.get(key, (None, None))
        # a pass may have given the value another tensor meanwhile, of another element type too
        still = known is not None and known.const_value is tensor
        if known is not None and still and self.constants.initializers.get(known.name or "") is known:
            return known
        made = self._initializer(ir.Tensor(np.array(array), dtype=dtype), name)
        cache[key] = (made, made.const_value)
        return made

    def _initializer(self, tensor: ir.TensorProtocol, name: str | None) -> ir.Value:
        initializers = self.constants.initializers
        base = name or "constant"
        counter: dict[str, int] = self.constants.meta.setdefault("graphforge.constant_names", {})
        chosen = base if name is not None else f"{base}_{counter.get(base, 0)}"
        while chosen in initializers:
            counter[base] = counter.get(base, 0) + 1
            chosen = f"{base}_{counter[base]}"
        value = ir.Value(
            name=chosen,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.constants.register_initializer(value)
        return value

    def _inputs(self, op_type: str, domain: str, operands: Sequence[Operand]) -> list[ir.Value | None]:
        if all(operand is None or isinstance(operand, ir.Value) for operand in operands):
            inputs = [operand for operand in operands if operand is None or isinstance(operand, ir.Value)]
        else:
            inputs = self._coerced(op_type, domain, operands)
        while inputs and inputs[-1] is None:
            inputs.pop()
        return inputs

    def _coerced(self, op_type: str, domain: str, operands: Sequence[Operand]) -> list[ir.Value | None]:
        formal = _type_strings(op_type, domain, self.opset)

        def parameter(position: int) -> str | None:
            if position < len(formal):
                return formal[position]
            return formal[-1] if formal else None

        bound: dict[str, ir.DataType] = {}
        for position, operand in enumerate(operands):
            given = parameter(position)
            if isinstance(operand, ir.Value) and given is not None and operand.dtype is not None:
                bound.setdefault(given, operand.dtype)
        inputs: list[ir.Value | None] = []
        for position, operand in enumerate(operands):
            if operand is None or isinstance(operand, ir.Value):
                inputs.append(operand)
                continue
            given = parameter(position)
            dtype = None
            if given is not None and isinstance(operand, bool | int | float | list | tuple):
                dtype = bound.get(given)
                if dtype is None and given.startswith("tensor("):
                    dtype = ir.DataType[given[7:-1].upper()]
            inputs.append(self.constant(operand, dtype))
        return inputs
