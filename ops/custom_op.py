"""Declare an operator of your own in one place: domain, inputs and outputs, attributes, type and shape rule, function.

    from graphforge.ops.custom_op import TensorFact, custom_op

    scaled_sort = custom_op(
        "acme::ScaledSort",
        inputs=["x", "scale: float", "mask: bool?"],
        outputs=["sorted", "order: int64"],
        attributes={"axis": -1, "descending": int},
        shapes=lambda inputs, attributes: [inputs[0], TensorFact("int64", inputs[0].shape)],
    )

The declaration makes the operator known to ONNX (its checker and its inference), to the verifier and to the builder
(``op.node("ScaledSort", [x, 2.0], _domain="acme")``), so a node of it survives from capture to file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir.infer import forget_schemas, look_up_schemas
from graphforge.scopes import Declared
from graphforge.user_code import user_error

__all__ = [
    "CUSTOM_OPS",
    "CustomOp",
    "Parameter",
    "ShapeRule",
    "TensorFact",
    "custom_op",
    "declared_ops",
    "find_op",
    "semantic_op",
    "withdraw",
]

_OUR_DOMAIN = "graphforge"
_ANY_FLOAT = ("float", "float16", "double", "bfloat16")
_PARAMETER = re.compile(r"\s*([A-Za-z_]\w*)\s*(?::\s*([A-Za-z]\w*)\s*([?*])?)?\s*")


@dataclass(frozen=True, slots=True)
class TensorFact:
    """What is known of a tensor.

    Attributes:
        dtype: ONNX's word for the element type, ``float``, ``int64``, ...
        shape: numbers, names of dims, or None for an unknown dim; None when not even the rank is known.
    """

    dtype: str
    shape: tuple[int | str | None, ...] | None = None


# Facts of the inputs (None for one that is left out) and the attributes -> facts of the outputs.
ShapeRule: TypeAlias = Callable[[Sequence[TensorFact | None], Mapping[str, Any]], Sequence[TensorFact]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input or output.

    Attributes:
        name: its name.
        type: an element type (``float``, ``int64``), or the name of a group of types that must agree (``T``).
        optional: it may be left out.
        variadic: any number of tensors may stand here; only the last one.
    """

    name: str
    type: str = "T"
    optional: bool = False
    variadic: bool = False

    @classmethod
    def parse(cls, text: str) -> Parameter:
        """Read ``x``, ``x: T``, ``i: int64``, ``mask: bool?`` (optional) or ``rest: T*`` (any number).

        Raises:
            UsageError: the text has another form.
        """
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise UsageError(
                f"cannot read parameter {text!r}", "write it as name, name: type, name: type? or name: type*"
            )
        name, kind, mark = match.groups()
        return cls(name, kind or "T", optional=mark == "?", variadic=mark == "*")


@dataclass(frozen=True)
class CustomOp:
    """A declared operator.

    Attributes:
        domain: the ONNX domain, not empty.
        name: the operator.
        inputs: its inputs.
        outputs: its outputs.
        attributes: name -> default value, or a type (``int``, ``float``, ``str``, ``list``) for one that must be given.
        types: group name -> element types it may stand for; ``T`` is any float unless it says otherwise.
        shapes: the type and shape rule; None leaves the outputs' shapes unknown.
        function: the eager function in torch, None when there is none; it is the reference.
        torch_name: the torch operator that becomes this one when it is captured, ``acme::scaled_sort``.
        library: shared library with the kernel for ONNX Runtime.
        version: version of the domain from which on the operator exists.
        doc: what it means.
    """

    domain: str
    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shapes: ShapeRule | None = None
    function: Callable[..., Any] | None = None
    torch_name: str | None = None
    library: str | None = None
    version: int = 1
    doc: str = ""

    @property
    def qualified_name(self) -> str:
        """``domain::name``."""
        return f"{self.domain}::{self.name}"

    def has_the_name_of(self, other: CustomOp) -> bool:
        """Whether both declare the same operator."""
        return (self.domain, self.name) == (other.domain, other.name)

    def schema(self) -> onnx.defs.OpSchema:
        """The declaration as an ONNX schema."""
        groups = {"T": _ANY_FLOAT, **self.types}
        used = {parameter.type for parameter in (*self.inputs, *self.outputs)} & set(groups)
        schema = onnx.defs.OpSchema(
            self.name,
            self.domain,
            self.version,
            self.doc,
            inputs=[_formal(parameter, groups) for parameter in self.inputs],
            outputs=[_formal(parameter, groups) for parameter in self.outputs],
            type_constraints=[
                (group, [f"tensor({kind})" for kind in kinds], "") for group, kinds in groups.items() if group in used
            ],
            attributes=[_attribute(name, value) for name, value in self.attributes.items()],
        )
        if self.shapes is not None:
            schema.set_type_and_shape_inference_function(self._infer)
        return schema

    @cached_property
    def known_schema(self) -> onnx.defs.OpSchema:
        """``schema()``, made once."""
        return self.schema()

    def check(self, node: ir.Node) -> str | None:
        """What is wrong with a node of this operator, None when nothing is."""
        least = len([one for one in self.inputs if not one.optional and not one.variadic])
        most = None if any(one.variadic for one in self.inputs) else len(self.inputs)
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            return f"has {len(node.inputs)} inputs, declared are {least}" + (
                "" if most == least else f" to {most or 'any'}"
            )
        for name in node.attributes:
            if name not in self.attributes:
                return f"has attribute {name!r}, declared are {', '.join(self.attributes) or 'none'}"
        for name, value in self.attributes.items():
            if isinstance(value, type) and name not in node.attributes:
                return f"lacks attribute {name!r}, which has no default"
        return None

    def _infer(self, context: Any) -> None:
        """Bridge between ONNX's inference and the rule."""
        assert self.shapes is not None
        inputs = []
        for position in range(context.get_num_inputs()):
            found = context.get_input_type(position)
            inputs.append(None if found is None or not found.HasField("tensor_type") else _fact(found))
        attributes: dict[str, Any] = {}
        for name, value in self.attributes.items():
            given = context.get_attribute(name)
            attributes[name] = value if given is None else onnx.helper.get_attribute_value(given)
            if isinstance(attributes[name], bytes):
                attributes[name] = attributes[name].decode()
        try:
            facts = list(self.shapes(inputs, attributes))
        except GraphForgeError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise user_error(f"the shape rule of {self.qualified_name} failed", error) from error
        for position, fact in enumerate(facts):
            if position < context.get_num_outputs():
                context.set_output_type(position, _proto(fact))


CUSTOM_OPS: Declared[CustomOp] = Declared("custom_ops")


def custom_op(
    qualified_name: str,
    *,
    inputs: Sequence[str | Parameter],
    outputs: Sequence[str | Parameter],
    attributes: Mapping[str, Any] | None = None,
    types: Mapping[str, Sequence[str]] | None = None,
    shapes: ShapeRule | None = None,
    function: Callable[..., Any] | None = None,
    torch_name: str | None = None,
    library: str | None = None,
    version: int = 1,
    doc: str = "",
    declare: bool = True,
) -> CustomOp:
    """Declare an operator, see ``CustomOp``; ``qualified_name`` is ``domain::Name``.

    Inside ``with graphforge.custom_ops()`` it is known until the block ends, elsewhere in the whole process.  Declaring
    it again, in whatever way, takes the place of the earlier declaration.

    Args:
        declare: False makes the declaration without putting it in force: give it to ``compile(custom_ops=[...])``.

    Raises:
        UsageError: the name or a parameter has another form.
        GraphForgeError: the domain is ONNX's own or ours.
    """
    domain, colons, name = qualified_name.partition("::")
    if not colons or not re.fullmatch(r"[A-Za-z][\w.]*", domain) or not name.isidentifier():
        raise UsageError(
            f"cannot read operator name {qualified_name!r}", "write it as domain::Name, for example acme::Sort"
        )
    if domain in ("ai.onnx", "onnx", _OUR_DOMAIN):
        raise GraphForgeError(f"{qualified_name}: the domain {domain} is taken", "use a domain of your own")
    op = CustomOp(
        domain=domain,
        name=name,
        inputs=_parameters(inputs),
        outputs=_parameters(outputs),
        attributes=dict(attributes or {}),
        types={group: tuple(kinds) for group, kinds in (types or {}).items()},
        shapes=shapes,
        function=function,
        torch_name=torch_name,
        library=library,
        version=version,
        doc=doc,
    )
    op.schema()  # a type or an attribute that cannot be is told where it is written
    return _declare(op) if declare else op


def semantic_op(
    name: str,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Mapping[str, Any],
    shapes: ShapeRule,
    function: Callable[..., Any],
    torch_name: str,
    types: Mapping[str, Sequence[str]] | None = None,
    doc: str = "",
) -> CustomOp:
    """Declare an operator of GraphForge's own domain; for the files of this room only."""
    return _declare(
        CustomOp(
            domain=_OUR_DOMAIN,
            name=name,
            inputs=_parameters(inputs),
            outputs=_parameters(outputs),
            attributes=dict(attributes),
            types={group: tuple(kinds) for group, kinds in (types or {}).items()},
            shapes=shapes,
            function=function,
            torch_name=torch_name,
            doc=doc,
        )
    )


def _parameters(given: Sequence[str | Parameter]) -> tuple[Parameter, ...]:
    return tuple(one if isinstance(one, Parameter) else Parameter.parse(one) for one in given)


def _declare(op: CustomOp) -> CustomOp:
    """In the scope around the caller, or for the process, where ONNX's registry learns of it too."""
    scope, names = CUSTOM_OPS.destination()
    if op.domain == _OUR_DOMAIN:
        scope = CUSTOM_OPS.process
    for earlier in scope.add(op, names, op.has_the_name_of):
        if scope is CUSTOM_OPS.process:
            onnx.defs.deregister_schema(earlier.name, earlier.version, earlier.domain)
    if scope is CUSTOM_OPS.process:
        onnx.defs.register_schema(op.schema())
        forget_schemas()
    return op


def withdraw(op: CustomOp | str) -> bool:
    """Forget a declaration, the object or ``domain::Name``; False when there was none."""

    def matches(one: CustomOp) -> bool:
        return one is op or one.qualified_name == op

    everywhere = [one for one in CUSTOM_OPS.process.items() if matches(one)]
    gone = CUSTOM_OPS.withdraw(matches)
    for one in everywhere:
        onnx.defs.deregister_schema(one.name, one.version, one.domain)
    forget_schemas()
    return bool(gone)


def declared_ops() -> list[CustomOp]:
    """Every operator that is declared here, in order of declaration; a scope's goes before the process's."""
    found: dict[tuple[str, str], CustomOp] = {}
    for scope in (CUSTOM_OPS.process, *CUSTOM_OPS.scopes()):
        found |= {(one.domain, one.name): one for one in scope.items()}
    return list(found.values())


def find_op(domain: str, name: str) -> CustomOp | None:
    """The declaration of an operator, None when there is none here."""
    return next((one for one in declared_ops() if (one.domain, one.name) == (domain, name)), None)


def _scoped_schema(domain: str, name: str) -> onnx.defs.OpSchema | None:
    """The schema of an operator that is declared for a block of code, of which ONNX's registry knows nothing."""
    for scope in reversed(CUSTOM_OPS.scopes()):
        for one in scope.items():
            if (one.domain, one.name) == (domain, name):
                return one.known_schema
    return None


look_up_schemas(_scoped_schema)


def _formal(parameter: Parameter, groups: Mapping[str, Sequence[str]]) -> onnx.defs.OpSchema.FormalParameter:
    option = onnx.defs.OpSchema.FormalParameterOption
    kind = parameter.type if parameter.type in groups else f"tensor({parameter.type})"
    if parameter.type not in groups and parameter.type.upper() not in ir.DataType.__members__:
        raise UsageError(
            f"parameter {parameter.name}: unknown type {parameter.type!r}",
            "write an element type (float, int64, ...) or the name of a group given in types",
        )
    param_option = option.Variadic if parameter.variadic else option.Optional if parameter.optional else option.Single
    return onnx.defs.OpSchema.FormalParameter(parameter.name, kind, param_option=param_option)


def _attribute(name: str, value: Any) -> onnx.defs.OpSchema.Attribute:
    kinds = onnx.defs.OpSchema.AttrType
    required = {int: kinds.INT, bool: kinds.INT, float: kinds.FLOAT, str: kinds.STRING, list: kinds.INTS}
    if isinstance(value, type):
        if value not in required:
            raise UsageError(
                f"attribute {name}: {value.__name__} is not an attribute type", "use int, float, str or list"
            )
        return onnx.defs.OpSchema.Attribute(name, required[value], "")
    return onnx.defs.OpSchema.Attribute(name, onnx.helper.make_attribute(name, value), "")


def _fact(proto: onnx.TypeProto) -> TensorFact:
    tensor = proto.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return TensorFact(dtype)
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        dims.append(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None)
    return TensorFact(dtype, tuple(dims))


def _proto(fact: TensorFact) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(onnx.TensorProto.DataType.Value(fact.dtype.upper()), fact.shape)
