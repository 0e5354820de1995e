"""Parts of an ONNX file as files of their own: some of its nodes, fed with what the whole computes in their place.

The file is taken as it is, opset, names and domains included: what fails in one form need not fail in another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array

__all__ = ["Part", "Whole", "load_arrays", "save_arrays"]

# protobuf refuses messages of 2 GiB; above this the weights go beside the model.
_EXTERNAL_BYTES = 1_900_000_000
# The arrays of a folder, and the names of element types that numpy's file format does not know.
_ARRAYS, _TYPES = "inputs.npz", "inputs.types"

# The values of these names, from the inputs of a model.
Compute = Callable[[onnx.ModelProto, Sequence[str]], Mapping[str, Array]]


class Part:
    """Some nodes of a file as a model, with its inputs.

    Attributes:
        model: the model.
        feeds: data for its inputs.
    """

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, Array]) -> None:
        self.model = model
        self.feeds = dict(feeds)

    def write(self, folder: Path, name: str = "repro.onnx") -> Path:
        """Write the model and ``inputs.npz`` into a folder; the model's path."""
        path = folder / name
        if self.model.ByteSize() > _EXTERNAL_BYTES:
            onnx.save(self.model, path, save_as_external_data=True, location=f"{name}.data")
        else:
            path.write_bytes(self.model.SerializeToString())
        save_arrays(folder / _ARRAYS, self.feeds)
        return path


class Whole:
    """A file whose nodes are taken apart.

    Args:
        model: the file's content, its weights read.
        feeds: data for its inputs.
        compute: computes values of the whole, wherever they are needed as inputs of a part.
    """

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, Array], compute: Compute) -> None:
        self.model = model
        self.compute = compute
        self.nodes = list(model.graph.node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants |= {tensor.values.name: tensor for tensor in model.graph.sparse_initializer}
        self._inputs = {value.name: value for value in model.graph.input}
        self._outputs = {value.name for value in model.graph.output}
        self._values: dict[str, Array | None] = {name: np.asarray(value) for name, value in feeds.items()}
        self._types = _types_of(model)
        self._reads = [list(dict.fromkeys(_reads(node))) for node in self.nodes]
        self._makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}

    def describe(self, index: int) -> str:
        """``MatMul node 'attn/MatMul'``."""
        node = self.nodes[index]
        name = node.name or next((name for name in node.output if name), "?")
        return f"{node.op_type} node {name!r}"

    def part(self, indices: Collection[int]) -> Part | None:
        """These nodes alone; None where they cannot be cut out, since what they read cannot be an input.

        What others read of them is an output, so that nothing within is fused that was not before.
        """
        chosen = sorted(indices)
        if not chosen:
            return None
        made = {name for index in chosen for name in self.nodes[index].output if name}
        read = dict.fromkeys(name for index in chosen for name in self._reads[index] if name and name not in made)
        among = set(chosen)
        outside = {name for index, names in enumerate(self._reads) if index not in among for name in names}
        inside = {name for index in chosen for name in self._reads[index]}
        wanted = [
            name
            for index in chosen
            for name in self.nodes[index].output
            if name and (name in self._outputs or name in outside or name not in inside)
        ]
        boundary = [name for name in read if name not in self._constants or name in self._inputs]
        if not self._fill(boundary):
            return None
        values = {name: value for name in boundary if (value := self._values.get(name)) is not None}
        plain = {name: value for name, value in values.items() if value.dtype.kind in "biufc"}
        odd = [onnx.numpy_helper.from_array(value, name) for name, value in values.items() if name not in plain]
        graph = onnx.helper.make_graph(
            [self.nodes[index] for index in chosen],
            self.model.graph.name or "part",
            [self._input(name, value) for name, value in plain.items()],
            [self._types.get(name) or onnx.ValueInfoProto(name=name) for name in wanted],
        )
        for name in read:
            if name in self._constants and name not in plain:
                tensor = self._constants[name]
                (graph.initializer if isinstance(tensor, onnx.TensorProto) else graph.sparse_initializer).append(tensor)
        graph.initializer.extend(odd)  # numpy's files have no such type, so these are constants of the model
        model = onnx.helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            functions=self.model.functions,
        )
        return Part(model, plain)

    def _input(self, name: str, value: Array) -> onnx.ValueInfoProto:
        known = self._types.get(name)
        if known is not None and known.type.tensor_type.HasField("shape"):
            return known
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        return onnx.helper.make_tensor_value_info(name, kind, value.shape)

    def _fill(self, names: Iterable[str]) -> bool:
        """Compute what is not known yet; False where a value is not a tensor, or cannot be computed."""
        missing = [name for name in names if name not in self._values]
        if missing:
            try:
                found: Mapping[str, Any] = self.compute(self._up_to(missing), missing)
            except GraphForgeError:
                found = {}
            for name in missing:
                value = found.get(name)
                self._values[name] = value if isinstance(value, np.ndarray) else None
        return all(self._values[name] is not None for name in names)

    def _up_to(self, names: Sequence[str]) -> onnx.ModelProto:
        """All that it takes to compute some values, from the inputs of the whole."""
        needed: set[int] = set()
        pending = list(names)
        while pending:
            maker = self._makers.get(pending.pop())
            if maker is not None and maker not in needed:
                needed.add(maker)
                pending += self._reads[maker]
        read = {name for index in needed for name in self._reads[index]}
        graph = onnx.helper.make_graph(
            [self.nodes[index] for index in sorted(needed)],
            "up to",
            [value for name, value in self._inputs.items() if name in read],
            [self._types.get(name) or onnx.ValueInfoProto(name=name) for name in names],
            [one for name, one in self._constants.items() if name in read and isinstance(one, onnx.TensorProto)],
        )
        return onnx.helper.make_model(
            graph,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            functions=self.model.functions,
        )

    @property
    def feeds(self) -> dict[str, Array]:
        """Every value that is known."""
        return {name: value for name, value in self._values.items() if value is not None}


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name; element types that numpy's format has no name for stand in a text beside it."""
    np.savez(path, **dict(arrays))  # type: ignore[arg-type]
    odd = {name: value.dtype.name for name, value in arrays.items() if value.dtype.kind == "V"}
    if odd:
        text = "".join(f"{name}\t{kind}\n" for name, kind in odd.items())
        path.with_suffix(".types").write_text(text, encoding="utf-8")


def load_arrays(path: Path) -> dict[str, Array]:
    """What ``save_arrays`` wrote."""
    types = path.with_suffix(".types")
    lines = types.read_text(encoding="utf-8").splitlines() if types.is_file() else []
    odd = dict(line.split("\t") for line in lines)
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    if odd:
        import ml_dtypes

        found |= {name: found[name].view(getattr(ml_dtypes, kind)) for name, kind in odd.items()}
    return found


def _types_of(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """What the file, or ONNX's inference, says of the types of values."""
    graph = model.graph
    known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    if model.ByteSize() < _EXTERNAL_BYTES:
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except Exception:  # a file that it refuses may run all the same
            return known
        known = {value.name: value for value in inferred.value_info} | known
    return {name: value for name, value in known.items() if value.type.WhichOneof("value") == "tensor_type"}


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads from around it, its bodies included."""
    names = list(node.input)
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs):
            own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
            own |= {name for inner in body.node for name in inner.output}
            read = [name for inner in body.node for name in _reads(inner)] + [value.name for value in body.output]
            names += [name for name in read if name not in own]
    return names
