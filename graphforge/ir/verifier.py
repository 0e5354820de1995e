"""The verifier: is this graph well formed and valid ONNX, and may it stand at this level?

One walk in the order of the data, linear in nodes and uses: about 10 ms for a thousand nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.errors import InternalError
from graphforge.ir.bodies import bodies_of
from graphforge.ir.builder import HOME_OPSET
from graphforge.ir.describe import describe
from graphforge.ir.levels import LEVEL_RULES, Level, LevelRule
from graphforge.ir.versions import ConflictKind, conflict_of

__all__ = ["Problem", "find_problems", "first_problems", "verify_graph"]

# A broken graph is usually broken in many places for one reason; a reader needs the first few.
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a graph.

    Attributes:
        text: what is the matter, one line.
        node: the node that is at fault; None where it is not one node.
        operand: position of the operand that is at fault.
        attribute: name of the attribute that is at fault.
    """

    text: str
    node: ir.Node | None = None
    operand: int | None = None
    attribute: str | None = None

    def __str__(self) -> str:
        return self.text

    def here(self) -> str:
        """The lines around the node with carets under the culprit, as a note of an error; "" without a node."""
        from graphforge.ir.snippet import here  # the printer walks graphs with the functions below

        return "" if self.node is None else here(self.node, operand=self.operand, attribute=self.attribute)


def verify_graph(model: ir.Model, level: Level | None = None) -> None:
    """Check that the model is well formed and, where a level is given, keeps that level's promises.

    Raises:
        InternalError: it does not; the message lists the first problems with the node and its origin.
    """
    problems = first_problems(model, level)
    if problems:
        where = "" if level is None else f" at level {level.value}"
        raise InternalError(f"the graph is not well formed{where}:\n  " + "\n  ".join(problems))


def first_problems(model: ir.Model, level: Level | None = None) -> list[str]:
    """The first few problems of the model, one line each, and a last line where there are more.

    Where the first one is that of a node, the lines of the graph around that node come second.
    """
    found = list(itertools.islice(find_problems(model, level), _SHOWN + 1))
    lines = [str(problem) for problem in found[:_SHOWN]] + ["... and more"] * (len(found) > _SHOWN)
    place = found[0].here() if found else ""
    return [*lines[:1], place, *lines[1:]] if place else lines


def find_problems(model: ir.Model, level: Level | None = None) -> Iterator[Problem]:
    """Every problem of the model; nothing when it is well formed."""
    rule = None if level is None else LEVEL_RULES[level]
    graph = model.graph
    opset = graph.opset_imports.get("", HOME_OPSET)
    if rule is not None and rule.standard_opset_is_home and opset != HOME_OPSET:
        yield Problem(f"the default domain is at opset {opset}, expected the home opset {HOME_OPSET}")
    if rule is not None and rule.functions_inlined and model.functions:
        names = ", ".join(str(function.name) for function in model.functions.values())
        yield Problem(f"the model still has functions: {names}")
    functions = {(function.domain, function.name) for function in model.functions.values()}
    checker = _Checker(opset, rule, functions, graph.opset_imports)
    yield from checker.graph(graph, set(), {}, is_main=True)


class _Checker:
    """One walk over a graph and its bodies."""

    def __init__(
        self, opset: int, rule: LevelRule | None, functions: set[tuple[str, str]], imports: Mapping[str, int]
    ) -> None:
        self.opset = opset
        self.rule = rule
        self.functions = functions
        self.imports = imports
        self.forbidden = {} if rule is None else dict(rule.forbidden_ops)
        self.types_known = rule is not None and rule.types_known
        self.known_ops: dict[tuple[str, str], str | None] = {}

    def graph(
        self, graph: ir.Graph, visible: set[ir.Value], scope: dict[str, ir.Value], *, is_main: bool = False
    ) -> Iterator[Problem]:
        """Check one graph; ``visible`` and ``scope`` hold what the enclosing graphs define, left as they were."""
        values: list[ir.Value] = []
        names: set[str] = set()

        def define(value: ir.Value) -> str | None:
            values.append(value)
            visible.add(value)
            name = value.name
            if not name:
                return f"{_describe_value(value)} has no name"
            if name in scope:
                other = _describe_value(scope[name])
                if name in names:
                    return f"the name {name!r} is given to {_describe_value(value)} and to {other}"
                return f"the name {name!r} of {_describe_value(value)} hides {other} of an enclosing graph"
            names.add(name)
            scope[name] = value
            return None

        for value in graph.inputs:
            if problem := define(value):
                yield Problem(problem)
        for key, value in graph.initializers.items():
            if value.name != key:
                yield Problem(f"initializer {key!r} holds a value named {value.name!r}")
            tensor = value.const_value
            if tensor is None:
                yield Problem(f"initializer {key!r} has no data")
            elif value.dtype is not None and value.dtype != tensor.dtype:
                yield Problem(
                    f"initializer {key!r} says {value.dtype.name.lower()}, its data are {tensor.dtype.name.lower()}"
                )
            elif value.shape is not None and value.shape != (shape := tensor.shape):
                yield Problem(f"initializer {key!r} says {value.shape}, its data are {shape}")
            if value.producer() is not None:
                yield Problem(f"initializer {key!r} is also the output of a node")
            if not value.is_graph_input() and (problem := define(value)):
                yield Problem(problem)
        for node in graph:
            yield from self._node(graph, node, visible)
            for body in bodies_of(node):
                yield from self.graph(body, visible, scope)
            for position, value in enumerate(node.outputs):
                if value.producer() is not node or value.index() != position:
                    yield Problem(f"{describe(node)}: output {position} does not know its producer", node)
                if value in visible:
                    yield Problem(f"{describe(node)}: output {value.name!r} is defined twice", node)
                if value.name == "" and not value._uses and not value.is_graph_output():
                    continue  # an optional output that is not asked for
                if problem := define(value):
                    yield Problem(problem, node)
                if self.types_known and value.type is None and _can_be_typed(node):
                    yield Problem(f"{describe(node)}: the type of output {value.name!r} is unknown", node)
        if is_main and not graph.outputs:
            yield Problem("the graph has no outputs")
        for position, value in enumerate(graph.outputs):
            if value not in visible:
                yield Problem(f"output {position} ({value.name!r}) is computed nowhere in the graph")
            if not value.is_graph_output():
                yield Problem(f"output {position} ({value.name!r}) does not know that it is one")
        visible.difference_update(values)
        for name in names:
            del scope[name]

    def _node(self, graph: ir.Graph, node: ir.Node, visible: set[ir.Value]) -> Iterator[Problem]:
        if node.graph is not graph:
            yield Problem(f"{describe(node)}: does not know which graph it stands in", node)
        for position, value in enumerate(node.inputs):
            if value is None:
                continue
            if value not in visible:
                text = f"{describe(node)}: input {position} ({value.name!r}) is not defined before it"
                yield Problem(text, node, position)
            # Looks into the dict of uses itself: `uses()` copies it, which for a value used everywhere is quadratic.
            if (node, position) not in value._uses:
                text = f"{describe(node)}: input {position} ({value.name!r}) does not list this use"
                yield Problem(text, node, position)
        key = (node.domain, node.op_type)
        if key not in self.known_ops:
            self.known_ops[key] = self._judge(*key)
        problem = self.known_ops[key]
        if problem is not None:
            yield Problem(f"{describe(node)}: {problem}", node)
        elif node.domain == "" and (conflict := conflict_of(node, self.opset)):
            attribute = conflict.name if conflict.kind is ConflictKind.ATTRIBUTE else None
            yield Problem(f"{describe(node)}: {conflict.text}", node, attribute=attribute)

    def _judge(self, domain: str, op_type: str) -> str | None:
        """What the level has against every node of an operator."""
        rule = self.rule
        if rule is None:
            return None
        if domain == "" and op_type == "Constant" and rule.constants_are_initializers:
            return "constants are initializers, not nodes"
        if domain == "" and op_type in self.forbidden:
            return f"may not stand here: {self.forbidden[op_type]}"
        if (domain, op_type) in self.functions:
            return None
        if domain == "graphforge" and not rule.semantic_ops:
            return "an operator of the graphforge domain must be lowered by now"
        if rule.domains_imported and domain not in self.imports:
            return f"the model does not say which version of the domain {domain or 'ai.onnx'!r} it uses"
        return None


def _can_be_typed(node: ir.Node) -> bool:
    """Whether ONNX says what the node's outputs are: it knows the operator, and what the node reads is typed."""
    return node.domain == "" and all(value is None or value.type is not None for value in node.inputs)


def _describe_value(value: ir.Value) -> str:
    producer = value.producer()
    if producer is not None:
        return f"an output of ({describe(producer)})"
    kind = "input" if value.is_graph_input() else "initializer"
    return f"{kind} {value.name!r}"
