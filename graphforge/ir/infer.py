"""Types and shapes of a node's outputs: short Python rules for common ops, ONNX's own inference for the rest."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.describe import describe
from graphforge.last_step import entering

__all__ = ["broadcast_dims", "constant_of", "forget_schemas", "infer_node", "look_up_schemas", "schema_of"]

Dim: TypeAlias = int | ir.SymbolicDim

# Constants up to this many elements are shown to ONNX's inference (shapes, axes, repeats); weights never are.
_SMALL_CONSTANT = 1024


# What declares operators for a block of code only, which ONNX's own registry cannot: (domain, operator) -> schema.
_scoped_schemas: list[Callable[[str, str], onnx.defs.OpSchema | None]] = []


def schema_of(op_type: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    """The ONNX schema of an operator at an opset version, None when there is none."""
    if domain:
        for look_up in _scoped_schemas:
            found = look_up(domain, op_type)
            if found is not None:
                return found if found.since_version <= opset else None
    return _registered_schema(op_type, domain, opset)


def look_up_schemas(look_up: Callable[[str, str], onnx.defs.OpSchema | None]) -> None:
    """Ask this for an operator's schema before ONNX's registry is asked."""
    _scoped_schemas.append(look_up)


def forget_schemas() -> None:
    """ONNX's registry has changed."""
    _registered_schema.cache_clear()


@functools.lru_cache(maxsize=4096)
def _registered_schema(op_type: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def constant_of(value: ir.Value | None, *, limit: int = _SMALL_CONSTANT) -> np.ndarray | None:
    """The value's elements as numpy when it is a constant of at most ``limit`` elements, else None."""
    if value is None:
        return None
    tensor = value.const_value
    if tensor is None:
        producer = value.producer()
        if producer is None or producer.op_type != "Constant" or producer.domain != "":
            return None
        attribute = next(iter(producer.attributes.values()), None)
        if attribute is None:
            return None
        if attribute.name == "value":
            tensor = attribute.as_tensor()
        elif attribute.name in ("value_int", "value_ints"):
            return np.array(attribute.value, dtype=np.int64)
        elif attribute.name in ("value_float", "value_floats"):
            return np.array(attribute.value, dtype=np.float32)
        else:
            return None
    elif value.is_graph_input():
        return None  # an initializer that callers may override is a default, not a constant
    if tensor.size > limit:
        return None
    try:
        return tensor.numpy()
    except ValueError:  # its bytes are not as many as its shape says
        return None


def broadcast_dims(*shapes: Sequence[Dim]) -> list[Dim]:
    """Multidirectional broadcasting of ONNX; an unknown dim where two different symbols meet."""
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Dim] = []
    for position in range(rank):
        dim: Dim = 1
        for shape in shapes:
            offset = position - (rank - len(shape))
            if offset < 0:
                continue
            other = shape[offset]
            if isinstance(other, int):
                if other != 1:
                    dim = other
            elif isinstance(dim, int):
                if dim == 1:
                    dim = other
            elif dim != other or dim.value is None:
                dim = ir.SymbolicDim(None)
        result.append(dim)
    return result


def _dims(value: ir.Value | None) -> list[Dim] | None:
    if value is None or value.shape is None:
        return None
    return list(value.shape.dims)


def _attribute(node: ir.Node, name: str, default: object) -> object:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _int_attribute(node: ir.Node, name: str, default: int) -> int:
    value = _attribute(node, name, default)
    assert isinstance(value, int)
    return value


Inferred: TypeAlias = tuple[ir.DataType | None, list[Dim] | None]
# Type and dims of a node's first output, None where they cannot be said.
ShapeRule: TypeAlias = Callable[[ir.Node], Inferred | None]


def _same_as_first(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    return None if first is None else (first.dtype, _dims(first))


def _broadcast(node: ir.Node, dtype: ir.DataType | None) -> Inferred | None:
    shapes = [_dims(value) for value in node.inputs if value is not None]
    known = [shape for shape in shapes if shape is not None]
    return dtype, broadcast_dims(*known) if len(known) == len(shapes) else None


def _arithmetic(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    return None if first is None else _broadcast(node, first.dtype)


def _compare(node: ir.Node) -> Inferred | None:
    return _broadcast(node, ir.DataType.BOOL)


def _where(node: ir.Node) -> Inferred | None:
    second = node.inputs[1]
    return None if second is None else _broadcast(node, second.dtype)


def _cast(node: ir.Node) -> Inferred | None:
    return ir.DataType(_int_attribute(node, "to", 1)), _dims(node.inputs[0])


def _transpose(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    dims = _dims(first)
    if first is None or dims is None:
        return None
    perm = _attribute(node, "perm", None)
    order = list(reversed(range(len(dims)))) if perm is None else list(perm)  # type: ignore[call-overload]
    if sorted(order) != list(range(len(dims))):
        return None  # ONNX's own inference says what is wrong
    return first.dtype, [dims[axis] for axis in order]


def _matmul(node: ir.Node) -> Inferred | None:
    left, right = node.inputs[0], node.inputs[1]
    a, b = _dims(left), _dims(right)
    if left is None or a is None or b is None or not a or not b:
        return None
    if len(a) == 1 and len(b) == 1:
        return left.dtype, []
    if len(a) == 1:
        return left.dtype, [*b[:-2], b[-1]]
    if len(b) == 1:
        return left.dtype, a[:-1]
    return left.dtype, [*broadcast_dims(a[:-2], b[:-2]), a[-2], b[-1]]


def _shape(node: ir.Node) -> Inferred | None:
    dims = _dims(node.inputs[0])
    if dims is None:
        return None
    rank = len(dims)
    start = _int_attribute(node, "start", 0)
    end = _int_attribute(node, "end", rank)
    start = min(max(start + rank if start < 0 else start, 0), rank)
    end = min(max(end + rank if end < 0 else end, 0), rank)
    return ir.DataType.INT64, [max(end - start, 0)]


def _concat(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    shapes = [_dims(value) for value in node.inputs]
    if first is None or any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    result = list(known[0])
    axis = _int_attribute(node, "axis", 0) % len(result)
    total: Dim = 0
    for shape in known:
        dim = shape[axis]
        if isinstance(dim, int) and isinstance(total, int):
            total += dim
        elif total == 0 and not isinstance(dim, int):
            total = dim
        else:
            total = ir.SymbolicDim(None)
    for position in range(len(result)):
        if position == axis:
            result[position] = total
            continue
        for shape in known:
            if isinstance(shape[position], int):
                result[position] = shape[position]
    return first.dtype, result


def _axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return _ints(node, "axes")  # where they stand before opset 13, before 18 in most reductions
    axes = constant_of(node.inputs[1])
    return None if axes is None else [int(axis) for axis in axes.reshape(-1)]


def _unsqueeze(node: ir.Node) -> Inferred | None:
    first, axes = node.inputs[0], _axes(node)
    dims = _dims(first)
    if first is None or dims is None or axes is None:
        return None
    rank = len(dims) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(dims)
    return first.dtype, [1 if position in new else next(rest) for position in range(rank)]


def _squeeze(node: ir.Node) -> Inferred | None:
    first, axes = node.inputs[0], _axes(node)
    dims = _dims(first)
    if first is None or dims is None or axes is None:
        return None
    gone = {axis % len(dims) for axis in axes}
    return first.dtype, [dim for position, dim in enumerate(dims) if position not in gone]


def _reshape(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    target = constant_of(node.inputs[1])
    dims = _dims(first)
    if first is None or target is None or dims is None or _int_attribute(node, "allowzero", 0):
        return None
    result: list[Dim] = []
    for position, size in enumerate(target.tolist()):
        result.append(dims[position] if size == 0 else ir.SymbolicDim(None) if size == -1 else size)
    if -1 not in target:
        return first.dtype, result
    hole = target.tolist().index(-1)
    # The dims that stand on both sides (copied by 0) cancel; what is left must be static to fill the hole.
    left, right = list(dims), [dim for position, dim in enumerate(result) if position != hole]
    for dim in list(right):
        if not isinstance(dim, int) and dim.value is not None and dim in left:
            left.remove(dim)
            right.remove(dim)
    symbols = [dim for dim in left if not isinstance(dim, int)]
    if any(not isinstance(dim, int) for dim in right):
        return first.dtype, result
    denominator = math.prod(dim for dim in right if isinstance(dim, int))
    numerator = math.prod(dim for dim in left if isinstance(dim, int))
    if denominator == 0:
        return None
    if not symbols:
        result[hole] = numerator // denominator
    elif len(symbols) == 1 and numerator == denominator:
        result[hole] = symbols[0]
    return first.dtype, result


def _expand(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    target = constant_of(node.inputs[1])
    dims = _dims(first)
    if first is None or target is None or dims is None:
        return None
    return first.dtype, broadcast_dims(dims, [int(size) for size in target.tolist()])


def _gather(node: ir.Node) -> Inferred | None:
    data, index = node.inputs[0], node.inputs[1]
    a, b = _dims(data), _dims(index)
    if data is None or a is None or b is None or not a:
        return None
    axis = _int_attribute(node, "axis", 0) % len(a)
    return data.dtype, [*a[:axis], *b, *a[axis + 1 :]]


def _reduce(node: ir.Node) -> Inferred | None:
    first = node.inputs[0]
    dims = _dims(first)
    if first is None or dims is None:
        return None
    keep = _int_attribute(node, "keepdims", 1)
    axes = _axes(node) or _ints(node, "axes")  # an input, or an attribute in older opsets
    if not axes:
        if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
            return None
        axes = [] if _int_attribute(node, "noop_with_empty_axes", 0) else list(range(len(dims)))
    gone = {axis % len(dims) for axis in axes} if dims else set()
    if keep:
        return first.dtype, [1 if position in gone else dim for position, dim in enumerate(dims)]
    return first.dtype, [dim for position, dim in enumerate(dims) if position not in gone]


def _ints(node: ir.Node, name: str) -> list[int] | None:
    value = _attribute(node, name, None)
    return None if value is None else list(value)  # type: ignore[call-overload]


def _windows(node: ir.Node, spatial: list[Dim], kernel: list[int]) -> list[Dim] | None:
    """Sizes after a sliding window; a dynamic size stays unknown."""
    count = len(spatial)
    strides = _ints(node, "strides") or [1] * count
    dilations = _ints(node, "dilations") or [1] * count
    pads = _ints(node, "pads") or [0] * (2 * count)
    lengths = {len(strides), len(dilations), len(kernel)}
    if min(*strides, *dilations, *kernel, 1) < 1 or len(pads) != 2 * count or lengths != {count}:
        raise GraphForgeError(
            f"{describe(node)}: kernel {kernel}, strides {strides}, dilations {dilations} and pads {pads} do not make "
            f"windows over {count} axes"
        )
    if _attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    up = _int_attribute(node, "ceil_mode", 0)
    result: list[Dim] = []
    for axis, size in enumerate(spatial):
        if not isinstance(size, int):
            result.append(ir.SymbolicDim(None))
            continue
        left = size + pads[axis] + pads[axis + count] - dilations[axis] * (kernel[axis] - 1) - 1
        steps = -(-left // strides[axis]) if up else left // strides[axis]
        if steps < 0:  # rounded up, a window may hang over the end of an input that is smaller than it
            raise GraphForgeError(
                f"{describe(node)}: a window of {dilations[axis] * (kernel[axis] - 1) + 1} does not fit its input, "
                f"which has {size} with {pads[axis] + pads[axis + count]} of padding"
            )
        if up and steps * strides[axis] >= size + pads[axis]:
            steps -= 1  # a last window that would begin in the padding is left out
        result.append(steps + 1)
    return result


def _conv(node: ir.Node) -> Inferred | None:
    data, weight = node.inputs[0], node.inputs[1]
    a, w = _dims(data), _dims(weight)
    if data is None or a is None or w is None or len(a) != len(w) or any(not isinstance(dim, int) for dim in w[2:]):
        return None
    spatial = _windows(node, a[2:], [dim for dim in w[2:] if isinstance(dim, int)])
    return None if spatial is None else (data.dtype, [a[0], w[0], *spatial])


def _pool(node: ir.Node) -> Inferred | None:
    data, kernel = node.inputs[0], _ints(node, "kernel_shape")
    dims = _dims(data)
    if data is None or dims is None or kernel is None or len(node.outputs) > 1 or len(kernel) != len(dims) - 2:
        return None
    spatial = _windows(node, dims[2:], kernel)
    return None if spatial is None else (data.dtype, [*dims[:2], *spatial])


def _global_pool(node: ir.Node) -> Inferred | None:
    data = node.inputs[0]
    dims = _dims(data)
    return None if data is None or dims is None else (data.dtype, [*dims[:2], *[1] * (len(dims) - 2)])


def _same_when_alone(node: ir.Node) -> Inferred | None:
    return _same_as_first(node) if len(node.outputs) == 1 else None


def _gemm(node: ir.Node) -> Inferred | None:
    left, right = node.inputs[0], node.inputs[1]
    a, b = _dims(left), _dims(right)
    if left is None or a is None or b is None:
        return None
    rows = a[1 if _int_attribute(node, "transA", 0) else 0]
    return left.dtype, [rows, b[0 if _int_attribute(node, "transB", 0) else 1]]


_SHAPE_RULES: dict[str, ShapeRule] = {
    **dict.fromkeys(
        "Relu Sigmoid Tanh Exp Log Sqrt Neg Abs Erf Floor Ceil Round Identity Not Softmax LogSoftmax Gelu "
        "HardSigmoid HardSwish Elu Selu Celu LeakyRelu Softplus Softsign Mish Swish Sin Cos Tan Sinh Cosh Asin Acos "
        "Atan Asinh Acosh Atanh Reciprocal Sign Clip Trilu CumSum BitwiseNot LpNormalization "
        "GroupNormalization InstanceNormalization PRelu ScatterND ScatterElements".split(),
        _same_as_first,
    ),
    **dict.fromkeys(
        "Add Sub Mul Div Pow Mod Max Min Sum Mean And Or Xor BitwiseAnd BitwiseOr BitwiseXor BitShift".split(),
        _arithmetic,
    ),
    **dict.fromkeys("Equal Less LessOrEqual Greater GreaterOrEqual".split(), _compare),
    **dict.fromkeys(
        "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare".split(),
        _reduce,
    ),
    **dict.fromkeys("BatchNormalization LayerNormalization RMSNormalization Dropout".split(), _same_when_alone),
    **dict.fromkeys("MaxPool AveragePool LpPool".split(), _pool),
    **dict.fromkeys("GlobalAveragePool GlobalMaxPool GlobalLpPool".split(), _global_pool),
    "Conv": _conv,
    "Gemm": _gemm,
    "Where": _where,
    "Cast": _cast,
    "Transpose": _transpose,
    "MatMul": _matmul,
    "Shape": _shape,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "Gather": _gather,
}


def infer_node(node: ir.Node, opset: int) -> None:
    """Fill in type and shape of the node's outputs where they are unknown; leaves known ones alone.

    Unknown stays unknown: nothing is guessed.  ``opset`` is the version of the default domain.
    """
    if all(value.dtype is not None and value.shape is not None for value in node.outputs):
        return
    if node.domain in ("", "ai.onnx"):
        rule = _SHAPE_RULES.get(node.op_type)
        # The rules speak of tensors; a sequence's element type is not the type of the value.
        if rule is not None and all(
            value is None or value.type is None or isinstance(value.type, ir.TensorType) for value in node.inputs
        ):
            try:
                inferred = rule(node)
            except (IndexError, ZeroDivisionError, StopIteration):
                inferred = None  # operands of ranks that the operator does not take: ONNX's check of the file says so
            if inferred is not None:
                _refuse_impossible(node, inferred[1])
                _apply(node.outputs[0], inferred)
                if inferred[1] is not None:
                    return
    _infer_by_onnx(node, opset)
    if node.op_type == "Split" and node.domain in ("", "ai.onnx"):
        _split_at_run_time(node)


def _split_at_run_time(node: ir.Node) -> None:
    """ONNX says nothing of parts whose sizes are computed, yet only one axis is unknown."""
    dims = _dims(node.inputs[0])
    if not dims:
        return
    dims[_int_attribute(node, "axis", 0) % len(dims)] = ir.SymbolicDim(None)
    for value in node.outputs:
        if value.shape is None:
            value.shape = ir.Shape(dims)


def _apply(value: ir.Value, inferred: Inferred) -> None:
    dtype, dims = inferred
    if value.type is None and dtype is not None:
        value.type = ir.TensorType(dtype)
    if value.shape is None and dims is not None and not any(isinstance(dim, int) and dim < 0 for dim in dims):
        value.shape = ir.Shape(dims)


_MOST = 2**63 - 1  # what a size of ONNX can be


def _refuse_impossible(node: ir.Node, dims: Iterable[Any] | None) -> None:
    """A size below zero ends some runtimes, not only with an error; of Expand, -1 is read as "as it is" by some.

    Nor is there a size beyond 64 bits.
    """
    if dims is None:
        return
    dims = list(dims)
    if any(isinstance(dim, int) and dim > _MOST for dim in dims):
        raise GraphForgeError(f"{describe(node)}: its output would have more elements on an axis than 64 bits can say")
    if node.op_type == "Expand":
        return
    shown = [dim if isinstance(dim, int) else "?" for dim in dims]
    below = next((axis for axis, dim in enumerate(shown) if isinstance(dim, int) and dim < 0), None)
    if below is not None:
        shape = "x".join(map(str, shown))
        raise GraphForgeError(
            f"{describe(node)}: its output would have {shown[below]} elements on axis {below} ({shape})"
        )


# Attributes by which ONNX's own inference divides.
_ABOVE_ZERO = frozenset("strides dilations kernel_shape group num_outputs blocksize block_shape num_heads".split())


def _refuse_zeros(node: ir.Node) -> None:
    for name, attribute in node.attributes.items():
        if name in _ABOVE_ZERO and attribute.value is not None:
            values = attribute.value if isinstance(attribute.value, list | tuple) else (attribute.value,)
            if any(isinstance(value, int) and value < 1 for value in values):
                raise GraphForgeError(f"{describe(node)}: {name} is {attribute.value}, expected numbers above 0")


def _infer_by_onnx(node: ir.Node, opset: int) -> None:
    schema = schema_of(node.op_type, node.domain, opset)
    if schema is None or any(value is not None and value.type is None for value in node.inputs):
        return
    _refuse_zeros(node)
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return  # control flow: the types are given by whoever builds the node
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for position, value in enumerate(node.inputs):
        if value is None:
            proto.input.append("")
            continue
        name = f"i{position}"
        proto.input.append(name)
        assert value.type is not None
        types[name] = ir.serde.serialize_type(value.type)
        if value.shape is not None:
            if any(isinstance(dim, int) and dim < 0 for dim in value.shape):
                return  # ONNX's own inference aborts on some of them
            ir.serde.serialize_shape_into(types[name], value.shape)
        constant = constant_of(value)
        if constant is not None:
            data[name] = onnx.numpy_helper.from_array(np.asarray(constant, order="C"))
    for position in range(len(node.outputs)):
        proto.output.append(f"o{position}")
    for attribute in node.attributes.values():
        proto.attribute.append(ir.serde.serialize_attribute(attribute))
    entering("onnx", f"infer the shapes of {describe(node)}")
    try:
        inferred = onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            types,
            data,
            opset_imports=[onnx.OperatorSetIdProto(domain=node.domain, version=opset)],
        )
    except GraphForgeError:  # the shape rule of a declared operator
        raise
    except Exception:  # ONNX raises plain RuntimeErrors of several C++ kinds; unknown stays unknown
        return
    for position, value in enumerate(node.outputs):
        found = inferred.get(f"o{position}")
        if found is None or not found.WhichOneof("value"):
            continue
        both = ir.serde.deserialize_type_proto_for_type(found)
        if value.type is None and both is not None:
            value.type = both
        if value.shape is None:
            shape = ir.serde.deserialize_type_proto_for_shape(found)
            _refuse_impossible(node, shape)
            value.shape = None if shape is None else shape.copy()  # onnx_ir hands out frozen shapes
