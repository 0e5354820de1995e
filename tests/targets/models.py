"""Small models built by hand, for the tests of the targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.ir import Builder, Origin
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

__all__ = ["Sketch", "conv_net", "spec"]

CONV = Origin("features.conv", "torch.nn.modules.conv.Conv2d", "aten.conv2d.default", "net.py", 12)
RELU = Origin("features.act", "torch.nn.modules.activation.ReLU", "aten.relu.default", "net.py", 13)


class Sketch:
    """A model in the making: ``input``, then operators through ``op(origin)``, then ``model(outputs)``."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="main")

    def input(self, name: str, shape: Sequence[int | str], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(list(shape)))
        self.graph.inputs.append(value)
        return value

    def op(self, origin: Origin) -> Builder:
        return Builder(self.graph, origins=[origin], opset=self.opset)

    def weight(self, name: str, *shape: int) -> ir.Value:
        values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32) * 0.2
        return Builder(self.graph).constant(values, name=name)

    def model(self, **outputs: ir.Value) -> ir.Model:
        for name, value in outputs.items():
            value.name = name
            self.graph.outputs.append(value)
        return ir.Model(self.graph, ir_version=10)


def conv_net(opset: int, *, batch: int | str = 1, width: int | str = 16) -> ir.Model:
    """Conv and Relu: x [batch, 3, 16, width] -> y [batch, 8, 16, width]."""
    sketch = Sketch(opset)
    x = sketch.input("x", [batch, 3, 16, width])
    conv = sketch.op(CONV).Conv(x, sketch.weight("features.conv.weight", 8, 3, 3, 3), pads=[1, 1, 1, 1])
    conv.shape = ir.Shape([batch, 8, 16, width])  # ONNX's inference forgets the names of dynamic dims in a Conv
    return sketch.model(y=sketch.op(RELU).Relu(conv))


def spec(name: str, *shape: int, dtype: str = "float32", **dims: DimRange) -> ShapeSpec:
    """A shape spec of one input; dynamic dims as ``axis0=DimRange(...)``."""
    return ShapeSpec(
        (TensorSpec(name, shape, dtype, {int(key.removeprefix("axis")): dim for key, dim in dims.items()}),)
    )
