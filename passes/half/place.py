"""Place: retype the chosen nodes, and cast where a half meets a float32; each value is cast once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.ir.bodies import bodies_of
from graphforge.ir.detour import Rounding, mark_rounding
from graphforge.ir.dtypes import dtype_name
from graphforge.passes.half.forms import Form, is_indifferent
from graphforge.ranges.measure import STANDS_FOR_INFINITY
from graphforge.transform import Rewriter

__all__ = ["half_of", "place"]

# What stands for infinity (masks before a softmax) in float16: half of the largest, so that scores can be added to it.
_INFINITE_HALF = 2.0**15


def half_of(array: np.ndarray, half: ir.DataType) -> np.ndarray:
    """The elements in half precision; what stands for infinity still does."""
    if half == ir.DataType.FLOAT16:
        stands = np.isfinite(array) & (np.abs(array) >= STANDS_FOR_INFINITY)
        array = np.where(stands, np.sign(array) * _INFINITE_HALF, array)
    with np.errstate(over="ignore"):
        return np.asarray(array.astype(half.numpy()))


def place(rewriter: Rewriter, chosen: Mapping[ir.Node, Form], half: ir.DataType, *, keep_io: bool) -> None:
    """Compute the chosen nodes of the main graph in half precision.

    Args:
        rewriter: of the model.
        chosen: the nodes, with what changes in them.
        half: FLOAT16 or BFLOAT16.
        keep_io: inputs and outputs of the model stay float32.
    """
    _Placing(rewriter, half).run(chosen, keep_io=keep_io)


class _Placing:
    def __init__(self, rewriter: Rewriter, half: ir.DataType) -> None:
        self.rewriter = rewriter
        self.half = half
        self.halves: set[ir.Value] = set()
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._chosen: Mapping[ir.Node, Form] = {}

    def run(self, chosen: Mapping[ir.Node, Form], *, keep_io: bool) -> None:
        """See ``place``."""
        self._chosen = chosen
        graph = self.rewriter.graph
        nodes = list(graph)
        outputs = [(str(value.name), value) for value in graph.outputs]
        if not keep_io and chosen:
            for value in graph.inputs:
                if value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType):
                    self.rewriter.set_type(value, ir.TensorType(self.half))
                    self.halves.add(value)
        rounding = Rounding("arithmetic", "float32", dtype_name(self.half))
        for node in nodes:
            form = chosen.get(node)
            if form is not None:
                for position in form.inputs:
                    operand = node.inputs[position]
                    assert operand is not None
                    self.rewriter.set_input(node, position, self._as_half(operand, node))
                for position in form.outputs:
                    self.rewriter.set_type(node.outputs[position], ir.TensorType(self.half))
                    self.halves.add(node.outputs[position])
                if node.op_type == "Cast" and form.outputs:
                    self.rewriter.set_attribute(node, "to", int(self.half))
                if form.outputs:
                    mark_rounding(node, rounding)
            elif not is_indifferent(node):
                self._read_in_full(node, node)
        wanted = []
        for name, value in outputs:
            if keep_io and value in self.halves:
                value = self._as_full(value, None)
            elif not keep_io and chosen and value not in self.halves and value.dtype == ir.DataType.FLOAT:
                value = self._as_half(value, None)
            wanted.append((name, value))
        self.rewriter.set_outputs(wanted)

    def _read_in_full(self, node: ir.Node, before: ir.Node) -> None:
        """Let a node that is not converted, and those in its bodies, read float32 where they did."""
        for position, value in enumerate(node.inputs):
            if value is not None and value in self.halves:
                self.rewriter.set_input(node, position, self._as_full(value, before))
        for body in bodies_of(node):
            for inner in body:
                self._read_in_full(inner, before)

    def _as_half(self, value: ir.Value, before: ir.Node | None) -> ir.Value:
        if value in self.halves:
            return value
        key = (value, self.half)
        if key not in self._cast:
            if value.is_initializer() and not value.is_graph_input() and value.const_value is not None:
                self._cast[key] = self._constant(value, value.const_value)
            else:
                self._cast[key] = self._behind(value, self.half, before)
        return self._cast[key]

    def _constant(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        """A constant in half precision: the very one, where nobody reads it in full."""
        halved = ir.Tensor(half_of(tensor.numpy(), self.half), dtype=self.half)
        forms = [(self._chosen.get(user), position) for user, position in value.uses()]
        if all(form is not None and position in form.inputs for form, position in forms):
            self.rewriter.set_constant(value, halved)
            self.halves.add(value)
            return value
        return self.rewriter.constant(halved, name=value.name)

    def _as_full(self, value: ir.Value, before: ir.Node | None) -> ir.Value:
        key = (value, ir.DataType.FLOAT)
        if key not in self._cast:
            self._cast[key] = self._behind(value, ir.DataType.FLOAT, before)
        return self._cast[key]

    def _behind(self, value: ir.Value, dtype: ir.DataType, before: ir.Node | None) -> ir.Value:
        op = self.rewriter.builder(before)
        cast: ir.Value = op.Cast(value, to=int(dtype))
        self.rewriter.forget_fresh()
        return cast
