"""An ONNX file becomes a graph like any other: one opset, no functions, constants as initializers, origins."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassError, PreconditionError
from onnx_ir.passes.common import InlinePass

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.ir import HOME_OPSET, bodies_of
from graphforge.ir.describe import describe
from graphforge.ir.names import make_names_unique
from graphforge.ir.printer import FILE_OPSET
from graphforge.ir.versions import ir_version_for, tensor_of_constant_node
from graphforge.limiting import BeyondLimitError
from graphforge.onnx_io.expansion import called_by, count_expansion, count_work, makes_more
from graphforge.onnx_io.operands import check_attributes, check_operands
from graphforge.onnx_io.origins import read_origins
from graphforge.onnx_io.raising import raise_graph
from graphforge.onnx_io.safety import read_model_proto
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

__all__ = [
    "IMPORT_NOTES",
    "STATED",
    "admit",
    "as_written",
    "deserialized",
    "import_onnx",
    "import_onnx_proto",
    "input_names",
    "input_spec",
    "tied_by_file",
]

# Names that tools give to any dim that they know nothing of.
_NAMELESS = ("none", "unk", "unknown", "dynamic", "dim")

_reader = logging.getLogger("onnx_ir.serde")

# Key in model.meta: what the user should be told about the import, a list of lines.
IMPORT_NOTES = "graphforge.import_notes"
# Key in model.meta: whether shapes were taken from what the file states, where its nodes do not tell them.
STATED = "graphforge.stated_shapes"


def import_onnx(path: str | Path, *, as_stated: bool = True) -> ir.Model:
    """Read an ONNX file into our graph at the home opset; weights stay where they are until somebody needs them.

    Args:
        path: the .onnx file; external data lies beside it.
        as_stated: take its word for shapes that its nodes do not tell (``model.meta[STATED]`` says whether there are).

    Raises:
        GraphForgeError: the file is missing, truncated, malicious or inconsistent, or a node cannot be expressed at
            the home opset.
    """
    path = Path(path)
    return _import(read_model_proto(path), str(path), path.resolve().parent, as_stated=as_stated)


def admit(path: str | Path) -> None:
    """Check a file that goes to a runtime as it is, and hold what that would make of it against the limits.

    Raises:
        GraphForgeError: as ``import_onnx``, but for what cannot be expressed at the home opset: a runtime may have it.
    """
    path = Path(path)
    proto = read_model_proto(path)
    if not proto.functions and not makes_more(proto.graph):
        return
    try:
        _import(proto, str(path), path.resolve().parent)
    except BeyondLimitError:
        raise
    except GraphForgeError:  # the runtime says better what is wrong
        return


def as_written(path: str | Path) -> ir.Model:
    """The model of an ONNX file as it stands there, functions included, its weights left on disk.

    Raises:
        GraphForgeError: the file is missing, truncated, malicious or inconsistent.
    """
    path = Path(path)
    model = deserialized(read_model_proto(path), str(path))
    ir.external_data.set_base_dir(model.graph, path.resolve().parent)
    return model


def input_names(path: str | Path) -> list[str]:
    """The names of an ONNX file's inputs, in order."""
    graph = read_model_proto(Path(path)).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [info.name for info in graph.input if info.name not in constants]


def input_spec(path: str | Path, given: ShapeSpec | None = None) -> ShapeSpec:
    """The inputs of an ONNX file: shapes and types from the file, sizes of dynamic dims from ``given``.

    A dynamic first dim that nobody gives a size is taken as 1, as batches are.

    Raises:
        GraphForgeError: the file cannot be read, or an input is not a tensor.
        UsageError: ``given`` names an unknown input, disagrees with the file, or lacks the size of a dynamic dim.
    """
    path = Path(path)
    graph = read_model_proto(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    wanted = {tensor.name: tensor for tensor in given.inputs} if given is not None else {}
    specs = [_tensor_spec(info, wanted.pop(info.name, None)) for info in graph.input if info.name not in constants]
    if wanted:
        names = ", ".join(spec.name for spec in specs) or "none"
        raise UsageError(f"{path} has no input {next(iter(wanted))!r}", f"its inputs are: {names}")
    return ShapeSpec(tuple(specs))


def tied_by_file(
    path: str | Path, spec: ShapeSpec, wanted: Mapping[str, Mapping[int, DimRange]]
) -> tuple[dict[str, dict[int, DimRange]], list[str]]:
    """Dims that the file calls by one name, and that are promised the same sizes, as one dim; with notes that say so.

    Left apart are dims that the promise names itself, and names that some tools give to every open dim.

    Args:
        path: the ONNX file.
        spec: its inputs with the example's sizes.
        wanted: input name -> axis -> promised sizes.
    """
    tied = {name: dict(axes) for name, axes in wanted.items()}
    sizes = {tensor.name: tensor.shape for tensor in spec.inputs}
    alike: dict[tuple[Any, ...], list[tuple[str, int]]] = {}
    for info in read_model_proto(Path(path)).graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            for given, promised in tied.get(info.name, {}).items():
                own = re.fullmatch(re.sub(r"\W", "_", info.name) + r"_m?\d+", promised.name) is not None
                here = given % max(len(sizes[info.name]), 1) == axis
                if here and own and dim.dim_param and dim.dim_param.lower() not in _NAMELESS:
                    key = (dim.dim_param, promised.low, promised.high, promised.step, sizes[info.name][axis])
                    alike.setdefault(key, []).append((info.name, given))
    notes = []
    taken = {dim.name for axes in tied.values() for dim in axes.values()}
    for (called, *_), places in alike.items():
        name = _identifier(called)
        if len(places) < 2 or name in taken:
            continue
        taken.add(name)
        for one, axis in places:
            tied[one][axis] = replace(tied[one][axis], name=name)
        listed = ", ".join(f"{one}:{axis}" for one, axis in places)
        notes.append(f"{listed} are one dim, {called}, as the file calls them: they vary together")
    return tied, notes


def _identifier(called: str) -> str:
    """A dim's name for what a file calls it: itself, or `batch_size` for `batch size`, `dim_2_n` for `2*n`."""
    plain = "_".join(re.findall(r"\w+", called)) or "unnamed"
    return plain if plain.isidentifier() else f"dim_{plain}"


def _tensor_spec(info: onnx.ValueInfoProto, given: TensorSpec | None) -> TensorSpec:
    label = f"input {info.name!r}"
    if not info.type.HasField("tensor_type"):
        raise GraphForgeError(f"{label} is a {info.type.WhichOneof('value')}, only tensors can be compiled inputs")
    kind = info.type.tensor_type
    dtype = _DTYPE_NAMES.get(kind.elem_type)
    if dtype is None:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise GraphForgeError(f"{label} has element type {name}, which is not supported as a model input")
    # float32 is what a spec says when it says nothing.
    if given is not None and given.dtype not in (dtype, "float32"):
        raise UsageError(f"{label} is {dtype} in the file, {given.dtype} was given")
    if not kind.HasField("shape"):
        if given is None:
            raise UsageError(
                f"{label} has no shape in the file", f"give it: {argument('inputs', f'{info.name}:1x3x224x224')}"
            )
        return replace(given, dtype=dtype)
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    if given is None:
        unknown = [axis for axis, dim in enumerate(dims) if dim is None and axis > 0]
        if unknown:
            shown = "x".join("N" if dim is None else str(dim) for dim in dims)
            raise UsageError(
                f"{label} has dynamic dims in the file ({shown}), their sizes are needed to run it",
                f"give them: {argument('inputs', f'{info.name}:' + 'x'.join(str(dim or 1) for dim in dims))}",
            )
        return TensorSpec(info.name, tuple(1 if dim is None else dim for dim in dims), dtype)
    if len(given.shape) != len(dims):
        raise UsageError(f"{label} has {len(dims)} dims in the file, {len(given.shape)} were given")
    for axis, (size, dim) in enumerate(zip(given.shape, dims, strict=True)):
        if dim is not None and size != dim:
            raise UsageError(f"{label} has size {dim} on axis {axis} in the file, {size} was given")
    for axis in given.dims:
        if dims[axis] is not None:
            raise UsageError(
                f"{label} has the fixed size {dims[axis]} on axis {axis} in the file, it cannot be dynamic"
            )
    return replace(given, dtype=dtype)


# ONNX element type -> the name that specs use.
_DTYPE_NAMES = {
    ir.DataType.FLOAT.value: "float32",
    ir.DataType.DOUBLE.value: "float64",
    **{
        kind.value: kind.name.lower()
        for kind in ir.DataType
        if kind.name.lower() in "float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool".split()
    },
    ir.DataType.COMPLEX64.value: "complex64",
    ir.DataType.COMPLEX128.value: "complex128",
}


def import_onnx_proto(proto: onnx.ModelProto, label: str = "model") -> ir.Model:
    """As ``import_onnx``, for a model in memory without external data; the proto is not kept intact."""
    return _import(proto, label, None)


def _import(proto: onnx.ModelProto, label: str, folder: Path | None, *, as_stated: bool = True) -> ir.Model:
    model = deserialized(proto, label)
    notes: list[str] = []
    _check_opset(model.graph.opset_imports, label)
    _stamp_versions(model)
    _inline_functions(model, label)
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder)
        _read_when_needed(model.graph)
    _sort(model.graph, label)
    notes.extend(_inputs_with_defaults(model.graph))
    for node in model.graph.all_nodes():
        read_origins(node)
        for value in node.outputs:
            if value.shape is not None and value.shape.frozen:
                value.shape = value.shape.copy()  # what is read from a file is frozen, passes refine shapes
    _Lifter(model.graph).lift()
    check_operands(model.graph)
    model.meta[FILE_OPSET] = model.graph.opset_imports.get("", HOME_OPSET)
    model.meta[STATED] = raise_graph(model.graph, notes, as_stated=as_stated)
    model.graph.opset_imports[""] = HOME_OPSET
    model.ir_version = ir_version_for(HOME_OPSET)
    make_names_unique(model)
    count_work(model.graph, label)
    model.meta[IMPORT_NOTES] = notes
    return model


def deserialized(proto: onnx.ModelProto, label: str) -> ir.Model:
    """The model of a proto, as onnx_ir has it; one that it cannot read, or only in part, is told by its label."""
    told, _reader.disabled = _reader.disabled, True  # what it warns of is refused below
    try:
        model = ir.serde.deserialize_model(proto)
    # onnx_ir wraps whatever went wrong in plain ValueErrors, RuntimeErrors and its own SerdeError.
    except Exception as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__  # type: ignore[assignment]
        raise GraphForgeError(f"{label} is not a valid ONNX model: {cause}") from error
    finally:
        _reader.disabled = told
    if "ai.onnx" in model.graph.opset_imports:
        version = model.graph.opset_imports.pop("ai.onnx")
        model.graph.opset_imports.setdefault("", version)
    check_attributes(model)
    return model


def _check_opset(imports: dict[str, int], label: str) -> None:
    opset = imports.get("")
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not 1 <= opset <= newest:
        raise GraphForgeError(
            f"{label} is written in opset {opset}; the installed onnx {onnx.__version__} knows 1 to {newest}",
            "a newer onnx package knows newer opsets" if opset > newest else "",
        )


def _stamp_versions(model: ir.Model) -> None:
    """Write on every node which opset it is from: after inlining, its graph no longer tells."""
    containers: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    opset = model.graph.opset_imports.get("")
    for container in containers:
        own = container.opset_imports.get("", opset)
        for node in container.all_nodes():
            node.version = own
    for function in model.functions.values():
        if opset is not None and "" in function.opset_imports:
            function.opset_imports[""] = opset


def _inline_functions(model: ir.Model, label: str) -> None:
    """Write functions out where they are called, the innermost first: each round is one walk over what there is."""
    reached = count_expansion(model, label)
    for identifier in [one for one in model.functions if one not in reached]:
        del model.functions[identifier]
    while model.functions:
        calling = {one for one, function in model.functions.items() if any(called_by(function, model.functions))}
        innermost = model.functions.keys() - calling

        def is_innermost(function: ir.Function, innermost: Collection[ir.OperatorIdentifier] = innermost) -> bool:
            return function.identifier() in innermost

        try:
            InlinePass(is_innermost)(model)
        except (PassError, PreconditionError, ValueError, RuntimeError, KeyError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise GraphForgeError(f"{label}: its functions cannot be inlined: {cause}") from error


def _read_when_needed(graph: ir.Graph) -> None:
    """Tensors in a file of their own are read when somebody asks for them, a session or a writer included.

    As onnx_ir has them they are serialised as references to that file, which mean nothing where the copy goes.
    """
    bodies = [body for node in graph.all_nodes() for body in bodies_of(node)]
    for container in (graph, *bodies):
        for value in container.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _lazy(value.const_value)
    for node in graph.all_nodes():
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, _lazy(attribute.value))
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = [_lazy(one) if isinstance(one, ir.ExternalTensor) else one for one in attribute.value]
                node.attributes[name] = ir.AttrTensors(name, tensors)


def _lazy(tensor: ir.ExternalTensor) -> ir.LazyTensor:
    read = functools.partial(_itself, tensor)
    return ir.LazyTensor(read, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def _itself(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    """The tensor, whose file is looked at again: between the checks and now, somebody may have put another there."""
    file = Path(tensor.path)
    end = (tensor.offset or 0) + (tensor.nbytes if tensor.length is None else tensor.length)
    try:
        whole = file.is_file() and file.stat().st_size >= end
        beside = file.resolve().is_relative_to(Path(tensor.base_dir).resolve())
    except (OSError, RuntimeError):
        whole = beside = False
    if not (whole and beside):
        raise GraphForgeError(f"{str(file)!r} changed while it was read", "leave the file alone, and run this again")
    return tensor


def _sort(graph: ir.Graph, label: str) -> None:
    """Bring the nodes into an order in which each comes after what it reads; refuse what has none."""
    problem = _first_undefined(graph, set())
    if problem is None:
        return
    try:
        graph.sort()
    except ValueError as error:
        raise GraphForgeError(f"{label}: the graph has a cycle") from error
    problem = _first_undefined(graph, set())
    if problem is not None:
        raise GraphForgeError(f"{label}: {problem}")


def _first_undefined(graph: ir.Graph, outer: set[ir.Value]) -> str | None:
    added = [value for value in [*graph.inputs, *graph.initializers.values()] if value not in outer]
    outer.update(added)
    try:
        for node in graph:
            for value in node.inputs:
                if value is not None and value not in outer:
                    return f"{describe(node)} reads {value.name!r}, which nothing before it computes"
            for body in bodies_of(node):
                problem = _first_undefined(body, outer)
                if problem is not None:
                    return problem
            outer.update(node.outputs)
            added.extend(node.outputs)
        for value in graph.outputs:
            if value not in outer:
                return f"output {value.name!r} is computed nowhere"
        return None
    finally:
        outer.difference_update(added)


def _inputs_with_defaults(graph: ir.Graph) -> list[str]:
    """Inputs that have an initializer are constants from here on (old files list every weight as an input)."""
    both = [value for value in graph.inputs if value.name in graph.initializers]
    if not both:
        return []
    for value in both:
        graph.inputs.remove(value)
    names = ", ".join(str(value.name) for value in both[:3]) + (", ..." if len(both) > 3 else "")
    return [f"{len(both)} inputs have default values in the file and are treated as constants: {names}"]


class _Lifter:
    """Moves Constant nodes and the initializers of bodies into the main graph's initializers."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        # Bodies may use a name twice; the main graph's initializers may not.
        self.taken: Counter[str | None] = Counter(value.name for value in graph.inputs)
        self.taken.update(name for name in graph.initializers if name not in self.taken)
        for node in graph.all_nodes():
            self.taken.update(value.name for value in node.outputs)

    def lift(self) -> None:
        self._lift_from(self.graph)

    def _lift_from(self, graph: ir.Graph) -> None:
        if graph is not self.graph:
            for value in list(graph.initializers.values()):
                name = value.name or "constant"
                del graph.initializers[name]
                assert value.const_value is not None
                self._replace(graph, value, value.const_value, self._fresh(name))
        for node in graph:
            if node.domain == "":
                # The body of another domain's operator need not see the values around it.
                for body in bodies_of(node):
                    self._lift_from(body)
            if node.op_type != "Constant" or node.domain != "":
                continue
            old = node.outputs[0]
            name = old.name or ""
            if not name or self.taken[name] > 1:
                name = self._fresh(name or "constant")
            old.name = None
            self._replace(graph, old, tensor_of_constant_node(node), name)
            graph.remove(node)

    def _replace(self, graph: ir.Graph, old: ir.Value, tensor: ir.TensorProtocol, name: str) -> None:
        shape = ir.Shape([int(str(dim)) for dim in tensor.shape])
        new = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        if graph is not self.graph and old.is_graph_output():
            # A body's output must be computed in the body.
            identity = ir.Node("", "Identity", [new], num_outputs=1)
            identity.outputs[0].name = self._fresh(name)
            identity.outputs[0].type, identity.outputs[0].shape = new.type, new.shape
            graph.append(identity)
            for position, output in enumerate(graph.outputs):
                if output is old:
                    graph.outputs[position] = identity.outputs[0]
        else:
            for position, output in enumerate(graph.outputs):
                if output is old:
                    graph.outputs[position] = new
        ir.convenience.replace_all_uses_with(old, new)
        self.graph.register_initializer(new)

    def _fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken[name] += 1
        return name
