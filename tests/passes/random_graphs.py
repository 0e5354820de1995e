"""Random graphs of what the passes look for: reshaping, slicing, constants, convolutions, computed shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir

from graphforge.ir import HOME_OPSET, Builder, Model, Value

__all__ = ["random_model"]


class RandomGraph:
    """Grows a graph by one random step after the other; values keep at most 4096 elements."""

    def __init__(self, seed: int, *, dynamic: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.graph = onnx_ir.Graph((), (), nodes=(), opset_imports={"": HOME_OPSET}, name="random")
        self.op: Any = Builder(self.graph)
        # Example sizes of the values, besides what the graph knows of them.
        self.sizes: dict[Value, tuple[int, ...]] = {}
        for name, shape in (("x", (2, 4, 6)), ("z", (2, 3, 5, 6)), ("m", (4, 6))):
            dims: list[int | str] = list(shape)
            if dynamic:
                dims[0] = "N" if name != "m" else "M"
                if name == "z":
                    dims[2] = "H"
            value = Value(name=name, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), shape=onnx_ir.Shape(dims))
            self.graph.inputs.append(value)
            self.sizes[value] = shape

    def pick(self, accept: Callable[[tuple[int, ...]], bool] = lambda shape: True) -> Value | None:
        """A value whose shape is acceptable, the newer ones more often."""
        values = [value for value, shape in self.sizes.items() if accept(shape)]
        if not values:
            return None
        weights = np.linspace(1, 3, len(values))
        return values[int(self.random.choice(len(values), p=weights / weights.sum()))]

    def keep(self, value: Value, shape: tuple[int, ...]) -> None:
        """Remember a value unless it is too large or empty."""
        if 0 < np.prod(shape) <= 4096 and len(shape) <= 5:
            self.sizes[value] = shape

    def integer(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high))

    def floats(self, *shape: int) -> np.ndarray:
        kind = self.integer(0, 6)
        if kind == 0:
            return np.zeros(shape, np.float32)
        if kind == 1:
            return np.ones(shape, np.float32)
        return self.random.standard_normal(shape).astype(np.float32)

    def run_time_shape(self, value: Value, sizes: tuple[int, ...], wanted: list[int]) -> Value:
        """``wanted`` as a tensor in which what equals a dim of ``value`` is read from it."""
        op, parts = self.op, []
        shape = op.Shape(value)
        for size in wanted:
            if size in sizes and size > 0 and self.integer(0, 3):
                parts.append(op.Unsqueeze(op.Gather(shape, sizes.index(size)), [0]))
            else:
                parts.append(op.constant([size]))
        return op.Concat(*parts, axis=0)  # type: ignore[no-any-return]

    # The steps

    def unary(self) -> None:
        value = self.pick()
        assert value is not None
        name = str(self.random.choice("Relu Sigmoid Tanh Neg Abs Identity Floor Softmax HardSigmoid Dropout".split()))
        if name == "Softmax" and not self.sizes[value]:
            return
        self.keep(self.op.node(name, [value]), self.sizes[value])

    def cast(self) -> None:
        value = self.pick()
        assert value is not None
        wide = self.op.Cast(value, to=onnx_ir.DataType.DOUBLE if self.integer(0, 2) else onnx_ir.DataType.FLOAT)
        self.keep(self.op.Cast(wide, to=onnx_ir.DataType.FLOAT), self.sizes[value])

    def with_constant(self) -> None:
        value = self.pick()
        assert value is not None
        shape = self.sizes[value]
        name = str(self.random.choice(["Add", "Mul", "Sub", "Div"]))
        form = self.integer(0, 4)
        if form == 0 or not shape:
            array = self.floats()
        elif form == 1:
            array = self.floats(shape[-1])
        elif form == 2 and len(shape) > 1:
            array = self.floats(shape[1], *([1] * (len(shape) - 2)))
        else:
            array = self.floats(1, *shape) if self.integer(0, 3) == 0 else self.floats(*([1] * len(shape)))
        if name == "Div":
            array = np.sign(array) + array + (array == 0)
        operands = [value, array.astype(np.float32)]
        if name in ("Add", "Mul") and self.integer(0, 2):
            operands.reverse()
        result = self.op.node(name, operands)
        self.keep(result, np.broadcast_shapes(shape, array.shape))

    def binary(self) -> None:
        value = self.pick()
        assert value is not None
        shape = self.sizes[value]
        other = self.pick(lambda one: one == shape)
        if other is None or (value.shape is not None and other.shape is not None and value.shape != other.shape):
            return
        self.keep(self.op.node(str(self.random.choice(["Add", "Mul", "Max", "Sub"])), [value, other]), shape)

    def transpose(self) -> None:
        value = self.pick(lambda shape: len(shape) > 1)
        assert value is not None
        shape = self.sizes[value]
        perm = [int(axis) for axis in self.random.permutation(len(shape))]
        self.keep(self.op.Transpose(value, perm=perm), tuple(shape[axis] for axis in perm))

    def reshape(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0)
        assert value is not None
        sizes = list(self.sizes[value])
        form = self.integer(0, 4)
        if form == 0:
            place = self.integer(0, len(sizes))
            wanted = [*sizes[:place], int(np.prod(sizes[place:]))]
        elif form == 1:
            wanted = [sizes[0], int(np.prod(sizes[1:]))]
        else:
            place = self.integer(0, len(sizes))
            size = sizes[place]
            divisor = next((one for one in (2, 3, 5) if size % one == 0), 1)
            wanted = [*sizes[:place], divisor, size // divisor, *sizes[place + 1 :]]
        static = value.shape is not None and value.shape.is_static()
        target: list[int] = []
        for place, size in enumerate(wanted):
            dim = None if value.shape is None or place >= len(value.shape) else value.shape[place]
            if place < len(sizes) and sizes[place] == size and (not isinstance(dim, int) or self.integer(0, 3) == 0):
                target.append(0)
            elif -1 not in target and (not static or self.integer(0, 4) == 0):
                target.append(-1)
            else:
                target.append(size)
        if self.integer(0, 3) == 0:
            self.keep(self.op.Reshape(value, self.run_time_shape(value, self.sizes[value], wanted)), tuple(wanted))
        elif static or -1 in target:
            self.keep(self.op.Reshape(value, target), tuple(wanted))

    def squeeze(self) -> None:
        value = self.pick()
        assert value is not None
        shape = self.sizes[value]
        ones = [
            axis for axis, size in enumerate(shape) if size == 1 and value.shape is not None and value.shape[axis] == 1
        ]
        if ones and self.integer(0, 2):
            axis = ones[0]
            self.keep(self.op.Squeeze(value, [axis]), shape[:axis] + shape[axis + 1 :])
            return
        axis = self.integer(0, len(shape) + 1)
        self.keep(self.op.Unsqueeze(value, [axis]), (*shape[:axis], 1, *shape[axis:]))

    def flatten(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0)
        assert value is not None
        shape = self.sizes[value]
        axis = self.integer(0, len(shape))
        self.keep(self.op.Flatten(value, axis=axis), (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))

    def slice(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0 and max(shape) > 1)
        assert value is not None
        shape = list(self.sizes[value])
        axis = self.integer(0, len(shape))
        start = self.integer(-shape[axis], shape[axis])
        end = self.integer(-shape[axis], 2 * shape[axis]) if self.integer(0, 2) else 2**63 - 1
        step = 1 if self.integer(0, 3) else 2
        shape[axis] = len(range(shape[axis])[slice(start, end, step)])
        self.keep(self.op.Slice(value, [start], [end], [axis], [step]), tuple(shape))

    def concat(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0)
        assert value is not None
        shape = list(self.sizes[value])
        axis = self.integer(0, len(shape))
        values = [value] * self.integer(1, 3)
        shape[axis] *= len(values)
        self.keep(self.op.Concat(*values, axis=axis), tuple(shape))

    def split(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0 and shape[-1] > 1)
        if value is None:
            return
        shape = self.sizes[value]
        first = self.integer(1, shape[-1])
        if value.shape is None or value.shape[-1] != shape[-1]:
            return
        left, right = self.op.Split(value, [first, shape[-1] - first], axis=-1, _outputs=2)
        self.keep(left, (*shape[:-1], first))
        self.keep(right, (*shape[:-1], shape[-1] - first))

    def matmul(self) -> None:
        value = self.pick(lambda shape: len(shape) > 1)
        assert value is not None
        shape = self.sizes[value]
        if value.shape is None or value.shape[-1] != shape[-1]:
            return
        columns = self.integer(1, 6)
        result = self.op.MatMul(value, self.floats(shape[-1], columns))
        if self.integer(0, 2):
            result = self.op.Add(result, self.floats(columns))
        if self.integer(0, 3) == 0:
            result = self.op.Mul(result, self.floats(columns) if self.integer(0, 2) else self.floats())
        self.keep(result, (*shape[:-1], columns))

    def norm(self) -> None:
        value = self.pick(lambda shape: len(shape) > 1)
        assert value is not None
        shape = self.sizes[value]
        if value.shape is None or value.shape[1] != shape[1]:
            return
        channels = shape[1]
        variance = np.abs(self.floats(channels)) + np.float32(0.5)
        parameters = [self.floats(channels), self.floats(channels), self.floats(channels), variance]
        self.keep(self.op.BatchNormalization(value, *parameters), shape)

    def conv(self) -> None:
        value = self.pick(lambda shape: len(shape) == 4 and min(shape[2:]) > 2)
        if value is None or value.shape is None or value.shape[1] != self.sizes[value][1]:
            return
        shape = list(self.sizes[value])
        if self.integer(0, 2):
            pads = [0, 0, self.integer(0, 2), self.integer(0, 2), 0, 0, self.integer(0, 2), self.integer(0, 2)]
            value = self.op.Pad(value, pads)
            shape[2] += pads[2] + pads[6]
            shape[3] += pads[3] + pads[7]
        channels = self.integer(1, 5)
        kernel = self.floats(channels, shape[1], 3, 3)
        bias = [self.floats(channels)] if self.integer(0, 2) else []
        out = (shape[0], channels, shape[2] - 2, shape[3] - 2)
        result = self.op.Conv(value, kernel, *bias, kernel_shape=[3, 3])
        self.keep(result, out)
        if self.integer(0, 2):
            parameters = [self.floats(channels) for _ in range(3)]
            variance = np.abs(self.floats(channels)) + np.float32(0.5)
            self.keep(self.op.BatchNormalization(result, *parameters, variance), out)

    def reduce(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0)
        assert value is not None
        shape = list(self.sizes[value])
        axis = self.integer(0, len(shape))
        name = str(self.random.choice(["ReduceMean", "ReduceSum", "ReduceMax"]))
        shape[axis] = 1
        self.keep(self.op.node(name, [value, [axis]], keepdims=1), tuple(shape))

    def expand(self) -> None:
        value = self.pick(lambda shape: len(shape) > 0)
        assert value is not None
        shape = self.sizes[value]
        wanted = [self.integer(2, 4) if size == 1 else size for size in shape]
        if value.shape is None or any(size == 1 and dim != 1 for size, dim in zip(shape, value.shape, strict=True)):
            return
        self.keep(self.op.Expand(value, self.run_time_shape(value, shape, wanted)), tuple(wanted))

    def grow(self, steps: int) -> None:
        """Take that many steps and hand out some of the values."""
        kinds = [
            self.unary, self.cast, self.with_constant, self.with_constant, self.binary, self.transpose, self.transpose,
            self.reshape, self.reshape, self.reshape, self.squeeze, self.flatten, self.slice, self.slice, self.concat,
            self.split, self.matmul, self.matmul, self.norm, self.conv, self.conv, self.reduce, self.expand,
        ]  # fmt: skip
        for _ in range(steps):
            kinds[self.integer(0, len(kinds))]()
        made = [value for value in self.sizes if value.producer() is not None]
        for place in sorted({len(made) - 1, self.integer(0, len(made)), self.integer(0, len(made))}):
            if not made[place].is_graph_output():
                made[place].shape = None if self.integer(0, 2) else made[place].shape
                self.graph.outputs.append(made[place])


def random_model(seed: int, *, steps: int = 25, dynamic: bool = False) -> Model:
    """A random model; with ``dynamic`` some dims of its inputs are named (at their example sizes N=2, H=5, M=4)."""
    graph = RandomGraph(seed, dynamic=dynamic)
    graph.grow(steps)
    return onnx_ir.Model(graph.graph, ir_version=10)
