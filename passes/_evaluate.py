"""Evaluate one node on constant inputs: numpy for the operators that shape and weight computations are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["CANNOT_FOLD", "can_evaluate", "evaluate"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Inputs: TypeAlias = Sequence[Array | None]


class NotEvaluable(Exception):
    """The node has no well-defined value here (division by zero, a cast out of range, ...)."""


# Random, or depending on more than their inputs.
CANNOT_FOLD = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout If Loop Scan "
    "SequenceMap Constant Optional OptionalGetElement OptionalHasElement".split()
)

# Evaluated by onnx's reference implementation: rare in constant subgraphs, exact, and not worth a kernel of our own.
_BY_REFERENCE = frozenset(
    "ArgMax ArgMin Conv CumSum CumProd DepthToSpace EyeLike GatherElements IsInf IsNaN LogSoftmax MatMul OneHot "
    "QuantizeLinear DequantizeLinear ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare ScatterElements "
    "Softmax SpaceToDepth TopK Trilu Unique NonZero Gemm BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor Pad Einsum HannWindow HammingWindow BlackmanWindow Range Compress Resize Elu Selu Celu HardSigmoid "
    "HardSwish LeakyRelu PRelu Softplus Softsign Gelu Mish ThresholdedRelu Det Hardmax ReverseSequence Size".split()
)


def can_evaluate(node: ir.Node) -> bool:
    """Whether ``evaluate`` has a kernel for the operator."""
    return node.domain == "" and (node.op_type in _KERNELS or node.op_type in _BY_REFERENCE)


def evaluate(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    """The node's outputs.

    Raises:
        NotEvaluable: they are not well defined, or a runtime may compute them differently.
    """
    kernel = _KERNELS.get(node.op_type)
    with np.errstate(all="ignore"):
        try:
            if kernel is not None:
                result = kernel(node, inputs)
                return [_as_array(item) for item in result] if isinstance(result, list) else [_as_array(result)]
            return _by_reference(node, inputs, opset)
        except (ValueError, TypeError, IndexError, NotImplementedError, RuntimeError, OverflowError) as error:
            # The runtime is the judge of a node that numpy refuses.
            raise NotEvaluable(f"{type(error).__name__}: {error}") from error


def _as_array(item: Any) -> Array:
    return item if isinstance(item, np.ndarray) else np.asarray(item)


def _by_reference(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    proto = onnx.NodeProto(op_type=node.op_type)
    feeds: dict[str, Array] = {}
    infos = []
    for position, array in enumerate(inputs):
        name = "" if array is None else f"i{position}"
        proto.input.append(name)
        value = node.inputs[position]
        if array is not None and value is not None and value.dtype is not None:
            feeds[name] = array
            infos.append(onnx.helper.make_tensor_value_info(name, value.dtype.value, array.shape))
    outputs = [f"o{position}" for position in range(len(node.outputs))]
    proto.output.extend(outputs)
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    graph = onnx.helper.make_graph([proto], "one", infos, [onnx.ValueInfoProto(name=name) for name in outputs])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = [_as_array(item) for item in ReferenceEvaluator(model).run(None, feeds)]
    for value, array in zip(node.outputs, results, strict=True):
        if value.dtype is not None and array.dtype != value.dtype.numpy():
            raise NotEvaluable(f"the reference gives {array.dtype}, expected {value.dtype}")
    return results


def _attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _numbers(node: ir.Node, inputs: Inputs, name: str) -> list[int] | None:
    """The second input, which was an attribute in older opsets (axes of a reduction, sizes of a split)."""
    if len(inputs) > 1 and inputs[1] is not None:
        return _ints(inputs[1])
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(item) for item in attribute.as_ints()]


def _need(array: Array | None) -> Array:
    if array is None:
        raise NotEvaluable("an input is missing")
    return array


def _ints(array: Array | None) -> list[int]:
    return [int(item) for item in _need(array).reshape(-1)]


Kernel: TypeAlias = Callable[[ir.Node, Inputs], Any]


def _unary(function: Callable[[Array], Any]) -> Kernel:
    def kernel(node: ir.Node, inputs: Inputs) -> Any:
        array = _need(inputs[0])
        return np.asarray(function(array)).astype(array.dtype, copy=False)

    return kernel


def _binary(function: Callable[[Array, Array], Any]) -> Kernel:
    def kernel(node: ir.Node, inputs: Inputs) -> Any:
        left, right = _need(inputs[0]), _need(inputs[1])
        return np.asarray(function(left, right)).astype(left.dtype, copy=False)

    return kernel


def _compare(function: Callable[[Array, Array], Any]) -> Kernel:
    return lambda node, inputs: np.asarray(function(_need(inputs[0]), _need(inputs[1])))


def _variadic(function: Callable[[Array, Array], Any]) -> Kernel:
    def kernel(node: ir.Node, inputs: Inputs) -> Any:
        result = _need(inputs[0])
        for other in inputs[1:]:
            result = np.asarray(function(result, _need(other))).astype(result.dtype, copy=False)
        return result

    return kernel


def _divide(node: ir.Node, inputs: Inputs) -> Any:
    left, right = _need(inputs[0]), _need(inputs[1])
    if left.dtype.kind not in "iu":
        return (left / right).astype(left.dtype, copy=False)
    if (right == 0).any():
        raise NotEvaluable("integer division by zero")
    quotient = np.abs(left) // np.abs(right)
    return np.where((left < 0) != (right < 0), -quotient, quotient).astype(left.dtype)


def _modulo(node: ir.Node, inputs: Inputs) -> Any:
    left, right = _need(inputs[0]), _need(inputs[1])
    if left.dtype.kind in "iu" and (right == 0).any():
        raise NotEvaluable("integer modulo by zero")
    return (np.fmod if _attribute(node, "fmod", 0) else np.mod)(left, right).astype(left.dtype, copy=False)


def _power(node: ir.Node, inputs: Inputs) -> Any:
    base, exponent = _need(inputs[0]), _need(inputs[1])
    if base.dtype.kind in "iu":
        if exponent.dtype.kind not in "iu" or (exponent < 0).any():
            raise NotEvaluable("an integer to a power that is not a natural number")
        return np.power(base, exponent.astype(base.dtype))
    return np.power(base, exponent.astype(np.float64) if exponent.dtype.kind in "iu" else exponent).astype(base.dtype)


def _cast(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    dtype = ir.DataType(_attribute(node, "to"))
    if dtype == ir.DataType.STRING or array.dtype.kind in "OSU":
        raise NotEvaluable("strings are not cast here")
    target = dtype.numpy()
    if dtype.bitwidth < 8 or "float8" in target.name or "float8" in array.dtype.name:
        raise NotEvaluable("casts of small types saturate in ways of their own")
    if target.kind in "iu" and array.dtype.kind not in "iub":
        wide = array.astype(np.float64)
        info = np.iinfo(target)
        if not np.isfinite(wide).all() or (wide.size and (wide.min() < info.min or wide.max() >= float(info.max))):
            raise NotEvaluable("the cast leaves the range of the type")
    if array.dtype.kind not in "iufb" and target.kind in "iub":
        array = array.astype(np.float32)
    return array.astype(target)


def _cast_like(node: ir.Node, inputs: Inputs) -> Any:
    return _need(inputs[0]).astype(_need(inputs[1]).dtype)


def _reshape(node: ir.Node, inputs: Inputs) -> Any:
    array, target = _need(inputs[0]), _ints(inputs[1])
    if not _attribute(node, "allowzero", 0):
        target = [array.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return array.reshape(target)


def _unsqueeze(node: ir.Node, inputs: Inputs) -> Any:
    axes = _numbers(node, inputs, "axes")
    if axes is None:
        raise NotEvaluable("the axes are missing")
    return np.expand_dims(_need(inputs[0]), tuple(axes))


def _squeeze(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    axes = _numbers(node, inputs, "axes")
    return np.squeeze(array) if axes is None else np.squeeze(array, tuple(axes))


def _flatten(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    axis = _attribute(node, "axis", 1)
    axis = axis + array.ndim if axis < 0 else axis
    return (
        array.reshape(math.prod(array.shape[:axis]), -1)
        if array.size
        else array.reshape(math.prod(array.shape[:axis]), math.prod(array.shape[axis:]))
    )


def _transpose(node: ir.Node, inputs: Inputs) -> Any:
    return np.transpose(_need(inputs[0]), _attribute(node, "perm"))


def _concat(node: ir.Node, inputs: Inputs) -> Any:
    return np.concatenate([_need(array) for array in inputs], axis=_attribute(node, "axis"))


def _split(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    axis = _attribute(node, "axis", 0)
    count = len(node.outputs)
    sizes = _numbers(node, inputs, "split")
    if sizes is None:
        chunk = -(-array.shape[axis] // count)
        sizes = [min(chunk, max(array.shape[axis] - chunk * position, 0)) for position in range(count)]
    return list(np.split(array, np.cumsum(sizes)[:-1], axis=axis))


def _slice(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    starts, ends = _ints(inputs[1]), _ints(inputs[2])
    axes = _ints(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = _ints(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    index = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = array.shape[axis]
        if step > 0:
            index[axis] = slice(start, end, step)
        else:
            # Python reads a negative end from behind; ONNX clamps it to "before the first element".
            stop = end + size if end < 0 else end
            index[axis] = slice(start, None if stop < 0 else stop, step)
    return array[tuple(index)]


def _gather(node: ir.Node, inputs: Inputs) -> Any:
    return np.take(_need(inputs[0]), _need(inputs[1]), axis=_attribute(node, "axis", 0))


def _gather_nd(node: ir.Node, inputs: Inputs) -> Any:
    data, indices = _need(inputs[0]), _need(inputs[1])
    batch = _attribute(node, "batch_dims", 0)
    if indices.size and (indices.min() < -max(data.shape) or indices.max() >= max(data.shape)):
        raise NotEvaluable("an index is out of range")
    grid = np.ix_(*(np.arange(size) for size in data.shape[:batch]))
    lead = tuple(axis.reshape(axis.shape + (1,) * (indices.ndim - 1 - batch)) for axis in grid)
    return data[(*lead, *np.moveaxis(indices, -1, 0))]


def _scatter_nd(node: ir.Node, inputs: Inputs) -> Any:
    reduction = _attribute(node, "reduction", "none")
    if reduction != "none":
        raise NotEvaluable("ScatterND with a reduction")
    result = np.array(_need(inputs[0]))
    result[tuple(np.moveaxis(_need(inputs[1]), -1, 0))] = _need(inputs[2])
    return result


def _expand(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(_ints(inputs[1]))))


def _tile(node: ir.Node, inputs: Inputs) -> Any:
    return np.tile(_need(inputs[0]), _ints(inputs[1]))


def _where(node: ir.Node, inputs: Inputs) -> Any:
    return np.where(_need(inputs[0]), _need(inputs[1]), _need(inputs[2]))


def _shape(node: ir.Node, inputs: Inputs) -> Any:
    shape = np.array(_need(inputs[0]).shape, dtype=np.int64)
    rank = len(shape)
    start, end = _attribute(node, "start", 0), _attribute(node, "end", rank)
    start = min(max(start + rank if start < 0 else start, 0), rank)
    end = min(max(end + rank if end < 0 else end, 0), rank)
    return shape[start:end]


def _constant_of_shape(node: ir.Node, inputs: Inputs) -> Any:
    value = _attribute(node, "value")
    fill = np.zeros((1,), np.float32) if value is None else value.numpy().reshape(-1)
    return np.full(_ints(inputs[0]), fill[0], fill.dtype)


def _clip(node: ir.Node, inputs: Inputs) -> Any:
    array = _need(inputs[0])
    low = inputs[1] if len(inputs) > 1 else None
    high = inputs[2] if len(inputs) > 2 else None
    if low is not None:
        array = np.maximum(array, low)
    return array if high is None else np.minimum(array, high)


def _reduce(function: Callable[..., Any]) -> Kernel:
    def kernel(node: ir.Node, inputs: Inputs) -> Any:
        array = _need(inputs[0])
        given = _numbers(node, inputs, "axes")
        if not given and _attribute(node, "noop_with_empty_axes", 0):
            return array
        axes = tuple(given) if given else None
        return np.asarray(function(array, axis=axes, keepdims=bool(_attribute(node, "keepdims", 1)))).astype(
            array.dtype
        )

    return kernel


def _range(node: ir.Node, inputs: Inputs) -> Any:
    start, limit, delta = (_need(array).reshape(-1)[0] for array in inputs[:3])
    count = max(math.ceil((limit - start) / delta), 0)
    return (start + np.arange(count) * delta).astype(start.dtype)


def _reciprocal(array: Array) -> Any:
    return 1 / array


def _erf(array: Array) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(array)


def _sigmoid(array: Array) -> Any:
    wide = array.astype(np.float64)
    return np.where(wide >= 0, 1 / (1 + np.exp(-np.abs(wide))), np.exp(-np.abs(wide)) / (1 + np.exp(-np.abs(wide))))


def _round(array: Array) -> Any:
    return np.rint(array)


_UNARY: dict[str, Callable[[Array], Any]] = {
    "Abs": np.abs,
    "Neg": np.negative,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": _round,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tan": np.tan,
    "Tanh": np.tanh,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atan": np.arctan,
    "Sign": np.sign,
    "Not": np.logical_not,
    "Reciprocal": _reciprocal,
    "Erf": _erf,
    "Sigmoid": _sigmoid,
    "Relu": lambda array: np.maximum(array, 0),
    "Identity": lambda array: array,
}

_KERNELS: dict[str, Kernel] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _divide,
    "Mod": _modulo,
    "Pow": _power,
    "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or),
    "Xor": _binary(np.logical_xor),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Sum": _variadic(np.add),
    "Equal": _compare(np.equal),
    "Less": _compare(np.less),
    "LessOrEqual": _compare(np.less_equal),
    "Greater": _compare(np.greater),
    "GreaterOrEqual": _compare(np.greater_equal),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Where": _where,
    "Shape": _shape,
    "ConstantOfShape": _constant_of_shape,
    "Clip": _clip,
    "Range": _range,
    "ReduceSum": _reduce(np.sum),
    "ReduceMean": _reduce(np.mean),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
}
