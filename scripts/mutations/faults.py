"""Faults that compilers make, put into an ONNX file: each a small edit of one node or one constant."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Fault", "faults_of"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One edit.

    Attributes:
        kind: what a compiler would have done wrong.
        where: the node or constant.
        put: makes the edit in a copy of the file.
    """

    kind: str
    where: str
    put: Callable[[onnx.ModelProto], None]

    def applied(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """The file with the fault in it."""
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        self.put(copy)
        return copy


def faults_of(proto: onnx.ModelProto, count: int, seed: int) -> list[Fault]:
    """Up to ``count`` faults that the file has a place for, of as many kinds as there are."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in _all_faults(proto):
        by_kind.setdefault(fault.kind, []).append(fault)
    random = np.random.default_rng(seed)
    for faults in by_kind.values():
        random.shuffle(faults)
    kinds = list(by_kind)
    random.shuffle(kinds)
    chosen: list[Fault] = []
    while len(chosen) < count and any(by_kind.values()):
        chosen.extend(by_kind[kind].pop() for kind in kinds if by_kind[kind])
    return chosen[:count]


def _all_faults(proto: onnx.ModelProto) -> Iterator[Fault]:
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for index, node in enumerate(proto.graph.node):
        yield from _of_node(index, node, constants)
    for tensor in proto.graph.initializer:
        yield from _of_constant(tensor)


# -- faults of nodes ---------------------------------------------------------------------------------------------------

# Attributes that are easily wrong: operator -> attribute, the wrong value as a function of the right one, the kind.
_ATTRIBUTES: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("LayerNormalization", "epsilon", lambda e: e * 100, "epsilon"),
    ("RMSNormalization", "epsilon", lambda e: e * 100, "epsilon"),
    ("InstanceNormalization", "epsilon", lambda e: e * 100, "epsilon"),
    ("GroupNormalization", "epsilon", lambda e: e * 1000, "epsilon"),
    ("BatchNormalization", "epsilon", lambda e: e * 100, "epsilon"),
    ("Gelu", "approximate", lambda a: b"tanh" if a != b"tanh" else b"none", "erf and tanh GELU"),
    ("HardSigmoid", "alpha", lambda a: 0.2, "hard sigmoid of the other framework"),
    ("LeakyRelu", "alpha", lambda a: a * 1.01, "slope"),
    ("Elu", "alpha", lambda a: a * 1.001, "slope"),
    ("Softmax", "axis", lambda a: a - 1 if a else 1, "axis"),
    ("LogSoftmax", "axis", lambda a: a - 1 if a else 1, "axis"),
    ("TopK", "largest", lambda a: 1 - a, "order"),
    ("ArgMax", "axis", lambda a: a - 1 if a else 1, "axis"),
    ("Gemm", "alpha", lambda a: a * 1.0001, "factor"),
    ("AveragePool", "count_include_pad", lambda a: 1 - a, "pads counted in an average"),
    ("MaxPool", "kernel_shape", lambda k: [size + 1 for size in k], "window"),
    ("Conv", "dilations", lambda d: [2 for _ in d], "dilation"),
    (
        "Conv",
        "pads",
        lambda p: [*p[2:], *p[:2]] if p[:2] != p[2:] else [p[0] + 1, p[1], p[2] - 1, *p[3:]],
        "off by one",
    ),
    ("ConvTranspose", "strides", lambda s: [max(1, one - 1) for one in s], "stride"),
    ("Resize", "coordinate_transformation_mode", lambda m: _other_corners(m), "align_corners"),
    ("Resize", "nearest_mode", lambda m: b"ceil" if m == b"floor" else b"floor", "rounding mode"),
    ("GridSample", "align_corners", lambda a: 1 - a, "align_corners"),
    ("GridSample", "padding_mode", lambda m: b"zeros" if m == b"border" else b"border", "padding mode"),
    ("LSTM", "direction", lambda d: d, "direction"),
    ("GRU", "linear_before_reset", lambda a: 1 - a, "reset before or after"),
    ("DepthToSpace", "mode", lambda m: b"DCR" if m == b"CRD" else b"CRD", "order of channels"),
    ("Transpose", "perm", lambda p: [*p[:-2], p[-1], p[-2]], "axis"),
    ("Concat", "axis", lambda a: a - 1 if a else 1, "axis"),
]

# Operators that are easily taken for others.
_OPERATORS: list[tuple[str, str, str]] = [
    ("Round", "Floor", "rounding mode"),
    ("Floor", "Ceil", "rounding mode"),
    ("Floor", "Round", "rounding mode"),
    ("Sigmoid", "HardSigmoid", "sigmoid and hard sigmoid"),
    ("HardSwish", "Mish", "hard swish"),
    ("Mish", "HardSwish", "hard swish"),
    ("Relu", "Softplus", "activation"),
    ("Erf", "Tanh", "erf and tanh GELU"),
    ("Tanh", "Erf", "activation"),
    ("Greater", "Less", "comparison"),
    ("Sin", "Cos", "sine and cosine"),
    ("Cos", "Sin", "sine and cosine"),
    ("Max", "Min", "bound"),
    ("ReduceMax", "ReduceMean", "reduction"),
    ("ReduceSum", "ReduceMean", "reduction"),
    ("ReduceMean", "ReduceSum", "reduction"),
    ("MaxPool", "AveragePool", "kind of pooling"),
]


def _other_corners(mode: bytes) -> bytes:
    return b"half_pixel" if mode == b"align_corners" else b"align_corners"


def _of_node(index: int, node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> Iterator[Fault]:
    where = f"{node.op_type} {node.name}"

    def fault(kind: str, edit: Callable[[onnx.NodeProto], None]) -> Fault:
        return Fault(kind, where, lambda proto: edit(proto.graph.node[index]))

    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    for operator, name, wrong, kind in _ATTRIBUTES:
        if node.op_type != operator:
            continue
        value = given.get(name, _default(operator, name))
        bad = None if value is None else wrong(value)
        if bad != value:
            yield fault(kind, lambda n, name=name, bad=bad: _set(n, name, bad))  # type: ignore[misc]
    for operator, other, kind in _OPERATORS:
        if node.op_type == operator:
            yield fault(kind, lambda n, other=other: _become(n, other))  # type: ignore[misc]
    if node.op_type in ("Sub", "Div", "Greater", "Less", "Pow", "MatMul", "Concat") and len(node.input) > 1:
        yield fault("swapped inputs", _swap)
    if (
        node.op_type in ("Conv", "Gemm", "ConvTranspose", "LayerNormalization")
        and len(node.input) > 2
        and node.input[2]
    ) and (node.op_type == "LayerNormalization" or node.input[2] in constants):
        yield fault("dropped bias", lambda n: _cut(n, 2))
    if node.op_type == "LSTM" and len(node.input) > 1 and node.input[1] in constants:
        yield Fault("order of gates", where, lambda proto: _rolled(proto, node.input[1], axis=1))
    if node.op_type == "GRU" and len(node.input) > 1 and node.input[1] in constants:
        yield Fault("order of gates", where, lambda proto: _rolled(proto, node.input[1], axis=1))
    if node.op_type == "NonMaxSuppression" and len(node.input) > 3 and node.input[3] in constants:
        for by in (-0.2, 0.2):
            yield Fault("NMS threshold", where, lambda proto, by=by: _shifted(proto, node.input[3], by))  # type: ignore[misc]
    if node.op_type in ("Slice", "Pad", "TopK", "Gather") and len(node.input) > 1 and node.input[1] in constants:
        yield Fault("off by one", where, lambda proto: _shifted(proto, node.input[1], 1))
    if node.op_type in ("Clip", "Relu"):
        yield fault("dropped clamp", lambda n: _become(n, "Identity"))
    if node.op_type in ("ReduceMean", "ReduceSum", "ReduceMax") and len(node.input) > 1 and node.input[1] in constants:
        yield Fault("axis", where, lambda proto: _shifted(proto, node.input[1], -1))


def _default(operator: str, name: str) -> Any:
    schema = onnx.defs.get_schema(operator)
    attribute = schema.attributes.get(name)
    if attribute is None or not attribute.default_value.name:
        return None
    return helper.get_attribute_value(attribute.default_value)


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _become(node: onnx.NodeProto, operator: str) -> None:
    node.op_type = operator
    known = onnx.defs.get_schema(operator).attributes
    kept = [attribute for attribute in node.attribute if attribute.name in known]
    del node.attribute[:]
    node.attribute.extend(kept)
    if operator == "Identity":
        del node.input[1:]


def _swap(node: onnx.NodeProto) -> None:
    one, other = node.input[0], node.input[1]
    node.input[0], node.input[1] = other, one


def _cut(node: onnx.NodeProto, position: int) -> None:
    del node.input[position:]


# -- faults of constants -----------------------------------------------------------------------------------------------


def _of_constant(tensor: onnx.TensorProto) -> Iterator[Fault]:
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return
    array = numpy_helper.to_array(tensor)
    if not array.size:
        return
    name = tensor.name

    def fault(kind: str, edit: Callable[[np.ndarray[Any, Any]], Any]) -> Fault:
        return Fault(kind, name, lambda proto: _edited(proto, name, edit))

    if array.size == 1:
        yield fault("wrong constant", lambda a: a * 1.001 + (a == 0) * 1e-3)
        yield fault("half-precision constants", lambda a: a.astype(np.float16).astype(np.float32))
        return
    yield fault("half-precision constants", lambda a: a.astype(np.float16).astype(np.float32))
    yield fault("bfloat16 constants", lambda a: (a.view(np.uint32) & 0xFFFF0000).view(np.float32))
    yield fault("scaled by a thousandth", lambda a: a * 1.001)
    yield fault("one element", lambda a: _one_off(a, name))
    if array.ndim >= 2 and array.shape[-1] == array.shape[-2] and array.shape[-1] > 1:
        yield fault("transposed weight", lambda a: np.swapaxes(a, -1, -2))
    if array.shape[0] > 1:
        yield fault("order of channels", lambda a: np.roll(a, 1, axis=0))


def _one_off(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    changed = array.copy()
    place = zlib.crc32(name.encode()) % changed.size
    changed.reshape(-1)[place] *= 1.01
    return changed


def _edited(proto: onnx.ModelProto, name: str, edit: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor)
            changed = np.ascontiguousarray(np.asarray(edit(np.ascontiguousarray(array)), array.dtype))
            tensor.CopyFrom(numpy_helper.from_array(changed.reshape(array.shape), name))


def _shifted(proto: onnx.ModelProto, name: str, by: float) -> None:
    _edited(proto, name, lambda a: a + np.asarray(by, a.dtype))


def _rolled(proto: onnx.ModelProto, name: str, axis: int) -> None:
    _edited(proto, name, lambda a: np.roll(a, a.shape[axis] // 4, axis=axis))
