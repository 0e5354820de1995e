"""Compute what depends on constants only, and shapes that are known, once at compile time.    add(1, 2) ==> 3"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph, Node, Value
from graphforge.passes._evaluate import CANNOT_FOLD, NotEvaluable, can_evaluate, evaluate
from graphforge.transform import Pass, Rewriter, bodies_of, is_constant
from graphforge.transform.shape_values import Elements, ShapeValues

__all__ = ["FoldConstants"]

# Results above this are not kept in memory but computed again whenever they are read: weights must not pile up.
_LAZY_BYTES = 1 << 18
# Operators whose result is cheap enough for that.
_LAZY = frozenset(
    "Transpose Reshape Cast Squeeze Unsqueeze Flatten Slice Concat Gather Split Add Sub Mul Div Neg Abs Sqrt Exp "
    "Reciprocal Pow Expand Tile Where Clip Identity Max Min".split()
)


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Fold constants and known shapes in one walk over the graph.

    Attributes:
        max_bytes: a result may be this much larger than the constants it is made of (a Tile or ConstantOfShape that
            unfolds into megabytes stays a node).
        max_work: above this many input elements only cheap operators are computed.
    """

    name: ClassVar[str] = "fold-constants"
    max_bytes: int = 4 << 20
    max_work: int = 1 << 22

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Fold the graph and its bodies."""
        _Folder(self, rewriter).graph(graph)


class _Folder:
    def __init__(self, options: FoldConstants, rewriter: Rewriter) -> None:
        self.options = options
        self.rewriter = rewriter
        self.shapes = ShapeValues()
        self.too_large = f"the result would be larger than its constants by more than {options.max_bytes} bytes"

    def graph(self, graph: Graph) -> None:
        for node in graph:
            if node.domain == "" and self.fold(node):
                continue
            if node.attributes:
                for body in bodies_of(node):
                    self.graph(body)

    def fold(self, node: Node) -> bool:
        """Replace the node by constants where it can be done; else make its shape and elements known."""
        if node.op_type == "Constant":
            return self.constant_node(node)
        if node.op_type in CANNOT_FOLD:
            return False
        if node.op_type == "Identity":
            return self.identity(node)
        if node.op_type == "CastLike":
            return self.cast_like(node)
        self.rewriter.infer(node)
        if self.shapes.visit(node):
            elements = self.shapes.elements(node.outputs[0])
            if elements is not None and self.known_shape(node, elements):
                return True
        if not node.inputs or not all(value is None or is_constant(value) for value in node.inputs):
            return False
        return self.computed(node)

    def constant_node(self, node: Node) -> bool:
        attribute = next(iter(node.attributes.values()), None)
        if attribute is None:
            return False
        tensor: ir.TensorProtocol
        if attribute.name == "value":
            tensor = attribute.as_tensor()
        elif attribute.name in ("value_int", "value_ints"):
            tensor = ir.Tensor(np.array(attribute.value, dtype=np.int64))
        elif attribute.name in ("value_float", "value_floats"):
            tensor = ir.Tensor(np.array(attribute.value, dtype=np.float32))
        else:
            self.rewriter.declined(f"a Constant with {attribute.name} stays a node", node)
            return False
        return self.replace(node, [tensor])

    def identity(self, node: Node) -> bool:
        """A renamed constant is read directly; one that is handed out stays."""
        source = node.inputs[0]
        if source is None or not is_constant(source) or not node.outputs[0]._uses:
            return False
        self.rewriter.replace(node, source)
        return True

    def cast_like(self, node: Node) -> bool:
        """The type of the other operand is known, its elements are of no interest."""
        source, like = node.inputs[0], node.inputs[1]
        if source is None or like is None or like.dtype is None:
            return False
        if source.dtype == like.dtype and not node.outputs[0].is_graph_output():
            self.rewriter.replace(node, source)
            return True
        # saturate and round_mode mean the same to Cast.
        cast = self.rewriter.builder(node).Cast(source, to=like.dtype, **dict(node.attributes.items()))
        self.rewriter.replace(node, cast)
        self.fold(cast.producer())
        return True

    def known_shape(self, node: Node, elements: Elements) -> bool:
        output = node.outputs[0]
        numbers = [item for item in elements if isinstance(item, int)]
        if len(numbers) != len(elements) or output.dtype is None or output.shape is None:
            return False
        dtype = output.dtype.numpy()
        if dtype.kind == "i" and any(not np.iinfo(dtype).min <= item <= np.iinfo(dtype).max for item in numbers):
            return False
        shape = () if len(output.shape) == 0 else (len(numbers),)
        return self.replace(node, [ir.Tensor(np.array(numbers, dtype=dtype).reshape(shape), dtype=output.dtype)])

    def computed(self, node: Node) -> bool:
        if not can_evaluate(node):
            self.rewriter.declined(f"{node.op_type} of constants is not computed here", node)
            return False
        if any(value is not None and value.dtype == ir.DataType.STRING for value in (*node.inputs, *node.outputs)):
            self.rewriter.declined("strings are not computed here", node)
            return False
        tensors = [None if value is None else value.const_value for value in node.inputs]
        given = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        size = _output_bytes(node)
        if size is None and given > _LAZY_BYTES:
            self.rewriter.declined("the size of the result is unknown", node)
            return False
        if size is not None and size > given + self.options.max_bytes:
            self.rewriter.declined(self.too_large, node)
            return False
        if size is not None and size > _LAZY_BYTES and _stores_again(node, size):
            self.rewriter.declined("it would store a weight a second time: others read the weight as it is", node)
            return False
        cheap = node.op_type in _LAZY
        if not cheap and sum(tensor.size for tensor in tensors if tensor is not None) > self.options.max_work:
            self.rewriter.declined(f"its constants have more than {self.options.max_work} elements", node)
            return False
        if cheap and size is not None and size > _LAZY_BYTES and len(node.outputs) == 1:
            return self.replace(node, [_lazy(node, tensors, self.rewriter.opset)])
        arrays = [None if tensor is None else tensor.numpy() for tensor in tensors]
        try:
            results = evaluate(node, arrays, self.rewriter.opset)
        except NotEvaluable as error:
            self.rewriter.declined(f"{node.op_type}: {error}", node)
            return False
        if sum(array.nbytes for array in results) > given + self.options.max_bytes:
            self.rewriter.declined(self.too_large, node)
            return False
        return self.replace(node, [_tensor(array, value) for array, value in zip(results, node.outputs, strict=True)])

    def replace(self, node: Node, tensors: list[ir.TensorProtocol]) -> bool:
        """Put constants in the node's place.  A graph output stays the output of a node: an Identity."""
        values: list[Value | None] = []
        for value, tensor in zip(node.outputs, tensors, strict=True):
            if not value._uses and not value.is_graph_output():
                values.append(None)
                continue
            if tensor.nbytes <= 64 and not isinstance(tensor, ir.LazyTensor):
                values.append(
                    self.rewriter.constant(tensor.numpy()) if _plain(tensor) else self.rewriter.constant(tensor)
                )
            else:
                name = None if value.is_graph_output() else value.name
                values.append(self.rewriter.constant(tensor, name and f"{name}/folded"))
        self.rewriter.replace(node, values)
        return True


def _stores_again(node: Node, size: int) -> bool:
    """Whether the result is another copy of a large constant that stays because others read it.

    Indices (integers, where the result is none) are no data: what they pick out is new.
    """
    result = node.outputs[0].dtype
    held = freed = 0
    for value in node.inputs:
        if value is None or value.const_value is None or value.dtype is None or result is None:
            continue
        if value.dtype.is_integer() and not result.is_integer():
            continue
        held += value.const_value.nbytes
        freed += value.const_value.nbytes if all(user is node for user, _ in value._uses) else 0
    return held > _LAZY_BYTES and size > freed + _LAZY_BYTES


def _plain(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.numpy().kind in "iufb" and tensor.dtype.bitwidth >= 8


def _tensor(array: np.ndarray, value: Value) -> ir.TensorProtocol:
    dtype = value.dtype if value.dtype is not None and value.dtype.numpy() == array.dtype else None
    if array.base is not None or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    return ir.Tensor(array, dtype=dtype)


def _lazy(node: Node, tensors: list[ir.TensorProtocol | None], opset: int) -> ir.LazyTensor:
    """The node's result, computed when it is read.  The node keeps its attributes after it is erased."""
    output = node.outputs[0]
    assert output.dtype is not None
    assert output.shape is not None
    dtype = output.dtype

    def compute() -> ir.TensorProtocol:
        arrays = [None if tensor is None else tensor.numpy() for tensor in tensors]
        return ir.Tensor(np.ascontiguousarray(evaluate(node, arrays, opset)[0]), dtype=dtype)

    return ir.LazyTensor(compute, dtype=dtype, shape=ir.Shape(output.shape.numpy()))


def _output_bytes(node: Node) -> int | None:
    total = 0
    for value in node.outputs:
        if value.shape is None or value.dtype is None or not value.shape.is_static():
            return None
        total += -(-math.prod(value.shape.numpy()) * value.dtype.bitwidth // 8)
    return total
