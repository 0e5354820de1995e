"""An ONNX file as a graph whose values can be looked at, replaced, and whose parts can be run alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.origin import Origin, origins_of
from graphforge.onnx_io.origins import read_origins
from graphforge.runners.arrays import Array, dtype_name
from graphforge.runners.halves import rounded_throughout
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.runners.runner import Runner

__all__ = ["Alone", "Artifact", "ArtifactNode"]

# External tensors of at most this many bytes are taken into the model that is run.
_SMALL_TENSOR = 1 << 12
# Tensors of at least so many bytes are handed to each session as they lie in memory, and not written into its model.
_LARGE_TENSOR = 1 << 16
_HELD_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True)
class ArtifactNode:
    """A node of the main graph.

    Attributes:
        position: place in topological order.
        name: node name.
        operator: ``Conv``, ``com.microsoft.Gelu``.
        inputs: values that it reads, those that its bodies read from outside included.
        outputs: values that it makes.
        origins: where it came from.
        is_ours: whether its origins are what we wrote; others' names of values may be those of another program.
    """

    position: int
    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origins: tuple[Origin, ...]
    is_ours: bool = True

    def describe(self) -> str:
        """``Softmax node 'attn/Softmax'``."""
        return (
            f"{self.operator} node {self.name or self.outputs[0]!r}"
            if self.name == ""
            else (f"{self.operator} node {self.name!r}")
        )


@dataclass(frozen=True, slots=True)
class Alone:
    """A part of the graph that runs alone.

    Attributes:
        nodes: positions of its nodes.
        given: values that are handed to it, by name.
        wanted: values of it that are asked for.
    """

    nodes: tuple[int, ...]
    given: Mapping[str, Array]
    wanted: tuple[str, ...]


@dataclass(slots=True, weakref_slot=True)
class _Index:
    nodes: list[ArtifactNode] = field(default_factory=list)
    producer: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=dict)


class Artifact:
    """The main graph of an ONNX file.

    Args:
        source: how to run it in ONNX Runtime: its model, threads and configuration.
        graph_runner: what runs a graph, weights in it, in another runtime; None takes ONNX Runtime.

    Raises:
        GraphForgeError: it is not an ONNX file, or its external data cannot be read.
    """

    def __init__(self, source: OnnxRuntimeRunner, graph_runner: Callable[[bytes], Runner] | None = None) -> None:
        self.source = source
        self.graph_runner = graph_runner
        self.proto, self.folder = _proto_of(source)
        self._held: dict[str, tuple[Array, Any]] = {}
        if graph_runner is not None and self.folder is not None:
            onnx.load_external_data_for_model(self.proto, str(self.folder))
        elif not isinstance(source.model, onnx.ModelProto):  # that one is the caller's
            self._held = _taken_out(self.proto)
        self.constants = {tensor.name for tensor in self.proto.graph.initializer}
        self.constants |= {tensor.values.name for tensor in self.proto.graph.sparse_initializer}
        self.inputs = tuple(one.name for one in self.proto.graph.input if one.name not in self.constants)
        self.outputs = tuple(one.name for one in self.proto.graph.output)

    @cached_property
    def _index(self) -> _Index:
        index = _Index()
        twins = list(ir.from_proto(self.proto).graph)
        for position, (node, twin) in enumerate(zip(self.proto.graph.node, twins, strict=True)):
            read_origins(twin)
            operator = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
            read = tuple(_read_by(node))
            made = tuple(name for name in node.output if name)
            ours = any(entry.key.startswith("graphforge.") for entry in node.metadata_props)
            index.nodes.append(ArtifactNode(position, node.name, operator, read, made, origins_of(twin), ours))
            index.producer.update(dict.fromkeys(made, position))
            for name in read:
                index.readers.setdefault(name, []).append(position)
        return index

    @property
    def nodes(self) -> list[ArtifactNode]:
        """The nodes in topological order."""
        return self._index.nodes

    @property
    def producer(self) -> dict[str, int]:
        """Value -> position of the node that makes it."""
        return self._index.producer

    @property
    def readers(self) -> dict[str, list[int]]:
        """Value -> positions of the nodes that read it."""
        return self._index.readers

    @property
    def has_origins(self) -> bool:
        """Whether some node says which program's value or source line it stands for."""
        return any(origin.file or origin.module_class for node in self.nodes for origin in node.origins)

    def constant(self, name: str) -> Array | None:
        """The elements of an initializer; None where there is none of that name."""
        found = (self.elements_of(tensor) for tensor in self.proto.graph.initializer if tensor.name == name)
        return next(found, None)

    def arrays(self) -> dict[str, Array]:
        """All initializers by name."""
        return {tensor.name: self.elements_of(tensor) for tensor in self.proto.graph.initializer}

    def elements_of(self, tensor: onnx.TensorProto) -> Array:
        """The elements of one of the initializers."""
        if tensor.name in self._held:
            return self._held[tensor.name][0]
        found: Array = onnx.numpy_helper.to_array(tensor, str(self.folder or ""))
        return found

    def feeds(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The given inputs under the file's names: by name, or by position where the names are others.

        Raises:
            GraphForgeError: there are fewer than the file takes, or one has another size or element type.
        """
        by_name = set(self.inputs) <= set(given)
        other = (
            f"the file takes {', '.join(self.inputs)}, the model {', '.join(given)}: was it compiled from this model?"
        )
        if len(given) < len(self.inputs):
            raise GraphForgeError(other)
        placed = given if by_name else dict(zip(self.inputs, given.values(), strict=False))
        mine = {name: placed[name] for name in self.inputs}
        for value in self.proto.graph.input:
            misfit = _misfit(value, mine[value.name]) if value.name in mine else ""
            if misfit:
                way_out = "give inputs of the file's size, or compile the model for a range of sizes"
                raise GraphForgeError(misfit, way_out if by_name else other)
        return mine

    # -- running -------------------------------------------------------------------------------------------------------

    def run(
        self, wanted: Collection[str], feeds: Mapping[str, Array], replaced: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """The wanted values of one run.

        Args:
            wanted: names of values.
            feeds: inputs under the file's names.
            replaced: values that are given instead of computed.

        Raises:
            GraphForgeError: ONNX Runtime does not run it.
        """
        found, model = self._handing_out(wanted, feeds, replaced or {})
        if not model.graph.output:
            return found
        with closing(self._runner(model)) as session:
            return {**found, **session.run({**feeds, **(replaced or {})})}

    def run_rounded(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs, each node's result in the type that the file has for it.

        Args:
            feeds: inputs under the file's names.

        Raises:
            GraphForgeError: ONNX Runtime does not run it.
        """
        model = ir.from_proto(onnx.shape_inference.infer_shapes(self.proto))
        rounded_throughout(model)
        with closing(self._runner(ir.to_proto(model), optimize=False)) as session:
            return session.run(dict(feeds))

    def each(self, wanted: Collection[str], feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """The wanted values of one run, one by one, so that they are held once only; what is not a tensor is left out.

        Args:
            wanted: names of values.
            feeds: inputs under the file's names.

        Raises:
            GraphForgeError: ONNX Runtime does not run it.
        """
        found, model = self._handing_out(wanted, feeds, {})
        yield from found.items()
        if model.graph.output:
            with closing(self._runner(model)) as session:
                if isinstance(session, OnnxRuntimeRunner):
                    yield from session.run_each(feeds)
                else:
                    yield from session.run(feeds).items()

    def _handing_out(
        self, wanted: Collection[str], feeds: Mapping[str, Array], replaced: Mapping[str, Array]
    ) -> tuple[dict[str, Array], onnx.ModelProto]:
        """What needs no run, and the model whose outputs are the rest."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        del model.graph.output[:]
        if replaced:
            taken = [_output_renamed(node, replaced) for node in model.graph.node]
            del model.graph.node[:]
            model.graph.node.extend(taken)
            model.graph.input.extend(_declared(name, array) for name, array in replaced.items())
        typed = {one.name: one for one in self.proto.graph.output}
        names = [name for name in wanted if name not in self.constants and name not in self.inputs]
        model.graph.output.extend(
            typed[name] if name in typed else onnx.ValueInfoProto(name=name) for name in names if name not in replaced
        )
        found = {name: replaced[name] for name in names if name in replaced}
        return found | {name: feeds[name] for name in wanted if name in feeds}, model

    def run_each(self, parts: Sequence[Alone], feeds: Mapping[str, Array]) -> list[dict[str, Array] | None]:
        """As ``run_alone``, with None for a part that does not even run on what it is given."""
        try:
            return list(self.run_alone(parts, feeds))
        except GraphForgeError:
            if len(parts) == 1:
                return [None]
            return [self.run_each([part], feeds)[0] for part in parts]

    def run_alone(self, parts: Sequence[Alone], feeds: Mapping[str, Array]) -> list[dict[str, Array]]:
        """What each part makes of what it is given, all parts in one session.

        Raises:
            GraphForgeError: ONNX Runtime does not run one of them.
        """
        graph = onnx.GraphProto(name="parts")
        given: dict[str, Array] = dict(feeds)
        used: set[str] = set()
        wanted: list[dict[str, str]] = []
        for number, part in enumerate(parts):
            names = {name: f"part{number}/{name}" for name in part.given}
            for position in part.nodes:
                made = self.nodes[position].outputs
                names |= {name: f"part{number}/{name}" for name in made if name not in part.given}
            for position in part.nodes:
                node = onnx.NodeProto()
                node.CopyFrom(self.proto.graph.node[position])
                node.name = f"part{number}/{position}/{node.name}"
                _rename(node, names)
                hidden = [
                    f"unused/{number}/{name}" if name in part.given else names.get(name, name)
                    for name in self.proto.graph.node[position].output
                ]
                del node.output[:]
                node.output.extend(hidden)
                graph.node.append(node)
                used.update(self.nodes[position].inputs)
            for name, array in part.given.items():
                given[names[name]] = array
                graph.input.append(_declared(names[name], array))
            wanted.append({name: names[name] for name in part.wanted})
        graph.input.extend(one for one in self.proto.graph.input if one.name in used and one.name not in self.constants)
        graph.initializer.extend(one for one in self.proto.graph.initializer if one.name in used)
        graph.sparse_initializer.extend(one for one in self.proto.graph.sparse_initializer if one.values.name in used)
        graph.output.extend(
            onnx.ValueInfoProto(name=name) for names in wanted for name in dict.fromkeys(names.values())
        )
        model = onnx.ModelProto(ir_version=self.proto.ir_version, graph=graph)
        model.opset_import.extend(self.proto.opset_import)
        model.functions.extend(self.proto.functions)
        with closing(self._runner(model)) as session:
            found = session.run(given)
        return [{name: found[full] for name, full in names.items()} for names in wanted]

    def _runner(self, model: onnx.ModelProto, *, optimize: bool = True) -> Runner:
        if self.graph_runner is not None:
            return self.graph_runner(model.SerializeToString())
        held = {one.name: self._held[one.name][1] for one in model.graph.initializer if one.name in self._held}

        def configure(options: Any) -> None:
            if self.source.configure is not None:
                self.source.configure(options)
            # One run and no other: an arena would take memory in steps that double.
            options.enable_cpu_mem_arena = options.enable_mem_pattern = False
            if held:
                options.add_external_initializers(list(held), list(held.values()))
            if self.folder is not None:
                key = "session.model_external_initializers_file_folder_path"
                options.add_session_config_entry(key, str(self.folder))

        return OnnxRuntimeRunner(
            model.SerializeToString(),
            threads=self.source.threads,
            optimize=optimize and self.source.optimize,
            configure=configure,
            name=self.source.name,
        )

    # -- walking -------------------------------------------------------------------------------------------------------

    def part_before(self, values: Iterable[str], given: Collection[str]) -> tuple[tuple[int, ...], set[str]]:
        """The nodes that make ``values`` out of ``given`` ones and the inputs, and which of those they read."""
        nodes: set[int] = set()
        read: set[str] = set()
        waiting = [self.producer[name] for name in values if name in self.producer]
        while waiting:
            position = waiting.pop()
            if position in nodes:
                continue
            nodes.add(position)
            for name in self.nodes[position].inputs:
                if name in given:
                    read.add(name)
                elif name in self.producer:
                    waiting.append(self.producer[name])
        return tuple(sorted(nodes)), read


def _misfit(value: onnx.ValueInfoProto, array: Array) -> str:
    """How an input has another size or element type than the file's, "" where it has not."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return ""
    expected = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else ""
    if expected and expected not in (dtype_name(array), "object"):
        return f"input {value.name!r}: the file takes {expected}, and {dtype_name(array)} is given"
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
    fixed = [(dim, size) for dim, size in zip(dims, array.shape, strict=False) if isinstance(dim, int)]
    if len(dims) == array.ndim and all(dim == size for dim, size in fixed):
        return ""
    taken, given = ("x".join(map(str, sizes)) or "a single number" for sizes in (dims, array.shape))
    return f"input {value.name!r}: the file takes {taken}, and {given} is given"


def _declared(name: str, array: Array) -> onnx.ValueInfoProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, element, list(array.shape))


def _output_renamed(node: onnx.NodeProto, replaced: Collection[str]) -> onnx.NodeProto:
    if not any(name in replaced for name in node.output):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    names = [f"computed/{name}" if name in replaced else name for name in node.output]
    del copy.output[:]
    copy.output.extend(names)
    return copy


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give the values that a node and its bodies read other names."""
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for graph in _bodies(node):
        for inner in graph.node:
            _rename(inner, names)
        for value in graph.output:
            value.name = names.get(value.name, value.name)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _read_by(node: onnx.NodeProto) -> dict[str, None]:
    """Values that a node reads, those that its bodies take from outside included."""
    names = dict.fromkeys(name for name in node.input if name)
    for graph in _bodies(node):
        inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        inside |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            names.update(dict.fromkeys(name for name in _read_by(inner) if name not in inside))
        names.update(dict.fromkeys(value.name for value in graph.output if value.name not in inside))
    return names


def _proto_of(runner: OnnxRuntimeRunner) -> tuple[onnx.ModelProto, Path | None]:
    """The model without its external data, and the folder where that data lies."""
    model = runner.model
    if isinstance(model, str | Path):
        path = Path(model)
        if not path.is_file():
            raise GraphForgeError(f"no file {path}")
        try:
            proto = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's own DecodeError, from one of several implementations
            raise GraphForgeError(f"{path} is not an ONNX file: {error}") from None
        _load_small_tensors(proto, path.resolve().parent)
        return proto, path.resolve().parent
    if isinstance(model, bytes):
        return onnx.load_from_string(model), None
    if isinstance(model, onnx.ModelProto):
        return model, None
    return ir.to_proto(model), None


def _taken_out(proto: onnx.ModelProto) -> dict[str, tuple[Array, Any]]:
    """Large tensors with their data in the model: their elements, and these as the runtime takes them.

    Written into each model that is run they would be copied three times over.  One that nothing reads stays: the
    runtime drops it, and then refuses to be given it.
    """
    from onnxruntime import OrtValue

    read = {name for node in proto.graph.node for name in _read_by(node)}
    handed_out = {value.name for value in [*proto.graph.output, *proto.graph.input]}
    held: dict[str, tuple[Array, Any]] = {}
    for tensor in proto.graph.initializer:
        large = len(tensor.raw_data) >= _LARGE_TENSOR and tensor.data_type in _HELD_TYPES
        if not large or tensor.name not in read or tensor.name in handed_out:
            continue
        array = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor))
        held[tensor.name] = array, OrtValue.ortvalue_from_numpy(array)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="handed over in memory")
    return held


def _load_small_tensors(proto: onnx.ModelProto, folder: Path) -> None:
    """Axes, shapes and other small constants: the runtime's shape inference wants their data inside the model."""
    from onnx.checker import ValidationError
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    for tensor in proto.graph.initializer:
        if not uses_external_data(tensor):
            continue
        length = next((int(entry.value) for entry in tensor.external_data if entry.key == "length"), None)
        if length is not None and length <= _SMALL_TENSOR:
            try:
                load_external_data_for_tensor(tensor, str(folder))
            except (OSError, ValueError, ValidationError) as error:
                raise GraphForgeError(f"the external data of {tensor.name} cannot be read: {error}") from None
            tensor.data_location = tensor.DEFAULT
            del tensor.external_data[:]


def size_of(array: Array) -> int:
    """Its bytes as they would lie in memory."""
    return int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize


def same_kind(one: Array, other: Array) -> bool:
    """Whether two arrays hold numbers of one sort: floats of any width, whole numbers of any width, or bools."""
    return _kind(one) == _kind(other)


def _kind(array: Array) -> str:
    name = dtype_name(array)
    return "float" if "float" in name else "bool" if name == "bool" else "int" if "int" in name else name
