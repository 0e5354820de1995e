"""Insert: pairs of QuantizeLinear and DequantizeLinear around the chosen nodes, weights as int8, biases as int32."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphforge.ir import origins_of
from graphforge.ir.infer import constant_of
from graphforge.passes.qdq.forms import quick_forms
from graphforge.passes.qdq.scales import Grid, weight_integers
from graphforge.transform import Rewriter

__all__ = ["Placement", "channels_of", "insert", "is_recurrent", "quantisable", "values_of"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Which pairs a runtime makes integer kernels of.

    Attributes:
        results: the result of a convolution is quantised, too: ONNX Runtime's kernel has integers on either side.
        biases: biases are int32; else they stay float32, as TensorRT has them.
        weights: ``portable``, ``int8`` or ``uint8``, see ``weight_integers``.
    """

    results: bool = True
    biases: bool = True
    weights: str = "portable"


def is_recurrent(node: ir.Node) -> bool:
    """Whether it is a network over time, whose weights alone become integers: there are no kernels for the rest."""
    return node.domain == "" and node.op_type in ("LSTM", "GRU", "RNN")


def quantisable(node: ir.Node) -> bool:
    """Whether the node is a sum of products of a value with constant weights, in float32."""
    if is_recurrent(node):
        weights = node.inputs[1:3]
        return all(w is not None and w.const_value is not None and w.dtype == ir.DataType.FLOAT for w in weights)
    if node.domain != "" or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return False
    x, w = node.inputs[0], node.inputs[1]
    if x is None or w is None or x.dtype != ir.DataType.FLOAT or x.const_value is not None:
        return False
    if w.const_value is None or w.is_graph_input() or w.dtype != ir.DataType.FLOAT or w.shape is None:
        return False
    if node.op_type == "Conv":
        return True
    if len(w.shape) != 2:
        return False
    if node.op_type == "MatMul":
        return True
    attributes = node.attributes
    plain = all(name not in attributes or attributes[name].as_float() == 1.0 for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    flat = bias is None or (bias.const_value is not None and len(bias.const_value.shape.numpy()) == 1)
    return plain and flat and ("transA" not in attributes or not attributes["transA"].as_int())


def values_of(node: ir.Node, placement: Placement) -> Iterator[ir.Value]:
    """The values that are quantised with the node: its operand, and its result where the runtime wants that."""
    if is_recurrent(node):
        return
    operand = node.inputs[0]
    assert operand is not None
    yield operand
    if placement.results and node.op_type == "Conv":
        yield _result(node)


def insert(
    rewriter: Rewriter,
    chosen: Collection[ir.Node],
    grids: Mapping[str, Grid],
    placement: Placement,
    corrections: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Quantise these nodes of the main graph.

    Args:
        rewriter: of the model.
        chosen: nodes that are ``quantisable``.
        grids: the grid of each of their values, by name.
        placement: what the runtime wants.
        corrections: name of a node's result -> what is added to its bias, a number for each channel.
    """
    nodes = list(rewriter.graph)
    following = dict(zip(nodes, [*nodes[1:], None], strict=True))
    results = {_result(node) for node in chosen if placement.results and node.op_type == "Conv"}
    operands: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        if node in chosen and not is_recurrent(node):
            operand = node.inputs[0]
            assert operand is not None
            operands.setdefault(operand, []).append(node)
    weights = _Weights(rewriter, corrections or {})
    quantised = {*operands, *results}
    grids = {**grids, **{str(value.name): grids[str(_moved(value, results).name)] for value in operands}}
    sums = {node for node in nodes if placement.results and _is_sum(node, quantised)}
    pairs: list[ir.Value] = []
    for value in dict.fromkeys((*operands, *(_result(n) for n in nodes if n in chosen and _result(n) in results))):
        grid = grids[str(value.name)]
        producer = value.producer()
        op = rewriter.builder(nodes[0] if producer is None else following[producer])
        readers = list(value.uses())
        handed_out = value.is_graph_output()
        scale, zero = op.constant(np.asarray(grid.scale, np.float32)), op.constant(np.asarray(grid.zero, grid.dtype))
        pair = op.DequantizeLinear(op.QuantizeLinear(value, scale, zero), scale, zero)
        rewriter.forget_fresh()
        pairs.append(pair)
        for reader, position in readers:
            if value in results or reader in sums or (position == 0 and reader in operands.get(value, ())):
                rewriter.set_input(reader, position, pair)
        if handed_out and value in results:
            outputs = [(str(one.name), pair if one is value else one) for one in rewriter.graph.outputs]
            rewriter.set_outputs(outputs)
    for node in nodes:
        if node in chosen and is_recurrent(node):
            weights.store(node)
        elif node in chosen:
            weights.quantise(node, grids, placement, names=operands)
    if placement.results:
        quick_forms(rewriter, pairs)


def _moved(value: ir.Value, results: Collection[ir.Value]) -> ir.Value:
    """The quantised result that only moves to become this value: with its grid nothing is rounded twice."""
    source = value
    while (producer := source.producer()) is not None and producer.op_type in _MOVERS and producer.domain == "":
        before = producer.inputs[0]
        if before is None or before.producer() is None:
            break
        source = before
        if source in results:
            return source
    return value


def _is_sum(node: ir.Node, quantised: Collection[ir.Value]) -> bool:
    """Whether it adds two quantised values to a third: runtimes have a kernel of integers for that."""
    if node.op_type != "Add" or node.domain != "" or _result(node) not in quantised:
        return False
    return all(value is not None and value in quantised for value in node.inputs)


class _Weights:
    """Constants as integers, each made once."""

    def __init__(self, rewriter: Rewriter, corrections: Mapping[str, np.ndarray]) -> None:
        self.rewriter = rewriter
        self.corrections = corrections
        self._made: dict[tuple[ir.Value, int | None], tuple[ir.Value, np.ndarray]] = {}

    def store(self, node: ir.Node) -> None:
        """Let a node read its weights from integers, and compute with them in float32: the file is smaller."""
        axis = 1 if self.rewriter.opset >= 13 else None  # [directions, gates * hidden, operands]
        for position in (1, 2):
            weight = node.inputs[position]
            assert weight is not None
            assert weight.const_value is not None
            integers, scales = weight_integers(weight.const_value.numpy().astype(np.float32), axis)
            op = self.rewriter.builder(self._first(), origins=origins_of(node))
            operands = [self.rewriter.constant(ir.Tensor(integers), name=weight.name), scales]
            attributes = {} if axis is None else {"axis": axis}
            self.rewriter.set_input(node, position, op.DequantizeLinear(*operands, **attributes))
            self.rewriter.forget_fresh()

    def quantise(
        self, node: ir.Node, grids: Mapping[str, Grid], placement: Placement, *, names: Mapping[ir.Value, list[ir.Node]]
    ) -> None:
        """Let a node read its weights, and its bias, from integers."""
        source = next(value for value, readers in names.items() if node in readers)
        weight = node.inputs[1]
        assert weight is not None
        axis = channels_of(node) if self.rewriter.opset >= 13 else None  # a scale for each channel came with 13
        key = (weight, axis)
        if key not in self._made:
            assert weight.const_value is not None
            array = weight.const_value.numpy().astype(np.float32)
            integers, scales = weight_integers(array, axis, placement.weights)
            op = self.rewriter.builder(self._first(), origins=origins_of(node))
            zeros = np.full(scales.shape, 128 if placement.weights == "uint8" else 0, integers.dtype)
            operands = [self.rewriter.constant(ir.Tensor(integers), name=weight.name), scales, zeros]
            attributes = {} if axis is None else {"axis": axis}
            self._made[key] = (op.DequantizeLinear(*operands, **attributes), scales)
            self.rewriter.forget_fresh()
        made, scales = self._made[key]
        self.rewriter.set_input(node, 1, made)
        reader, position = _bias(node)
        bias = reader.inputs[position] if position < len(reader.inputs) else None
        if bias is not None and (bias.const_value is None or bias.dtype != ir.DataType.FLOAT):
            return
        correction = self.corrections.get(str(node.outputs[0].name))
        if bias is None and (correction is None or node.op_type == "MatMul"):
            return
        numbers = np.zeros(1) if bias is None or bias.const_value is None else bias.const_value.numpy()
        numbers = numbers.astype(np.float64) + (0.0 if correction is None else correction)
        if not placement.biases:
            if correction is not None:
                made = self.rewriter.constant(numbers.astype(np.float32), name=None if bias is None else bias.name)
                self.rewriter.set_input(reader, position, made)
            return
        steps = np.asarray(np.float32(grids[str(source.name)].scale) * scales, np.float32)
        integers = np.clip(np.round(numbers / steps), -(2**31) + 1, 2**31 - 1)
        op = self.rewriter.builder(self._first(), origins=origins_of(node))
        name = None if bias is None else bias.name
        operands = [self.rewriter.constant(ir.Tensor(integers.astype(np.int32)), name=name), steps]
        attributes = {"axis": 0} if steps.ndim else {}
        self.rewriter.set_input(reader, position, op.DequantizeLinear(*operands, **attributes))
        self.rewriter.forget_fresh()

    def _first(self) -> ir.Node:
        return next(iter(self.rewriter.graph))


# Results are elements of the operand, each as it was.
_MOVERS = frozenset("Flatten MaxPool Reshape Slice Squeeze Transpose Unsqueeze".split())


def channels_of(node: ir.Node) -> int:
    """The axis of the weights along which the results lie."""
    if node.op_type == "Conv":
        return 0
    transposed = node.attributes.get("transB")
    return 0 if node.op_type == "Gemm" and transposed is not None and transposed.as_int() else 1


def _bias(node: ir.Node) -> tuple[ir.Node, int]:
    """The node that reads the bias, and where: for a product the sum behind it, of which runtimes make one operator."""
    uses = list(node.outputs[0].uses())
    if node.op_type != "MatMul" or len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0][0].op_type != "Add":
        return node, 2
    add, position = uses[0]
    other, weight = add.inputs[1 - position], node.inputs[1]
    if other is None or other.const_value is None or other.shape is None or weight is None or weight.shape is None:
        return node, 2
    return (add, 1 - position) if list(other.shape) == [weight.shape[1]] else (node, 2)


def _result(node: ir.Node) -> ir.Value:
    """The result, behind an activation that an integer kernel does by cutting off."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) == 1 and not value.is_graph_output():
        reader = uses[0][0]
        if reader.op_type == "Relu" or (reader.op_type == "Clip" and _is_constant_clip(reader)):
            return reader.outputs[0]
    return value


def _is_constant_clip(node: ir.Node) -> bool:
    return node.graph is not None and all(value is None or constant_of(value) is not None for value in node.inputs[1:])
