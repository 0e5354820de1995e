"""Lower a captured program to our IR, node by node, from the un-decomposed ATen graph.

For each operator, in this order: our own rule; the operator's decomposition, of that node alone; the stock exporter's
translation, of that node alone (a *fallback*, reported); else an error naming operator, module path and source line.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import sympy
import torch
from onnx_ir.tensor_adapters import TorchTensor

from graphforge.errors import GraphForgeError, LoweringError
from graphforge.frontend.aliasing import functional_name, is_mutation, scatter_back, view_base
from graphforge.frontend.captured import Captured
from graphforge.frontend.emitter import Emitter, dim_label
from graphforge.frontend.rules import rule_for
from graphforge.ir import HOME_OPSET, Origin

__all__ = ["Lowered", "lower"]

# Operators that check or annotate and compute nothing that an artifact needs.
_IGNORED = {
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten._assert_scalar.default",
    "aten._assert_tensor_metadata.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
}


@dataclass(slots=True)
class Lowered:
    """The lowered model and what had to be done beside our own rules.

    Attributes:
        model: level CAPTURED.
        fallbacks: operators translated by the stock exporter: (operator, module path, source line).
        decomposed: operators that went through torch's decomposition of that node: name -> how often.
        notes: what the user should know.
    """

    model: ir.Model
    fallbacks: list[tuple[str, str, str]] = field(default_factory=list)
    decomposed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class _NeedsFunctionalisation(Exception):
    """A write goes through a view that we cannot invert."""


def lower(captured: Captured) -> Lowered:
    """Lower a captured program.

    Raises:
        LoweringError: an operator has no lowering; the message names it, its module path and its source line.
    """
    try:
        return _Lowering(captured).run()
    except _NeedsFunctionalisation as why:
        if captured.program is None:
            raise LoweringError(
                f"a write in place cannot be followed: {why}", "write it out of place, or use torch.where"
            ) from None
        from graphforge.frontend.capture import captured_from_program

        functional = captured_from_program(captured.program.run_decompositions({}), captured)
        lowered = _Lowering(functional).run()
        lowered.notes.append(f"the whole program was functionalised by torch: {why}")
        return lowered


class _Lowering:
    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}, name="main")
        self.model = ir.Model(graph, ir_version=10, producer_name="graphforge")
        self.lowered = Lowered(self.model)
        self.op = Emitter(graph)
        self.op.symbol_names = {
            symbol: sympy.Symbol(name, integer=True, positive=True) for symbol, name in captured.symbols.items()
        }
        self.weights: dict[tuple[Any, ...], ir.Value] = {}

    def run(self) -> Lowered:
        main = _Scope(self, self.op, self.captured.graph_module)
        for node in self.captured.graph_module.graph.nodes:
            if node.op == "placeholder":
                main.env[node] = self.placeholder(node)
        results = main.run()
        flat: list[Any] = []
        torch.fx.map_arg(results, lambda leaf: leaf)
        _flatten(results, flat)
        self.outputs(flat)
        return self.lowered

    def placeholder(self, node: torch.fx.Node) -> Any:
        captured = self.captured
        if node.name in captured.weights:
            return self.weight(*captured.weights[node.name])
        if node.name in captured.constants:
            return captured.constants[node.name]
        fake = node.meta.get("val")
        name = captured.input_names[node.name]
        if not isinstance(fake, torch.Tensor):
            if isinstance(fake, torch.SymInt | torch.SymFloat):
                raise GraphForgeError(f"input {name!r} is a dynamic number; pass it as a tensor")
            return fake
        value = ir.Value(name=name, type=ir.TensorType(self.op.dtype_of(fake)), shape=self.shape(fake))
        self.model.graph.inputs.append(value)
        return value

    def shape(self, fake: torch.Tensor) -> ir.Shape:
        labels = [dim_label(size, self.op.symbol_names) for size in fake.shape]
        return ir.Shape([label if isinstance(label, int) else ir.SymbolicDim(label) for label in labels])

    def weight(self, name: str, tensor: torch.Tensor) -> ir.Value:
        """One initializer for each distinct tensor: tied weights share it, nothing is copied."""
        if isinstance(tensor, torch.nn.Parameter):
            tensor = tensor.data
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
        if tensor.numel() and key in self.weights:
            return self.weights[key]
        if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
            raise GraphForgeError(
                f"weight {name!r} has dtype {tensor.dtype} and layout {tensor.layout}, which has no ONNX form"
            )
        value = self.op.constant(TorchTensor(tensor.detach(), name=name), name=name)
        self.weights[key] = value
        return value

    def outputs(self, results: list[Any]) -> None:
        graph = self.model.graph
        taken: set[int] = set()
        inputs = set(graph.inputs)
        for name, result in zip(self.captured.output_names, results, strict=True):
            if name is None:
                continue
            if result is None:
                self.lowered.notes.append(f"output {name!r} is None and is left out")
                continue
            value = self.op.scalar(result) if not isinstance(result, ir.Value) else result
            # ONNX wants every output to be a value of its own: not an input, not a weight, not another output
            if id(value) in taken or value in inputs or value.is_initializer():
                shape, dtype = value.shape, value.type
                value = self.op.Identity(value)
                value.shape, value.type = shape, dtype
            taken.add(id(value))
            value.name = name
            graph.outputs.append(value)


class _Scope:
    """One graph being lowered: the main program, a branch, or the decomposition of one operator."""

    def __init__(
        self, lowering: _Lowering, op: Emitter, module: torch.fx.GraphModule, origin: Origin | None = None
    ) -> None:
        self.lowering = lowering
        self.op = op
        self.module = module
        self.origin = origin
        self.env: dict[torch.fx.Node, Any] = {}
        self.bases: dict[torch.fx.Node, torch.fx.Node] = {}
        self.stale: set[torch.fx.Node] = set()
        nodes = module.graph.nodes
        self.has_mutation = any(node.op == "call_function" and is_mutation(node.target) for node in nodes)

    # -- the walk ----------------------------------------------------------------------------------------------------

    def run(self) -> Any:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "output":
                return self.argument(node.args[0])
            if node.op == "get_attr":
                self.env[node] = self.attribute(node)
                continue
            if node.op != "call_function":
                raise LoweringError(
                    f"captured program holds a {node.op} node ({node.target}), expected ATen calls only"
                )
            self.call(node)
        return None

    def attribute(self, node: torch.fx.Node) -> Any:
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            known = self.lowering.captured.weights.get(str(node.target))
            return self.lowering.weight(*known) if known else self.lowering.weight(str(node.target), value)
        return value

    def argument(self, arg: Any) -> Any:
        """An FX argument as a lowering rule receives it."""
        if isinstance(arg, torch.fx.Node):
            if arg in self.stale:
                self.refresh(arg)
            return self.env[arg]
        if isinstance(arg, list | tuple):
            return [self.argument(item) for item in arg]
        if isinstance(arg, dict):
            return {key: self.argument(item) for key, item in arg.items()}
        if isinstance(arg, slice):
            return slice(self.argument(arg.start), self.argument(arg.stop), self.argument(arg.step))
        return arg

    def call(self, node: torch.fx.Node) -> None:
        target = node.target
        if target is operator.getitem:
            self.env[node] = self.argument(node.args[0])[node.args[1]]
            self.note_view(node)
            return
        if str(target) in _IGNORED:
            return
        if isinstance(target, torch._ops.HigherOrderOperator):
            self.env[node] = self.higher_order(node)
            return
        if not isinstance(target, torch._ops.OpOverload):
            self.env[node] = self.symbolic(node)
            return
        if is_mutation(target) and node.args:
            self.mutate(node)
            return
        self.env[node] = self.lower_call(node, str(target))
        self.note_view(node)

    def lower_call(self, node: torch.fx.Node, name: str) -> Any:
        op = self.op
        op.target = name
        op.fx_node = node
        op.result = node.meta.get("val")
        op.inputs = tuple(arg.meta.get("val") if isinstance(arg, torch.fx.Node) else arg for arg in node.args)
        op.origins = (self.origin_of(node, name),)
        plain = _plain_scalar(op.result)
        if plain is not None:
            return plain
        rule = rule_for(name)
        try:
            if rule is None:
                return self.without_rule(node, name)
            arguments = [self.argument(arg) for arg in node.args]
            keywords = {key: self.argument(arg) for key, arg in node.kwargs.items()}
            result = rule(op, *arguments, **keywords)
        except LoweringError as error:
            raise self.located(error, node) from None
        return self.typed(op, result, node.meta.get("val"))

    def typed(self, op: Emitter, result: Any, fake: Any) -> Any:
        """Give what a rule returned the exact dtype check and shape that capture knows."""
        if isinstance(result, ir.Value) and isinstance(fake, torch.Tensor):
            return self.typed_value(op, result, fake)
        if isinstance(result, tuple | list) and isinstance(fake, tuple | list):
            return [
                self.typed_value(op, item, one)
                if isinstance(item, ir.Value) and isinstance(one, torch.Tensor)
                else item
                for item, one in zip(result, fake, strict=False)
            ]
        return result

    def typed_value(self, op: Emitter, value: ir.Value, fake: torch.Tensor) -> ir.Value:
        expected = op.dtype_of(fake)
        if value.dtype is not None and value.dtype != expected:
            value = op.Cast(value, to=expected)
        producer = value.producer()
        if producer is not None and producer.graph is op.graph and not value.is_initializer():
            value.type = ir.TensorType(expected)
            value.shape = self.lowering.shape(fake)
        return value

    def origin_of(self, node: torch.fx.Node, name: str) -> Origin:
        if self.origin is not None:
            return self.origin
        return _origin(node, name)

    def located(self, error: LoweringError, node: torch.fx.Node) -> LoweringError:
        if getattr(error, "located", False):
            return error
        origin = self.origin_of(node, str(node.target))
        notes = [f"at {origin.describe()}", *error.notes]
        line = _source_text(node)
        if line:
            notes.insert(1, f"line: {line}")
        fresh = LoweringError(error.message, *notes)
        fresh.located = True  # type: ignore[attr-defined]
        return fresh

    # -- views and writes --------------------------------------------------------------------------------------------

    def note_view(self, node: torch.fx.Node) -> None:
        if not self.has_mutation:
            return
        base = view_base(node)
        if base is not None and base in self.env:
            self.bases[node] = base

    def refresh(self, node: torch.fx.Node) -> None:
        """Read a view again after its base was written."""
        self.stale.discard(node)
        base = self.bases[node]
        if base in self.stale:
            self.refresh(base)
        if node.target is operator.getitem:
            self.env[node] = self.argument(node.args[0])[node.args[1]]
        elif is_mutation(node.target):
            self.env[node] = self.argument(base)  # what an in-place operator returns is its first argument
        else:
            self.env[node] = self.lower_call(node, str(node.target))

    def mutate(self, node: torch.fx.Node) -> None:
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        written = [
            position
            for position, argument in enumerate(target._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        name = str(target)
        if (written != [0] or not isinstance(node.args[0], torch.fx.Node)) and rule_for(name) is None:
            raise self.located(LoweringError(f"{name}: writes to arguments other than its first"), node)
        subject = node.args[0]
        assert isinstance(subject, torch.fx.Node)
        if rule_for(name) is None and rule_for(functional_name(target)) is not None:
            name = functional_name(target)
        new = self.lower_call(node, name)
        if isinstance(new, list | tuple):
            new = new[0]
        self.env[node] = new
        self.env[subject] = new
        self.stale.discard(subject)
        if node in self.bases:
            del self.bases[node]
        fresh = {subject}
        # what the write returns is the subject itself
        current = subject
        while current in self.bases:
            base = self.bases[current]
            self.op.origins = (self.origin_of(node, name),)
            base_value = self.argument(base)
            if isinstance(base_value, list):  # a split or unbind: go on to the tensor that was cut
                self.bases_through_list(current, base)
                base = self.bases[current]
                base_value = self.argument(base)
            updated = scatter_back(self.op, current, base_value, self.env[current], self.argument)
            if updated is None:
                raise _NeedsFunctionalisation(f"{node.target} writes through {current.target}")
            fake = base.meta.get("val")
            self.env[base] = self.typed_value(self.op, updated, fake) if isinstance(fake, torch.Tensor) else updated
            self.stale.discard(base)
            fresh.add(base)
            current = base
        root = current
        for view in self.bases:
            if view not in fresh and self.root_of(view) is root:
                self.stale.add(view)
        if node is not subject:
            self.bases[node] = subject
            self.env[node] = new

    def bases_through_list(self, view: torch.fx.Node, listed: torch.fx.Node) -> None:
        base = self.bases.get(listed)
        if base is None:
            raise _NeedsFunctionalisation(f"a write through {listed.target}")
        self.bases[view] = base

    def root_of(self, node: torch.fx.Node) -> torch.fx.Node:
        while node in self.bases:
            node = self.bases[node]
        return node

    # -- sizes -------------------------------------------------------------------------------------------------------

    def symbolic(self, node: torch.fx.Node) -> Any:
        """Arithmetic on sizes: Python operators and torch.sym_* calls."""
        result = node.meta.get("val")
        plain = _plain_scalar(result)
        if plain is not None:
            return plain
        from graphforge.frontend.symbolic import lower_symbolic

        self.op.origins = (self.origin_of(node, getattr(node.target, "__name__", str(node.target))),)
        try:
            return lower_symbolic(self.op, node.target, [self.argument(arg) for arg in node.args], result)
        except LoweringError as error:
            raise self.located(error, node) from None

    # -- operators without a rule ------------------------------------------------------------------------------------

    def without_rule(self, node: torch.fx.Node, name: str) -> Any:
        from graphforge.frontend.decompose import decompose_call

        decomposed = decompose_call(node)
        if decomposed is not None:
            module, placeholders = decomposed
            scope = _Scope(self.lowering, self.op, module, origin=self.origin_of(node, name))
            inner = [item for item in module.graph.nodes if item.op == "placeholder"]
            for item, argument in zip(inner, placeholders, strict=True):
                scope.env[item] = self.argument(argument)
            self.lowering.lowered.decomposed[name] = self.lowering.lowered.decomposed.get(name, 0) + 1
            return scope.run()
        from graphforge.frontend.stock import translate_call

        origin = self.origin_of(node, name)
        arguments = [self.argument(arg) for arg in node.args]
        keywords = {key: self.argument(arg) for key, arg in node.kwargs.items()}
        result = translate_call(self.op, node, arguments, keywords)
        self.lowering.lowered.fallbacks.append((name, origin.module, origin.source))
        return result

    # -- higher-order operators --------------------------------------------------------------------------------------

    def higher_order(self, node: torch.fx.Node) -> Any:
        name = node.target.name() if callable(getattr(node.target, "name", None)) else str(node.target)
        if name in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            position = next(i for i, arg in enumerate(node.args) if self.is_module(arg))
            return self.inline(node, self.argument(node.args[position]), list(node.args[position + 1 :]))
        if name == "cond":
            return self.cond(node)
        raise self.located(LoweringError(f"higher-order operator {name} has no lowering"), node)

    def is_module(self, arg: Any) -> bool:
        return isinstance(arg, torch.fx.Node) and isinstance(self.env.get(arg), torch.fx.GraphModule)

    def inline(self, node: torch.fx.Node, module: torch.fx.GraphModule, arguments: list[Any]) -> Any:
        scope = _Scope(self.lowering, self.op, module, origin=self.origin)
        placeholders = [item for item in module.graph.nodes if item.op == "placeholder"]
        for item, argument in zip(placeholders, arguments, strict=True):
            scope.env[item] = self.argument(argument)
        return scope.run()

    def cond(self, node: torch.fx.Node) -> Any:
        predicate, true_module, false_module, operands = node.args[:4]
        assert isinstance(operands, list | tuple)
        condition = self.op.scalar(self.argument(predicate))
        fakes = node.meta["val"]
        branches = []
        self.op.origins = (self.origin_of(node, "cond"),)
        for which in (true_module, false_module):
            body = ir.Graph([], [], nodes=[], name=str(which))
            emitter = Emitter(body, constants=self.op.constants, origins=self.op.origins)
            emitter.symbol_names = self.op.symbol_names
            scope = _Scope(self.lowering, emitter, self.argument(which), origin=self.origin)
            placeholders = [item for item in scope.module.graph.nodes if item.op == "placeholder"]
            for item, operand in zip(placeholders, operands, strict=True):
                scope.env[item] = self.argument(operand)
            for value in _flatten(scope.run(), []):
                result = emitter.scalar(value) if not isinstance(value, ir.Value) else value
                if result.graph is not body or result in body.outputs:
                    shape = result.shape
                    result = emitter.Identity(result)
                    result.shape = shape
                body.outputs.append(result)
            branches.append(body)
        results = self.op.node("If", [condition], _outputs=len(fakes), then_branch=branches[0], else_branch=branches[1])
        values = [results] if isinstance(results, ir.Value) else list(results)
        for value, fake in zip(values, fakes, strict=True):
            value.type = ir.TensorType(self.op.dtype_of(fake))
            value.shape = self.lowering.shape(fake)
        return values


def _plain_scalar(result: Any) -> Any:
    """The Python number of a captured scalar whose value is known, else None."""
    if isinstance(result, torch.SymInt | torch.SymFloat | torch.SymBool):
        expression = result.node.expr
        if isinstance(result, torch.SymInt) and expression.is_Integer:
            return int(expression)
        if isinstance(result, torch.SymFloat) and expression.is_number:
            return float(expression)
        if isinstance(result, torch.SymBool) and expression in (sympy.true, sympy.false):
            return bool(expression)
        return None
    return result if isinstance(result, int | float | bool) else None


def _flatten(results: Any, into: list[Any]) -> list[Any]:
    if isinstance(results, list | tuple):
        for item in results:
            _flatten(item, into)
    elif isinstance(results, dict):
        for item in results.values():
            _flatten(item, into)
    else:
        into.append(results)
    return into


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)')


def _frames(node: torch.fx.Node) -> list[tuple[str, str, str]]:
    trace = node.meta.get("stack_trace") or node.stack_trace or ""
    return _FRAME.findall(trace)


def _source_text(node: torch.fx.Node) -> str:
    frames = _frames(node)
    return frames[-1][2].strip() if frames else ""


def _origin(node: torch.fx.Node, name: str) -> Origin:
    module = module_class = ""
    stack = node.meta.get("nn_module_stack")
    if stack:
        module, described = next(reversed(stack.values()))
        module_class = described if isinstance(described, str) else f"{described.__module__}.{described.__qualname__}"
        module = _clean_module_path(module)
    file, line = "", 0
    frames = _frames(node)
    # the innermost frame of the user's own code; torch's internals say nothing to the user
    for path, number, _ in reversed(frames):
        file, line = path, int(number)
        if "/torch/nn/" not in path and "/torch/_" not in path:
            break
    return Origin(module=module, module_class=module_class, target=name, file=file, line=line, value=node.name)


_SELF_PREFIX = re.compile(r"^L\['self'\]\.?|^L__self___?")


def _clean_module_path(path: str) -> str:
    """``L['self']._modules['conv']`` and ``L__self___conv`` forms of strict export, made plain."""
    path = _SELF_PREFIX.sub("", path)
    return re.sub(r"_modules\['([^']+)'\]|\.?slice\([^)]*\)", lambda m: m.group(1) or "", path).strip(".")
