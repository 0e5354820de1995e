"""Facts about operator versions, read from the schemas that ONNX ships: what changed when, is this node legal there."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.bodies import bodies_of, infer_bodies
from graphforge.ir.builder import Builder
from graphforge.ir.describe import describe
from graphforge.ir.infer import schema_of

__all__ = [
    "Conflict",
    "ConflictKind",
    "admitted_types",
    "changed_at",
    "conflict_of",
    "expand_function",
    "formal_parameters",
    "ir_version_for",
    "onnx_type_name",
    "tensor_of_constant_node",
    "versions_of",
]


_Thing = TypeVar("_Thing")


class ConflictKind(enum.Enum):
    """In which respect a node is not legal at an opset."""

    OPERATOR = "operator"
    ARITY = "arity"
    ATTRIBUTE = "attribute"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a node is not legal at an opset.

    Attributes:
        kind: in which respect.
        text: the reason as a phrase that completes "node N: ...".
        name: the attribute or the type variable that is at fault, "" otherwise.
    """

    kind: ConflictKind
    text: str
    name: str = ""


@functools.cache
def _history() -> dict[str, tuple[int, ...]]:
    versions: dict[str, list[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions.setdefault(schema.name, []).append(schema.since_version)
    return {name: tuple(sorted(found)) for name, found in versions.items()}


def versions_of(op_type: str) -> tuple[int, ...]:
    """The opsets of the default domain at which the operator came or changed, rising; empty for an unknown operator."""
    return _history().get(op_type, ())


@functools.cache
def changed_at(opset: int) -> frozenset[str]:
    """The operators of the default domain that came or changed at exactly this opset."""
    return frozenset(name for name, versions in _history().items() if opset in versions)


def ir_version_for(opset: int) -> int:
    """The IR version of the ONNX release that brought the opset: what every reader of that opset can read."""
    # https://github.com/onnx/onnx/blob/main/docs/Versioning.md, "Released Versions".
    table = ((25, 13), (24, 12), (23, 11), (21, 10), (19, 9), (15, 8), (12, 7), (11, 6), (10, 5), (9, 4))
    for first, version in table:
        if opset >= first:
            return version
    return 3


def onnx_type_name(kind: ir.TypeProtocol) -> str:
    """The type as schemas spell it: ``tensor(float)``, ``seq(tensor(int64))``, ``optional(tensor(bool))``."""
    if isinstance(kind, ir.SequenceType):
        return f"seq({onnx_type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({onnx_type_name(kind.elem_type)})"
    prefix = "sparse_tensor" if isinstance(kind, ir.SparseTensorType) else "tensor"
    return f"{prefix}({kind.dtype.name.lower()})"


def conflict_of(node: ir.Node, opset: int) -> Conflict | None:
    """Why the node is not legal at this opset of the default domain; None when it is, or when nobody can know.

    Operator, numbers of inputs and outputs, attributes and their types, and element types are compared with the
    schema; attribute *values* and meanings are not in a schema, so they are not judged here.
    """
    if node.domain != "":
        return None
    return _conflict(
        node.op_type,
        opset,
        tuple([None if value is None else _type_name_of(value) for value in node.inputs]),
        # an output that is not asked for has no name
        tuple([None if value.name == "" and not _is_read(value) else _type_name_of(value) for value in node.outputs]),
        tuple([(name, attribute.type) for name, attribute in node.attributes.items()]) if node.attributes else (),
    )


_tensor_names: dict[ir.DataType, str] = {kind: f"tensor({kind.name.lower()})" for kind in ir.DataType}


def _type_name_of(value: ir.Value) -> str:
    """The type as schemas spell it, "" when unknown."""
    kind = value.type
    if kind is None:
        return ""
    return _tensor_names[kind.dtype] if type(kind) is ir.TensorType else onnx_type_name(kind)


@functools.lru_cache(maxsize=1 << 16)
def _conflict(
    op_type: str,
    opset: int,
    inputs: tuple[str | None, ...],
    outputs: tuple[str | None, ...],
    attributes: tuple[tuple[str, ir.AttributeType], ...],
) -> Conflict | None:
    """The same for a node as its schema sees it; large graphs have few different ones."""
    schema = schema_of(op_type, "", opset)
    if schema is None:
        versions = versions_of(op_type)
        if not versions:
            return Conflict(ConflictKind.OPERATOR, f"ONNX has no operator {op_type}")
        return Conflict(
            ConflictKind.OPERATOR, f"opset {opset} has no operator {op_type}, it came with opset {versions[0]}"
        )
    if schema.deprecated:
        return Conflict(ConflictKind.OPERATOR, f"opset {opset} has withdrawn operator {op_type}")
    return (
        _arity_conflict(schema, inputs, outputs)
        or _attribute_conflict(schema, attributes)
        or _type_conflict(schema, inputs, outputs)
    )


_OPTION = onnx.defs.OpSchema.FormalParameterOption


def _arity_conflict(
    schema: onnx.defs.OpSchema, inputs: tuple[str | None, ...], outputs: tuple[str | None, ...]
) -> Conflict | None:
    at = f"{schema.name} of opset {schema.since_version}"
    count, asked = _count(inputs), _count(outputs)
    if not schema.min_input <= count <= schema.max_input:
        wanted = _span(schema.min_input, schema.max_input)
        return Conflict(ConflictKind.ARITY, f"has {count} inputs, {at} takes {wanted}")
    # The first ones of an operator that always has two stand even where the last is not asked for.
    if asked > schema.max_output or len(outputs) < schema.min_output:
        wanted = _span(schema.min_output, schema.max_output)
        return Conflict(ConflictKind.ARITY, f"has {asked} outputs, {at} gives {wanted}")
    for name, formal in zip(inputs, schema.inputs, strict=False):
        if name is None and formal.option == _OPTION.Single:
            return Conflict(ConflictKind.ARITY, f"lacks input {formal.name}, which {at} requires")
    return None


def _count(names: tuple[str | None, ...]) -> int:
    """How many there are without those at the end that are left out."""
    count = len(names)
    while count and names[count - 1] is None:
        count -= 1
    return count


def _span(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low} or more" if high > 1_000_000 else f"{low} to {high}"


def _is_read(value: ir.Value) -> bool:
    return bool(value._uses) or value.is_graph_output()  # `uses()` would copy


def _attribute_conflict(
    schema: onnx.defs.OpSchema, attributes: tuple[tuple[str, ir.AttributeType], ...]
) -> Conflict | None:
    at = f"{schema.name} of opset {schema.since_version}"
    for name, kind in attributes:
        known = schema.attributes.get(name)
        if known is None:
            return Conflict(ConflictKind.ATTRIBUTE, f"has attribute {name}, which {at} does not know", name)
        wanted = ir.AttributeType(cast(Any, known.type).value)  # a C++ enum whose stubs lack its value
        if wanted != kind:
            return Conflict(
                ConflictKind.ATTRIBUTE, f"attribute {name} is of type {kind.name}, {at} expects {wanted.name}", name
            )
    given = {name for name, _ in attributes}
    for name, known in schema.attributes.items():
        if known.required and name not in given:
            return Conflict(ConflictKind.ATTRIBUTE, f"lacks attribute {name}, which {at} requires", name)
    return None


@functools.lru_cache(maxsize=4096)
def admitted_types(op_type: str, version: int) -> dict[str, frozenset[str]]:
    """Type variable -> the types that the operator admits for it, at a version that brought or changed the operator."""
    schema = onnx.defs.get_schema(op_type, version)
    return {one.type_param_str: frozenset(one.allowed_type_strs) for one in schema.type_constraints}


def formal_parameters(
    values: Sequence[_Thing | None], formals: Sequence[onnx.defs.OpSchema.FormalParameter]
) -> Iterator[tuple[_Thing, onnx.defs.OpSchema.FormalParameter]]:
    """The values that are there, each with the schema's parameter it stands for."""
    for position, value in enumerate(values):
        if value is None or not formals:
            continue
        if position < len(formals):
            yield value, formals[position]
        elif formals[-1].option == _OPTION.Variadic:
            yield value, formals[-1]


def _type_conflict(
    schema: onnx.defs.OpSchema, inputs: tuple[str | None, ...], outputs: tuple[str | None, ...]
) -> Conflict | None:
    at = f"{schema.name} of opset {schema.since_version}"
    allowed = admitted_types(schema.name, schema.since_version)
    bound: dict[str, tuple[str, str]] = {}
    for name, formal in (*formal_parameters(inputs, schema.inputs), *formal_parameters(outputs, schema.outputs)):
        if name == "":
            continue  # unknown
        possible = allowed.get(formal.type_str, frozenset((formal.type_str,)))
        if name not in possible:
            return Conflict(ConflictKind.TYPE, f"{formal.name} is {name}, which {at} does not admit", formal.type_str)
        if not formal.is_homogeneous or formal.type_str not in allowed:
            continue
        first, owner = bound.setdefault(formal.type_str, (name, formal.name))
        if first != name:
            return Conflict(
                ConflictKind.TYPE, f"{owner} is {first} but {formal.name} is {name}, {at} wants one type", ""
            )
    return None


def expand_function(node: ir.Node, builder: Builder, opset: int) -> list[ir.Value | None] | None:
    """Build what the node means by ONNX's own definition of the operator (its function body); None when it has none.

    The new nodes are of opset ``builder.opset``, which must be ``opset``.  Every output of the node has its value in
    the result; outputs that nobody asked for are None.
    """
    body = _function_body(node, opset)
    if body is None:
        return None
    graph = _graph_of_body(node, body)
    new: dict[ir.Value, ir.Value | None] = {}
    for formal, actual in zip(graph.inputs, [v for v in node.inputs if v is not None], strict=True):
        new[formal] = actual
    outputs = list(graph.outputs)
    for inner in graph:
        _copy_into(builder, inner, new)
    found = iter(outputs)
    return [new[next(found)] if value.name != "" or _is_read(value) else None for value in node.outputs]


def _copy_into(builder: Builder, inner: ir.Node, new: dict[ir.Value, ir.Value | None]) -> None:
    if inner.op_type == "Constant" and inner.domain == "":
        new[inner.outputs[0]] = builder.constant(tensor_of_constant_node(inner))
        return
    for body in bodies_of(inner):
        _bind_outer_values(body, new)
        _lift_constants(body, builder)
    inputs = [None if value is None else new[value] for value in inner.inputs]
    attributes: dict[str, Any] = dict(inner.attributes.items())
    inner.attributes.clear()  # a body may belong to one node only
    made = builder.node(inner.op_type, inputs, _domain=inner.domain, _outputs=len(inner.outputs), **attributes)
    infer_bodies(builder.created[-1], builder.opset)
    for old, value in zip(inner.outputs, made if isinstance(made, tuple) else (made,), strict=True):
        new[old] = value


def _bind_outer_values(body: ir.Graph, new: dict[ir.Value, ir.Value | None]) -> None:
    for node in body.all_nodes():
        for position, value in enumerate(node.inputs):
            if value in new:
                node.replace_input_with(position, new[value])


def _lift_constants(body: ir.Graph, builder: Builder) -> None:
    """Constants are initializers of the main graph, in bodies too."""
    for node in list(body.all_nodes()):
        if node.op_type != "Constant" or node.domain != "" or node.graph is None:
            continue
        old = node.outputs[0]
        value = builder.constant(tensor_of_constant_node(node))
        if old.is_graph_output():
            identity = ir.Node("", "Identity", [value], num_outputs=1)
            node.graph.insert_before(node, identity)
            for position, output in enumerate(node.graph.outputs):
                if output is old:
                    node.graph.outputs[position] = identity.outputs[0]
        ir.convenience.replace_all_uses_with(old, value)
        node.graph.remove(node)


def _function_body(node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    schema = cast(Any, schema_of(node.op_type, node.domain, opset))  # the stubs lack the methods on functions
    if schema is None:
        return None
    versions = [version for version in schema.function_opset_versions if version <= opset]
    if versions:
        body = schema.get_function_with_opset_version(max(versions))
        assert isinstance(body, bytes)
        return _checked(onnx.FunctionProto.FromString(body), opset)
    versions = [version for version in schema.context_dependent_function_opset_versions if version <= opset]
    if not versions:
        return None
    types = []
    for value in node.inputs:
        if value is None:
            types.append(onnx.TypeProto().SerializeToString())
            continue
        if value.type is None:
            return None
        proto = ir.serde.serialize_type(value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
        types.append(proto.SerializeToString())
    proto_of_node = _named_proto(node)
    body = schema.get_context_dependent_function_with_opset_version(
        max(versions), proto_of_node.SerializeToString(), types
    )
    function = onnx.FunctionProto.FromString(body)
    return _checked(function, opset) if function.node else None


def _checked(function: onnx.FunctionProto, opset: int) -> onnx.FunctionProto | None:
    """The function when all that it uses means the same at its own opset and at the one asked for."""
    own = next((entry.version for entry in function.opset_import if entry.domain == ""), opset)
    for inner in function.node:
        if inner.domain != "":
            continue
        there, here = schema_of(inner.op_type, "", own), schema_of(inner.op_type, "", opset)
        if there is None or here is None or there.since_version != here.since_version:
            return None
    return function


def _named_proto(node: ir.Node) -> onnx.NodeProto:
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    proto.input.extend("" if value is None else f"i{position}" for position, value in enumerate(node.inputs))
    proto.output.extend(
        f"o{position}" if value.name != "" or _is_read(value) else "" for position, value in enumerate(node.outputs)
    )
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    return proto


def _graph_of_body(node: ir.Node, function: onnx.FunctionProto) -> ir.Graph:
    """The function's body as a graph; its inputs are those that the node gives, its outputs those that it takes."""
    schema = schema_of(node.op_type, node.domain, function.opset_import[0].version if function.opset_import else 1)
    given = {attribute.name: ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values()}
    for default in function.attribute_proto:
        given.setdefault(default.name, default)
    if schema is not None:
        for name, known in schema.attributes.items():
            if known.default_value.name:
                given.setdefault(name, known.default_value)
    graph = onnx.GraphProto(name=node.op_type)
    actual = [value is not None for value in node.inputs] + [False] * len(function.input)
    absent = {name for name, there in zip(function.input, actual, strict=False) if not there}
    graph.input.extend(
        onnx.ValueInfoProto(name=name) for name, there in zip(function.input, actual, strict=False) if there
    )
    wanted = [value.name != "" or _is_read(value) for value in node.outputs]
    graph.output.extend(
        onnx.ValueInfoProto(name=name) for name, there in zip(function.output, wanted, strict=False) if there
    )
    graph.node.extend(function.node)
    _resolve(graph, given, absent)
    return ir.serde.deserialize_graph(graph)


def _resolve(graph: onnx.GraphProto, given: dict[str, onnx.AttributeProto], absent: set[str]) -> None:
    """Put the call's attributes where the body refers to them, and empty names for inputs that the call leaves out."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in absent:
                node.input[position] = ""
        kept = []
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                actual = given.get(attribute.ref_attr_name)
                if actual is None:
                    continue
                resolved = onnx.AttributeProto()
                resolved.CopyFrom(actual)
                resolved.name = attribute.name
                kept.append(resolved)
                continue
            if attribute.type == onnx.AttributeProto.GRAPH:
                _resolve(attribute.g, given, absent)
            kept.append(attribute)
        copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend(copies)


_CONSTANT_ATTRIBUTES = {
    "value": ir.AttributeType.TENSOR,
    "value_int": ir.AttributeType.INT,
    "value_ints": ir.AttributeType.INTS,
    "value_float": ir.AttributeType.FLOAT,
    "value_floats": ir.AttributeType.FLOATS,
    "value_string": ir.AttributeType.STRING,
    "value_strings": ir.AttributeType.STRINGS,
}


def tensor_of_constant_node(node: ir.Node) -> ir.TensorProtocol:
    """What a Constant node holds, as a tensor."""
    attribute = next(iter(node.attributes.values()), None)
    if attribute is None or attribute.is_ref():
        raise GraphForgeError(f"{describe(node)} contains no value")
    name = attribute.name
    if attribute.type != _CONSTANT_ATTRIBUTES.get(name):
        raise GraphForgeError(f"{describe(node)} holds a value of an unknown kind ({name})")
    if name == "value":
        return attribute.as_tensor()
    if name == "value_int":
        return ir.tensor(attribute.as_int(), dtype=ir.DataType.INT64)
    if name == "value_ints":
        return ir.tensor(list(attribute.as_ints()), dtype=ir.DataType.INT64)
    if name == "value_float":
        return ir.tensor(attribute.as_float(), dtype=ir.DataType.FLOAT)
    if name == "value_floats":
        return ir.tensor(list(attribute.as_floats()), dtype=ir.DataType.FLOAT)
    if name == "value_string":
        return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
    texts = [text.encode() for text in attribute.as_strings()]
    return ir.StringTensor(texts, shape=ir.Shape([len(texts)]))
