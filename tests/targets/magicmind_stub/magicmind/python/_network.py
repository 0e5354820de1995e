"""Stand-in: Network and what the ONNX importer makes of a file.  Nothing was run on an MLU."""

# ruff: noqa: B905 - the stand-in runs on Python 3.7 too, whose zip has no strict
from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
import onnx

from . import _log
from ._types import DataType, Dims, ModelKind, Status, answer, datatype_of

# Opsets seen in samples; 13 and above are refused, the rest was never seen.
_OPSETS = (7, 10, 11, 12)
# Operators whose axes the importer takes as attributes only.
_SINGLE_OPERAND = ("Squeeze", "Unsqueeze", "ReduceSum", "Split")
_REFUSED = (
    "CumSum DeformConv Scan SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength "
    "SplitToSequence ConcatFromSequence StringNormalizer TfIdfVectorizer"
).split()


class ITensor:
    """A tensor of the network."""

    __slots__ = ("_consumers", "_dims", "_dtype", "_is_input", "_name", "_onnx_dims", "_producer", "is_set")

    def __init__(self, name: str, dtype: DataType, dims: Sequence[int], *, is_input: bool = False) -> None:
        self._name, self._dtype, self._is_input = name, dtype, is_input
        self._dims, self._onnx_dims, self.is_set = list(dims), list(dims), False
        self._consumers: list[INode] = []
        self._producer: INode | None = None

    def get_tensor_name(self) -> str:
        """Its name."""
        return self._name

    def get_data_type(self) -> DataType:
        """Its type."""
        return self._dtype

    def get_dimension(self) -> Dims:
        """Its sizes."""
        return Dims(self._dims)

    def get_consumers(self) -> list[INode]:
        """The nodes that read it."""
        return list(self._consumers)

    def get_producer(self) -> INode | None:
        """The node that computes it."""
        return self._producer

    def set_dimension(self, dims: Dims) -> Status:
        """Fix the sizes of an input; those that the file fixes cannot change."""
        if not isinstance(dims, Dims):
            raise TypeError(f"set_dimension takes Dims, got {type(dims).__name__}")
        sizes, problem = dims.GetDims(), None
        if not self._is_input:
            problem = f"{self._name} is no input"
        elif len(sizes) != len(self._onnx_dims):
            problem = f"{self._name} has rank {len(self._onnx_dims)}, got {sizes}"
        elif any(size < 1 for size in sizes):
            problem = f"{self._name}: sizes are at least 1, got {sizes}"
        elif any(fixed not in (-1, size) for fixed, size in zip(self._onnx_dims, sizes)):
            problem = f"{self._name} is {self._onnx_dims} in the file, got {sizes}"
        else:
            self._dims, self.is_set = sizes, True
        return answer("set_dimension", problem)

    def set_data_type(self, dtype: DataType) -> Status:
        """Set the type of an input."""
        if not isinstance(dtype, DataType):
            raise TypeError(f"set_data_type takes a DataType, got {type(dtype).__name__}")
        if not self._is_input:
            return answer("set_data_type", f"{self._name} is no input")
        self._dtype = dtype
        return answer("set_data_type")


class INode:
    """A node of the network."""

    __slots__ = ("_inputs", "_name", "_outputs", "_type", "output_types", "precisions")

    def __init__(self, name: str, kind: str, inputs: list[ITensor], outputs: list[ITensor]) -> None:
        self._name, self._type, self._inputs, self._outputs = name, kind, inputs, outputs
        self.precisions: dict[int, DataType] = {}
        self.output_types: dict[int, DataType] = {}

    def get_node_name(self) -> str:
        """Its name, which is that of the ONNX node."""
        return self._name

    def get_node_type(self) -> str:
        """Its kind, ``IConvNode``."""
        return self._type

    def get_input_count(self) -> int:
        """How many tensors it reads."""
        return len(self._inputs)

    def get_output_count(self) -> int:
        """How many tensors it computes."""
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        """A tensor it reads."""
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        """A tensor it computes."""
        return self._outputs[index]

    def set_precision(self, index: int, dtype: DataType) -> Status:
        """Compute with this input in this type."""
        return self._pin("set_precision", self.precisions, self._inputs, index, dtype)

    def set_output_type(self, index: int, dtype: DataType) -> Status:
        """Hand this output out in this type."""
        return self._pin("set_output_type", self.output_types, self._outputs, index, dtype)

    def _pin(self, what: str, pins: dict[int, DataType], tensors: list[ITensor], index: int, dtype: DataType) -> Status:
        if not isinstance(dtype, DataType):
            raise TypeError(f"{what} takes a DataType, got {type(dtype).__name__}")
        if not 0 <= index < len(tensors):
            return answer(what, f"{self._name} has no tensor {index}")
        if tensors[index].get_data_type() not in (DataType.FLOAT16, DataType.FLOAT32):
            return answer(what, f"tensor {index} of {self._name} is no float")
        pins[index] = dtype
        return answer(what)


class Network:
    """An empty network, filled by a Parser."""

    __slots__ = ("_inputs", "_nodes", "_outputs", "model")

    def __init__(self) -> None:
        self.model: onnx.ModelProto | None = None
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self._nodes: list[INode] = []

    def get_input_count(self) -> int:
        """How many inputs, weights not counted."""
        return len(self._inputs)

    def get_output_count(self) -> int:
        """How many outputs."""
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        """An input, in the order of the file."""
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        """An output, in the order of the file."""
        return self._outputs[index]

    def get_all_nodes_in_network(self) -> list[INode]:
        """All nodes."""
        return list(self._nodes)

    def find_node_by_name(self, name: str) -> INode | None:
        """The node of that name."""
        return next((node for node in self._nodes if node.get_node_name() == name), None)

    def at(self, dims: dict[str, Sequence[int]]) -> onnx.ModelProto:
        """For the stand-in's own use: the model with its inputs at these sizes, shapes inferred and checked."""
        assert self.model is not None
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.value_info[:]
        for value in model.graph.input:
            if value.name in dims:
                del value.type.tensor_type.shape.dim[:]
                for size in dims[value.name]:
                    value.type.tensor_type.shape.dim.add().dim_value = size
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


class Parser:
    """Reads a model file into a Network."""

    __slots__ = ("_kind",)

    def __init__(self, kind: ModelKind) -> None:
        if not isinstance(kind, ModelKind):
            raise TypeError(f"Parser takes a ModelKind, got {type(kind).__name__}")
        self._kind = kind

    def set_model_param(self, name: str, value: object) -> Status:
        """Parameters of other formats; the ONNX parser takes none."""
        return answer("set_model_param", f"the stand-in knows no parameter {name!r}")

    def parse(self, network: Network, path: str) -> Status:
        """Read an ONNX file."""
        if not isinstance(network, Network) or not isinstance(path, str):
            raise TypeError("parse takes a Network and a path as text")
        if self._kind is not ModelKind.kOnnx:
            return answer("parse", f"the stand-in reads ONNX only, not {self._kind.name}")
        try:
            model = onnx.load(path, load_external_data=False)
            onnx.checker.check_model(path, full_check=True)
        except Exception as error:  # protobuf, checker and inference raise kinds of their own
            return answer("parse", f"not a valid ONNX model: {error}")
        problem = _import_problem(model)
        if problem is None:
            _fill(network, model)
        return answer("parse", problem)


def _import_problem(model: onnx.ModelProto) -> str | None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    names = collections.Counter(node.name for node in model.graph.node)
    if model.functions:
        return "Onnx mlir graph is illegal: it has local functions"
    for node in _all_nodes(model.graph):
        if node.domain not in ("", "ai.onnx"):
            return f"Onnx mlir graph is illegal: '{node.domain}.{node.op_type}' is not registered"
        if node.op_type in _SINGLE_OPERAND and len(node.input) > 1:
            return f"Failed to verify onnx mlir module: 'onnx.{node.op_type}' op requires a single operand"
        if node.op_type in _REFUSED:
            return f"Onnx mlir graph is illegal: 'onnx.{node.op_type}' has no conversion"
    if opset not in _OPSETS:
        return f"opset {opset} is not supported"
    if "" in names or max(names.values(), default=1) > 1:
        return "node names are missing or not unique"
    if any(entry.data_location == onnx.TensorProto.EXTERNAL for entry in model.graph.initializer):
        return "weights lie outside the file"
    return None


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for body in bodies:
                nodes += _all_nodes(body)
    return nodes


def _fill(network: Network, model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    weights = {entry.name: entry for entry in inferred.graph.initializer}
    tensors: dict[str, ITensor] = {}
    inputs = [value for value in inferred.graph.input if value.name not in weights]
    input_names = {value.name for value in inputs}
    for value in (*inputs, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
        dtype = datatype_of(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        tensors[value.name] = ITensor(value.name, dtype, sizes, is_input=value.name in input_names)
    for name, weight in weights.items():
        dtype = datatype_of(onnx.helper.tensor_dtype_to_np_dtype(weight.data_type))
        tensors[name] = ITensor(name, dtype, list(weight.dims))
    for node in inferred.graph.node:
        reads = [tensors.setdefault(name, ITensor(name, DataType.FLOAT32, [])) for name in node.input if name]
        makes = [tensors.setdefault(name, ITensor(name, DataType.FLOAT32, [])) for name in node.output if name]
        made = INode(node.name, f"I{node.op_type}Node", reads, makes)
        network._nodes.append(made)
        for tensor in reads:
            tensor._consumers.append(made)
        for tensor in makes:
            tensor._producer = made
    network._inputs = [tensors[value.name] for value in inputs]
    network._outputs = [tensors[value.name] for value in inferred.graph.output]
    network.model = model


def wide_problem(model: onnx.ModelProto, *, converts: bool) -> str | None:
    """What 64-bit values of a model make impossible."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    kinds = {
        value.type.tensor_type.elem_type
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    } | {entry.data_type for entry in inferred.graph.initializer}
    if onnx.TensorProto.DOUBLE in kinds:
        return "float64 is not computed"
    if onnx.TensorProto.INT64 in kinds and not converts:
        return "64-bit data is not supported; type64to32_conversion is off"
    limits = np.iinfo(np.int32)
    bounds = {name for node in model.graph.node if node.op_type == "Slice" for name in node.input[1:]}
    for entry in model.graph.initializer:
        if entry.data_type != onnx.TensorProto.INT64:
            continue
        values = onnx.numpy_helper.to_array(entry)
        if values.size == 0 or limits.min <= values.min() <= values.max() <= limits.max:
            continue
        if entry.name not in bounds:
            return f"constant {entry.name} overflows in the conversion to 32 bits"
        _log.complain(f"warning: bound {entry.name} of a Slice is cut to 32 bits")
    return None
