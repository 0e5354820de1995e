"""Random ONNX graphs at random opsets that ONNX Runtime runs at every promised size, and ways to make one smaller."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from scripts.fuzz_values import NoChoiceError, Values

__all__ = ["Graph", "draw_graph", "shorter"]

_TRIES = 60
_BIG = np.zeros(9)
_LIMIT = 4_000  # elements of a value
_LARGEST = 1e3  # magnitude of a value: beyond it rounding says more than the graph
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Node:
    """One node; its result has the name of the node.

    Attributes:
        name: of the node and its (first) output.
        operator: its type.
        inputs: names; "" is one left out.
        attributes: by name.
        outputs: how many; the further ones are called NAME_1, ...
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    outputs: int = 1


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph and how it is called.

    Attributes:
        opset: of the default domain.
        inputs: name -> (element type, sizes); a size that is text names a dynamic dim.
        constants: name -> array.
        nodes: in order.
        outputs: names.
        dims: name of a dynamic dim -> (lowest, highest) promised size.
        seed: of everything that is drawn.
    """

    opset: int
    inputs: dict[str, tuple[str, tuple[int | str, ...]]]
    constants: dict[str, np.ndarray]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    dims: dict[str, tuple[int, int]]
    seed: int

    def model(self, outputs: tuple[str, ...] | None = None) -> onnx.ModelProto:
        """The file; unused constants are left out."""
        names = self.outputs if outputs is None else outputs
        nodes = [
            helper.make_node(
                node.operator,
                list(node.inputs),
                [node.name, *[f"{node.name}_{number}" for number in range(1, node.outputs)]],
                name=node.name,
                **node.attributes,
            )
            for node in self.nodes
        ]
        used = {name for node in self.nodes for name in node.inputs}
        graph = helper.make_graph(
            nodes,
            "fuzz",
            [helper.make_tensor_value_info(name, _TYPES[kind], sizes) for name, (kind, sizes) in self.inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in names],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items() if name in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        inferred = onnx.shape_inference.infer_shapes(model)
        kinds = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
        del model.graph.output[:]
        for name in names:
            model.graph.output.append(kinds[name] if name in kinds else onnx.ValueInfoProto(name=name))
        return model

    def session(self, outputs: tuple[str, ...] | None = None) -> onnxruntime.InferenceSession:
        """ONNX Runtime on the graph as it is, without optimisations."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(
            self.model(outputs).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def feeds(self) -> Iterator[dict[str, np.ndarray]]:
        """Inputs at every promised combination of sizes."""
        ranges = [range(low, high + 1) for low, high in self.dims.values()]
        for sizes in itertools.product(*ranges):
            yield self._feed(dict(zip(self.dims, sizes, strict=True)))

    def spec(self) -> dict[str, np.ndarray]:
        """The example: the largest promised sizes."""
        return self._feed({name: high for name, (_, high) in self.dims.items()})

    def dynamic(self) -> dict[str, dict[int, tuple[int, int]]]:
        """Input name -> axis -> promised sizes."""
        found = {
            name: {axis: self.dims[size] for axis, size in enumerate(sizes) if isinstance(size, str)}
            for name, (_, sizes) in self.inputs.items()
        }
        return {name: axes for name, axes in found.items() if axes}

    def _feed(self, sizes: dict[str, int]) -> dict[str, np.ndarray]:
        return {
            name: _array(
                np.random.default_rng(self.seed + number), kind, [sizes.get(str(size), size) for size in shape]
            )
            for number, (name, (kind, shape)) in enumerate(self.inputs.items())
        }

    def text(self) -> str:
        """To read."""
        lines = [f"opset {self.opset}, {self.inputs}, {self.dims}"]
        for node in self.nodes:
            given = [
                f"{name}={self.constants[name].tolist()}"
                if name in self.constants and self.constants[name].size < 9
                else name
                for name in node.inputs
            ]
            lines.append(f"{node.name} = {node.operator}({', '.join(given)}) {node.attributes or ''}")
        return "\n".join([*lines, f"return {', '.join(self.outputs)}"]) + "\n"


def _array(rng: np.random.Generator, kind: str, sizes: Any) -> np.ndarray:
    drawn = rng.standard_normal(sizes)
    if kind == "bool":
        return np.asarray(drawn > 0)
    return np.asarray(drawn * 3 if kind == "int64" else drawn).astype(kind)


def draw_graph(seed: int) -> Graph:
    """A graph of up to a dozen nodes; the same for the same seed."""
    rng = random.Random(seed)
    dims = {"n": rng.choice(((1, 5), (2, 6), (3, 7)))} if rng.random() < 0.7 else {}
    inputs: dict[str, tuple[str, tuple[int | str, ...]]] = {}
    for name in ("x", "y")[: rng.choice((1, 1, 2))]:
        rank = rng.choice((1, 2, 3, 3, 4, 4))
        shape: list[int | str] = [rng.choice((1, 2, 3, 4, 5)) for _ in range(rank)]
        if dims and rng.random() < 0.8:
            shape[rng.randrange(rank)] = "n"
        inputs[name] = (rng.choice(("float32",) * 6 + ("float64", "int64", "bool")), tuple(shape))
    used = {size for _, shape in inputs.values() for size in shape}
    dims = {name: span for name, span in dims.items() if name in used}
    graph = Graph(rng.choice((11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)), inputs, {}, (), (), dims, seed)
    wanted = rng.randint(2, 10)
    for _ in range(_TRIES):
        if len(graph.nodes) >= wanted:
            break
        longer = _with_a_node(graph, rng)
        if longer is not None:
            graph = longer
    names = [node.name for node in graph.nodes]
    if not names:
        graph = replace(graph, nodes=(Node("v0", "Identity", (next(iter(inputs)),), {}),))
        names = ["v0"]
    more = [name for name in names[:-1] if rng.random() < 0.25]
    return replace(graph, outputs=tuple(dict.fromkeys([*more, names[-1]])))


def _values(graph: Graph) -> list[dict[str, np.ndarray]] | None:
    """Every value at every promised size; None when the runtime or the checker refuses the graph."""
    names = tuple(
        name for node in graph.nodes for name in (node.name, *[f"{node.name}_{n}" for n in range(1, node.outputs)])
    )
    try:
        if not names:
            return [dict(feeds) for feeds in graph.feeds()]
        onnx.checker.check_model(graph.model(names[-1:]), full_check=True)
        session = graph.session(names)
        found = []
        for feeds in graph.feeds():
            values = dict(feeds) | dict(zip(names, session.run(None, feeds), strict=True))
            for value in values.values():
                if value.size > _LIMIT or (value.dtype.kind == "f" and not (np.abs(value) < _LARGEST).all()):
                    return None
            found.append(values)
    except Exception:  # whatever the runtime says: such a graph is not a test
        return None
    return found


def shorter(graph: Graph) -> Iterator[Graph]:
    """Smaller graphs that the runtime still takes."""
    if len(graph.outputs) > 1:
        for name in graph.outputs:
            yield replace(graph, outputs=(name,))
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    for position in reversed(range(len(graph.nodes))):
        node = graph.nodes[position]
        rest = graph.nodes[:position] + graph.nodes[position + 1 :]
        if node.name not in read and not any(f"{node.name}_{n}" in read for n in range(1, node.outputs)):
            yield replace(graph, nodes=rest)
            continue
        if node.name in graph.outputs or not node.inputs or node.inputs[0] in graph.constants:
            continue
        instead = tuple(
            replace(other, inputs=tuple(node.inputs[0] if name == node.name else name for name in other.inputs))
            for other in rest
        )
        candidate = replace(graph, nodes=instead)
        if _values(candidate) is not None:
            yield candidate
    for node in reversed(graph.nodes):
        if node.name not in graph.outputs:
            yield replace(graph, outputs=(node.name,))


class _Draw(Values):
    """What a node is drawn from: the values so far, at every size."""

    def __init__(self, graph: Graph, values: list[dict[str, np.ndarray]], rng: random.Random) -> None:
        super().__init__(values, rng)
        self.graph = graph
        self.opset = graph.opset
        self.constants = dict(graph.constants)

    def pick(self, kinds: str = "f", least: int = 0, most: int = 9) -> str:
        """The name of a value of these kinds (f, i, b) and rank; later ones more often."""
        fits = [
            name for name, value in self.values[0].items() if value.dtype.kind in kinds and least <= value.ndim <= most
        ]
        return self.choose(fits)

    def of(self, name: str) -> np.ndarray:
        """Its value at one size."""
        value: np.ndarray = self.values[0][name]
        return value

    def constant(self, array: Any) -> str:
        """A new constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def numbers(self, *values: int) -> str:
        """A new constant of integers."""
        return self.constant(np.array(values, np.int64))

    def weight(self, like: str, *sizes: int) -> str:
        """A new constant with the element type of a value."""
        rng = np.random.default_rng(self.graph.seed + 100 + len(self.constants))
        return self.constant(rng.standard_normal(sizes).astype(self.of(like).dtype))


Made = tuple[str, list[str], dict[str, Any]]


def _with_a_node(graph: Graph, rng: random.Random) -> Graph | None:
    values = _values(graph)
    if values is None:
        return None
    draw = _Draw(graph, values, rng)
    try:
        operator, inputs, attributes = rng.choice(_MAKERS)(draw)
    except NoChoiceError:
        return None
    outputs = attributes.pop("_outputs", 1)
    node = Node(f"v{len(graph.nodes)}", operator, tuple(inputs), attributes, outputs)
    longer = replace(graph, nodes=(*graph.nodes, node), constants=draw.constants)
    return longer if _values(longer) is not None else None


def _unary(d: _Draw) -> Made:
    a = d.pick("f")
    return d.rng.choice(_UNARY), [a], {}


_UNARY = (
    "Relu Sigmoid Tanh Abs Neg Floor Ceil Round Erf Exp Sin Cos Atan Softplus Softsign Identity Sign "
    "Reciprocal Elu Selu HardSigmoid LeakyRelu"
).split()


def _with_attributes(d: _Draw) -> Made:
    a = d.pick("f")
    return d.rng.choice(
        (
            ("LeakyRelu", [a], {"alpha": 0.3}),
            ("Elu", [a], {"alpha": 0.7}),
            ("Clip", [a, d.constant(np.array(-1, d.of(a).dtype)), d.constant(np.array(1, d.of(a).dtype))], {}),
            ("Clip", [a, "", d.constant(np.array(0.5, d.of(a).dtype))], {}),
            ("HardSigmoid", [a], {"alpha": 1 / 6, "beta": 0.5}),
            ("ThresholdedRelu", [a], {"alpha": 0.5}),
            ("Shrink", [a], {"lambd": 0.3, "bias": 0.1}),
        )
    )


def _binary(d: _Draw) -> Made:
    a = d.pick("fi")
    same = [n for n, v in d.values[0].items() if v.dtype == d.of(a).dtype]
    b = d.rng.choice(same) if d.rng.random() < 0.7 else d.constant(np.array(d.rng.choice((1, 2, 3)), d.of(a).dtype))
    return d.rng.choice("Add Sub Mul Mul Div Max Min Less Greater Equal".split()), [a, b], {}


def _where(d: _Draw) -> Made:
    a = d.pick("f")
    condition = d.rng.choice([n for n, v in d.values[0].items() if v.dtype.kind == "b"] or [""])
    if not condition:
        raise NoChoiceError
    return "Where", [condition, a, d.constant(np.array(0.5, d.of(a).dtype))], {}


def _logic(d: _Draw) -> Made:
    a = d.pick("b")
    return d.rng.choice(
        (("Not", [a], {}), ("And", [a, d.pick("b")], {}), ("Or", [a, d.pick("b")], {}), ("Xor", [a, a], {}))
    )


def _reduce(d: _Draw) -> Made:
    a = d.pick("f", 1)
    keep = d.rng.choice((0, 1))
    axis = d.axis(a)
    operator = d.rng.choice(
        "ReduceSum ReduceMean ReduceMax ReduceMin ReduceL2 ReduceLogSumExp ReduceProd ReduceL1".split()
    )
    as_input = d.opset >= (13 if operator == "ReduceSum" else 18)
    if d.rng.random() < 0.2:
        return operator, [a], {"keepdims": keep}
    if as_input:
        return operator, [a, d.numbers(axis)], {"keepdims": keep}
    return operator, [a], {"keepdims": keep, "axes": [axis]}


def _along(d: _Draw) -> Made:
    a = d.pick("f", 1)
    axis = d.axis(a)
    return d.rng.choice(
        (
            ("Softmax", [a], {"axis": axis}),
            ("LogSoftmax", [a], {"axis": axis}),
            ("ArgMax", [a], {"axis": axis, "keepdims": d.rng.choice((0, 1))}),
            ("CumSum", [a, d.constant(np.array(axis, np.int64))], {"reverse": d.rng.choice((0, 1))}),
            ("Concat", [a, a], {"axis": axis}),
            ("TopK", [a, d.numbers(1)], {"axis": axis, "_outputs": 2}),
            ("Flatten", [a], {"axis": axis}),
        )
    )


def _moved(d: _Draw) -> Made:
    a = d.pick("fib", 1)
    rank = d.rank(a)
    order = list(range(rank))
    d.rng.shuffle(order)
    axis = d.axis(a)
    top = d.least_size(a, axis)
    if top < 1:
        raise NoChoiceError
    squeezed: Made = ("Unsqueeze", [a, d.numbers(0)], {}) if d.opset >= 13 else ("Unsqueeze", [a], {"axes": [0]})
    halves: Made = ("Split", [a], {"axis": axis, "_outputs": 2} | ({"num_outputs": 2} if d.opset >= 18 else {}))
    return d.rng.choice(
        (
            ("Transpose", [a], {"perm": order}),
            ("Reshape", [a, d.numbers(0, -1) if rank > 1 else d.numbers(-1, 1)], {}),
            ("Reshape", [a, d.numbers(-1)], {}),
            ("Gather", [a, d.numbers(*[d.rng.randrange(-top, top) for _ in range(2)])], {"axis": axis}),
            ("Gather", [a, d.constant(np.array(0, np.int64))], {"axis": axis}),
            (
                "Slice",
                [a, d.numbers(d.rng.choice((0, 1, -2))), d.numbers(d.rng.choice((1 << 40, -1, 2))), d.numbers(axis)],
                {},
            ),
            ("Slice", [a, d.numbers(-1), d.numbers(-(1 << 40)), d.numbers(axis), d.numbers(-1)], {}),
            ("Expand", [a, d.numbers(2, *[1] * rank)], {}),
            ("Tile", [a, d.numbers(*[d.rng.choice((1, 2)) for _ in range(rank)])], {}),
            squeezed,
            halves,
            ("Shape", [a], {}),
            (
                "Cast",
                [a],
                {"to": d.rng.choice((TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE))},
            ),
        )
    )


def _matrix(d: _Draw) -> Made:
    a = d.pick("f", 2)
    last = d.size(a, -1)
    weight = d.weight(a, last, d.rng.randint(1, 5))
    if d.rank(a) == 2 and d.rng.random() < 0.5:
        return (
            "Gemm",
            [a, weight, d.weight(a, 1)],
            {"alpha": d.rng.choice((1.0, 0.5)), "beta": d.rng.choice((1.0, 2.0))},
        )
    return "MatMul", [a, weight], {}


def _window(d: _Draw) -> Made:
    a = d.pick("f", 3, 4)
    rank = d.rank(a) - 2
    pads = [d.rng.choice((0, 1)) for _ in range(2 * rank)]
    if d.rng.random() < 0.6:
        channels = d.size(a, 1)
        groups = d.rng.choice((1, channels))
        weight = d.weight(a, 2 * groups, channels // groups, *[2] * rank)
        given = {"pads": pads, "group": groups, "strides": [d.rng.choice((1, 2))] * rank}
        return "Conv", [a, weight, *([d.weight(a, 2 * groups)] if d.rng.random() < 0.5 else [])], given
    shape = {
        "kernel_shape": [2] * rank,
        "pads": pads,
        "ceil_mode": d.rng.choice((0, 1)),
        "strides": [d.rng.choice((1, 2))] * rank,
    }
    return d.rng.choice(
        (
            ("MaxPool", [a], shape),
            ("AveragePool", [a], shape),
            ("GlobalAveragePool", [a], {}),
            ("GlobalMaxPool", [a], {}),
        )
    )


def _normal(d: _Draw) -> Made:
    a = d.pick("f", 3, 4)
    channels = d.size(a, 1)
    scale, bias, mean = (d.weight(a, channels) for _ in range(3))
    spread = d.constant(np.abs(d.constants[mean]) + 0.5)
    return d.rng.choice(
        (
            ("BatchNormalization", [a, scale, bias, mean, spread], {}),
            ("InstanceNormalization", [a, scale, bias], {}),
        )
    )


def _pad(d: _Draw) -> Made:
    a = d.pick("f", 1)
    rank = d.rank(a)
    pads = [d.rng.choice((0, 0, 1)) for _ in range(2 * rank)]
    mode = d.rng.choice(("constant", "constant", "edge", "reflect"))
    value = [d.constant(np.array(0.5, d.of(a).dtype))] if mode == "constant" and d.rng.random() < 0.5 else []
    return "Pad", [a, d.numbers(*pads), *value], {"mode": mode}


def _resize(d: _Draw) -> Made:
    a = d.pick("f", 4, 4)
    scale = d.constant(np.array([1, 1, d.rng.choice((2, 1.5, 0.5)), d.rng.choice((2, 1.5))], np.float32))
    mode = d.rng.choice(("nearest", "linear", "cubic"))
    where = d.rng.choice(("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"))
    given = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        given["nearest_mode"] = d.rng.choice(("floor", "round_prefer_floor", "ceil"))
    roi = d.constant(np.zeros(0, np.float32)) if d.opset < 13 else ""
    return "Resize", [a, roi, scale], given


_MAKERS: list[Callable[[_Draw], Made]] = [
    *[_unary] * 2,
    *[_binary] * 3,
    *[_reduce] * 2,
    *[_along] * 2,
    *[_moved] * 4,
    *[_matrix] * 2,
    *[_window] * 3,
    *[_with_attributes, _where, _logic, _normal, _pad, _resize],
]
