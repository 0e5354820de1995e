"""Lower a captured program to our IR, node by node, from the un-decomposed ATen graph.

For each operator, in this order: our own rule; the operator's decomposition, of that node alone; the stock exporter's
translation, of that node alone (a *fallback*, reported); else an error naming operator, module path and source line.
"""

from __future__ import annotations

import linecache
import operator
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import sympy
import torch
from onnx_ir.tensor_adapters import TorchTensor

from graphforge.call import LEFT_OUT
from graphforge.errors import GraphForgeError, LoweringError
from graphforge.frontend.aliasing import (
    Cell,
    NotInvertible,
    cells_of,
    changes_view,
    functional_twin,
    is_mutation,
    shared_argument,
    written_arguments,
)
from graphforge.frontend.autocast import as_autocast
from graphforge.frontend.captured import SIZES_TO_TRY, Captured
from graphforge.frontend.complex.pair import (
    Pair,
    Stored,
    holds_complex,
    holds_pairs,
    is_complex,
    real_fake,
    stacked,
    unstacked,
)
from graphforge.frontend.complex.parts import by_parts, works_by_parts
from graphforge.frontend.complex.registry import pair_lowering_for
from graphforge.frontend.complex.writing import stored_back
from graphforge.frontend.control_flow import CONTROL_FLOW
from graphforge.frontend.declared import declared_for, lower_declared
from graphforge.frontend.emitter import Emitter, SymbolicScalar, dim_label
from graphforge.frontend.rules import lowering_for
from graphforge.frontend.symbolic import dim_sources, from_expression, lower_symbolic
from graphforge.frontend.user_stacks import frames_in, is_vendor_file
from graphforge.frontend.weights_alone import computed, hanging_on
from graphforge.ir import HOME_OPSET, Origin, bodies_of
from graphforge.ir.images import IMAGE_BY_IMAGE
from graphforge.ir.names import make_names_unique
from graphforge.ir.sizes import PROMISED_SIZES
from graphforge.spec import ShapeSpec
from graphforge.user_code import shown_path

__all__ = ["Lowered", "clean_module_path", "lower", "origin_of_node"]

# Operators that check or annotate and compute nothing that an artifact needs.
_IGNORED = {
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten._assert_scalar.default",
    "aten._linalg_check_errors.default",
    "aten._assert_tensor_metadata.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
}


_AS_PAIRS = "a last axis of two, as torch.view_as_real has them"


@dataclass(slots=True)
class Lowered:
    """The lowered model and what had to be done beside our own rules.

    Attributes:
        model: level CAPTURED.
        fallbacks: operators translated by the stock exporter: (operator, module path, source line).
        decomposed: operators that went through torch's decomposition of that node: name -> how often.
        notes: what the user should know.
        captured: the program that was lowered: the one given, or what torch made of it.
    """

    model: ir.Model
    captured: Captured
    fallbacks: list[tuple[str, str, str]] = field(default_factory=list)
    decomposed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def lower(captured: Captured) -> Lowered:
    """Lower a captured program.

    Raises:
        LoweringError: an operator has no lowering; the message names it, its module path and its source line.
    """
    if _is_transformed(captured.graph_module):
        captured = _functional(captured)
    try:
        return _Lowering(captured).run()
    except NotInvertible as why:
        if captured.program is None:
            raise LoweringError(
                f"a write in place cannot be followed: {why}", "write it out of place, or use torch.where"
            ) from None
        lowered = _Lowering(_functional(captured)).run()
        lowered.notes.append(f"the whole program was functionalised by torch: {why}")
        return lowered


def _is_transformed(module: torch.fx.GraphModule) -> bool:
    """Whether calls of torch.func (``vmap``) stand in a program, which torch resolves with everything else."""
    return any(
        str(getattr(node.target, "__module__", "")).startswith("torch._functorch") for node in module.graph.nodes
    )


def _functional(captured: Captured) -> Captured:
    """The program as torch writes it without views, writes in place and transformations; itself where it cannot."""
    from graphforge.frontend.capture import captured_from_program

    if captured.program is None:
        return captured
    return captured_from_program(captured.program.run_decompositions({}), captured)


class _Lowering:
    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}, name="main")
        self.model = ir.Model(graph, ir_version=10, producer_name="graphforge")
        self.lowered = Lowered(self.model, captured, notes=list(captured.notes))
        self.op = Emitter(graph)
        self.op.symbol_names = {symbol: _named(name, captured.shapes) for symbol, name in captured.symbols.items()}
        self.weights: dict[tuple[Any, ...], Stored] = {}
        self.cells: dict[Stored, Cell] = {}
        self.sizes: dict[Any, SymbolicScalar] = {}
        self.kept: set[ir.Value] = set()

    def run(self) -> Lowered:
        main = Scope(self, self.op, self.captured.graph_module)
        for node in self.captured.graph_module.graph.nodes:
            if node.op == "placeholder":
                main.env[node] = self.placeholder(node)
        self.outputs(_flatten(_read(main.run()), []))
        if any(bodies_of(node) for node in self.model.graph):
            make_names_unique(self.model)
        self.lowered.notes += sorted(self.op.notes | self.op.rounded)
        self.model.meta[SIZES_TO_TRY] = self.captured.to_try
        if self.captured.images is not None:
            self.model.meta[IMAGE_BY_IMAGE] = self.captured.images
        self.model.meta[PROMISED_SIZES] = {
            name: range(-(-dim.low // dim.step) * dim.step, dim.high + 1, dim.step)
            for name, dim in self.captured.shapes.dims.items()
        }
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
        shape = self.shape(fake)
        if is_complex(fake):
            shape = ir.Shape([*shape.dims, 2])
        value = ir.Value(name=name, type=ir.TensorType(self.op.dtype_of(real_fake(fake))), shape=shape)
        self.model.graph.inputs.append(value)
        self.sizes = dim_sources(self.op, value, fake) | self.sizes
        if not is_complex(fake):
            return value
        self.lowered.notes.append(
            f"input {name!r} is complex; the artifact takes real and imaginary parts, {_AS_PAIRS}"
        )
        return unstacked(self.op, value)

    def shape(self, fake: torch.Tensor) -> ir.Shape:
        labels = [dim_label(size, self.op.symbol_names) for size in fake.shape]
        return ir.Shape([label if isinstance(label, int) else ir.SymbolicDim(label) for label in labels])

    def weight(self, name: str, tensor: torch.Tensor) -> Stored:
        """One initializer for each distinct tensor: tied weights share it, nothing is copied but complex ones."""
        if isinstance(tensor, torch.nn.Parameter):
            tensor = tensor.data
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
        if tensor.numel() and key in self.weights:
            return self.weights[key]
        if tensor.is_quantized or tensor.layout != torch.strided:
            raise GraphForgeError(
                f"weight {name!r} has dtype {tensor.dtype} and layout {tensor.layout}, which has no ONNX form"
            )
        if tensor.is_complex():
            plain = tensor.detach().resolve_conj()
            parts = {"real": plain.real.contiguous(), "imag": plain.imag.contiguous()}
            pair = Pair(*(self.op.tensor(part, f"{name}.{which}") for which, part in parts.items()))
            self.weights[key] = pair
            return pair
        value = self.op.constant(TorchTensor(tensor.detach(), name=name), name=name)
        self.weights[key] = value
        return value

    def note_write(self, value: Stored, name: str) -> None:
        """Say what becomes of a write to an input or a buffer.

        Raises:
            LoweringError: the buffer shares its memory with another one, which would have to change too.
        """
        if isinstance(value, Pair):
            note = f"{name!r} is written in place; the artifact starts every call from its present value"
        elif value in self.model.graph.inputs:
            note = f"input {value.name!r} is written in place; the artifact leaves its input as it is"
        else:
            tensor = self.op.weight(value)
            if tensor is not None:
                memory = tensor.untyped_storage().data_ptr()
                for other in self.weights.values():
                    twin = None if isinstance(other, Pair) else self.op.weight(other)
                    if other is not value and twin is not None and twin.untyped_storage().data_ptr() == memory:
                        named = getattr(other, "name", "")
                        raise LoweringError(f"{value.name} is written in place and shares memory with {named}")
                if value not in self.kept:
                    self.kept.add(value)  # the model itself will go on writing to this memory
                    value.const_value = TorchTensor(tensor.clone(), name=value.name)
            note = f"{value.name!r} is written in place; the artifact starts every call from its present value"
        if note not in self.lowered.notes:
            self.lowered.notes.append(note)

    def outputs(self, results: list[Any]) -> None:
        graph = self.model.graph
        taken: set[int] = set()
        inputs = set(graph.inputs)
        names = {value.name for value in inputs} | set(self.captured.output_names)
        told = list(zip(self.captured.output_names, results, strict=True))
        if all(name is None or result is None or isinstance(result, LEFT_OUT) for name, result in told):
            raise GraphForgeError("the model returns nothing", "end its forward with a return of its results")
        for name, result in told:
            if name is None:
                continue
            if result is None:
                self.lowered.notes.append(f"output {name!r} is None and is left out")
                continue
            if isinstance(result, LEFT_OUT):
                self.lowered.notes.append(
                    f"output {name!r} is {result!r}, expected tensors and numbers; it is left out"
                )
                continue
            if isinstance(result, Pair):
                self.lowered.notes.append(
                    f"output {name!r} is complex; the artifact returns real and imaginary parts, {_AS_PAIRS}"
                )
                result = stacked(self.op, result)
            value = result if isinstance(result, ir.Value) else self.number(result)
            # ONNX wants every output to be a value of its own: not an input, not a weight, not another output
            if id(value) in taken or value in inputs or value.is_initializer():
                shape, dtype = value.shape, value.type
                value = self.op.Identity(value)
                value.shape, value.type = shape, dtype
            taken.add(id(value))
            if any(name == other.name for other in inputs):  # ONNX names all values of a graph apart
                was = name
                while name in names:
                    name = f"output_{name}"
                names.add(name)
                self.lowered.notes.append(f"output {was!r} is called {name!r}, since an input is called {was!r}")
            value.name = name
            graph.outputs.append(value)

    def number(self, result: Any) -> ir.Value:
        """A Python number as an output: its floats are those of float64."""
        value = self.op.scalar(result, ir.DataType.DOUBLE if isinstance(result, float) else None)
        return self.op.cast(value, ir.DataType.DOUBLE) if value.dtype == ir.DataType.FLOAT else value


class Scope:
    """One graph being lowered: the main program, a branch, or the decomposition of one operator."""

    def __init__(
        self, lowering: _Lowering, op: Emitter, module: torch.fx.GraphModule, origin: Origin | None = None
    ) -> None:
        self.lowering = lowering
        self.op = op
        self.module = module
        self.origin = origin
        self.source_text = ""
        self.env: dict[torch.fx.Node, Any] = {}
        self.checks = _checks(module)
        nodes = [
            node for part in module.modules() if isinstance(part, torch.fx.GraphModule) for node in part.graph.nodes
        ]
        self.has_mutation = any(node.op == "call_function" and is_mutation(node.target) for node in nodes)
        self.has_complex = any(holds_complex(node.meta.get("val")) for node in nodes)

    # -- the walk ----------------------------------------------------------------------------------------------------

    def run(self) -> Any:
        """Lower the whole graph and return its results, tensors that may still be written as cells."""
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.env[node] = self.stored(node, self.env[node])
                continue
            if node.op == "output":
                return self.stored_argument(node.args[0])
            if node.op == "get_attr":
                self.env[node] = self.stored(node, self.attribute(node))
                continue
            if node.op != "call_function":
                raise LoweringError(
                    f"captured program holds a {node.op} node ({node.target}), expected ATen calls only"
                )
            self.call(node)
        return None

    def stored(self, node: torch.fx.Node, value: Any) -> Any:
        """An input, weight or constant as the environment keeps it: in a cell where the program writes in place."""
        if not self.has_mutation or not isinstance(value, ir.Value | Pair):
            return value
        if node.op == "placeholder" and self.module is not self.lowering.captured.graph_module:
            return Cell(value, node.meta.get("val"))  # a decomposition's operand, by value
        cells = self.lowering.cells
        if value not in cells:  # tied weights are one tensor
            cells[value] = Cell(
                value, node.meta.get("val"), on_write=lambda: self.lowering.note_write(value, node.name)
            )
        return cells[value]

    def in_cells(self, value: Any) -> Any:
        """Results that share memory with nothing else, as the environment keeps them."""
        if not self.has_mutation:
            return value
        if isinstance(value, list | tuple):
            return [self.in_cells(item) for item in value]
        return Cell(value) if isinstance(value, ir.Value | Pair) else value

    def attribute(self, node: torch.fx.Node) -> Any:
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            known = self.lowering.captured.weights.get(str(node.target))
            return self.lowering.weight(*known) if known else self.lowering.weight(str(node.target), value)
        return value

    def stored_argument(self, arg: Any) -> Any:
        """An FX argument as the environment keeps it."""
        if isinstance(arg, torch.fx.Node):
            return self.env[arg]
        if isinstance(arg, list | tuple):
            return [self.stored_argument(item) for item in arg]
        if isinstance(arg, dict):
            return {key: self.stored_argument(item) for key, item in arg.items()}
        if isinstance(arg, slice):
            return slice(*(self.stored_argument(item) for item in (arg.start, arg.stop, arg.step)))
        return arg

    def argument(self, arg: Any) -> Any:
        """An FX argument as a lowering rule receives it."""
        return _read(self.stored_argument(arg))

    def call(self, node: torch.fx.Node) -> None:
        target = node.target
        if target is operator.getitem:
            self.env[node] = self.env[node.args[0]][node.args[1]]  # type: ignore[index]
            return
        if node in self.checks:
            return
        if isinstance(target, torch._ops.HigherOrderOperator):
            self.env[node] = self.in_cells(self.higher_order(node))
            return
        if not isinstance(target, torch._ops.OpOverload):
            self.env[node] = self.symbolic(node)
            return
        if is_mutation(target):
            self.mutate(node, target)
            return
        arguments, keywords = self.argument(list(node.args)), self.argument(node.kwargs)
        result = self.lower_call(node, target, arguments, keywords)
        self.env[node] = self.with_views(node, target, result, arguments, keywords)

    def lower_call(
        self, node: torch.fx.Node, target: torch._ops.OpOverload, arguments: list[Any], keywords: dict[str, Any]
    ) -> Any:
        """Lower one call; ``target`` is the node's own operator, or the functional twin of one that writes in place."""
        op, name = self.op, str(target)
        op.target = name
        op.fx_node = node if target is node.target else None  # a write wants every result, read or not
        op.result = node.meta.get("val")
        op.inputs = tuple(arg.meta.get("val") if isinstance(arg, torch.fx.Node) else arg for arg in node.args)
        op.origins = (self.origin_of(node, name),)
        plain = _plain_scalar(op.result)
        if plain is not None:
            return plain
        nothing = self.without_elements(op.result)
        if nothing is not None:
            return nothing
        on_pairs = self.has_complex and (holds_complex(op.result) or holds_pairs(arguments) or holds_pairs(keywords))
        lowering = lowering_for(name)
        try:
            if on_pairs:
                return self.lower_over_pairs(node, target, arguments, keywords)
            if lowering is None:
                return self.without_rule(node, target, arguments, keywords)
            arguments = as_autocast(op, name, arguments)
            result = lowering(op, *arguments, **keywords)
        except LoweringError as error:
            known = self.from_weights(node)
            if known is None:
                raise self.located(error, node) from None
            return known
        return self.typed(op, result, node.meta.get("val"))

    def without_elements(self, result: Any) -> Any:
        """A call's result where it has no elements at any promised size: constants, which no runtime stumbles over."""
        results = list(result) if isinstance(result, tuple | list) else [result]
        if not results or not all(isinstance(one, torch.Tensor) and not one.is_complex() for one in results):
            return None
        shapes = [[*one.shape] for one in results]
        if any(not all(isinstance(size, int) for size in shape) or 0 not in shape for shape in shapes):
            return None
        made = [
            self.op.constant(np.zeros(shape), self.op.dtype_of(one)) for shape, one in zip(shapes, results, strict=True)
        ]
        return made if isinstance(result, tuple | list) else made[0]

    def from_weights(self, node: torch.fx.Node) -> Any:
        """The result of a call that hangs on weights alone, computed by torch; None for any other."""
        if self.module is not self.lowering.captured.graph_module:
            return None
        order = hanging_on(node, self.unwritten_weight)
        if order is None or any(tensor is None and _is_written(one) for one, tensor in order.items()):
            return None
        value = computed(node, order)
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not all(isinstance(one, torch.Tensor) for one in values):
            return None
        self.lowering.lowered.notes.append(f"{node.target} of weights alone was computed here, by torch")
        stored = [self.lowering.weight(f"{node.name}_{place}", one) for place, one in enumerate(values)]
        return stored if isinstance(value, list | tuple) else stored[0]

    def unwritten_weight(self, node: torch.fx.Node) -> torch.Tensor | None:
        """The tensor that a placeholder or attribute stands for; None for an input, and after a write to it."""
        name = str(node.target) if node.op == "get_attr" else node.name
        known = self.lowering.captured.weights.get(name)
        if known is None:
            return None
        now = self.env[node].read() if isinstance(self.env[node], Cell) else self.env[node]
        return known[1] if now is self.lowering.weight(*known) else None

    def lower_over_pairs(
        self, node: torch.fx.Node, target: torch._ops.OpOverload, arguments: list[Any], keywords: dict[str, Any]
    ) -> Any:
        """A call that takes or returns complex numbers: its own rule over pairs, part by part, or decomposed."""
        name = str(target)
        rule = pair_lowering_for(name)
        result = NotImplemented if rule is None else rule(self.op, *arguments, **keywords)
        if result is NotImplemented and works_by_parts(name):
            result = by_parts(self.op, name, arguments, keywords)
        if result is NotImplemented:
            return self.without_rule(node, target, arguments, keywords, over_pairs=True)
        return self.typed(self.op, result, node.meta.get("val"))

    def typed(self, op: Emitter, result: Any, fake: Any) -> Any:
        """Give what a rule returned the exact dtype check and shape that capture knows."""
        if isinstance(result, ir.Value) and isinstance(fake, torch.Tensor):
            return self.typed_value(op, result, fake)
        if isinstance(result, Pair) and isinstance(fake, torch.Tensor):
            return self.typed_pair(op, result, fake)
        if isinstance(result, tuple | list) and isinstance(fake, tuple | list):
            return [
                self.typed(op, item, one) if isinstance(item, ir.Value | Pair) else item
                for item, one in zip(result, fake, strict=False)
            ]
        return result

    def typed_pair(self, op: Emitter, pair: Pair, fake: torch.Tensor) -> Pair:
        part = real_fake(fake)
        return Pair(self.typed_value(op, pair.real, part), self.typed_value(op, pair.imag, part))

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
        return origin_of_node(node, name)

    def located(self, error: LoweringError, node: torch.fx.Node) -> LoweringError:
        if getattr(error, "located", False):
            return error
        origin = self.origin_of(node, str(node.target))
        line = _source_text(origin) or self.source_text
        notes = [
            f"at {origin.describe()}",
            *([f"line: {line}"] if line else []),
            *([f"called from {', '.join(map(shown_path, origin.callers[:4]))}"] if origin.callers else []),
            *error.notes,
        ]
        fresh = LoweringError(error.message, *notes)
        fresh.located = True  # type: ignore[attr-defined]
        return fresh

    # -- views and writes --------------------------------------------------------------------------------------------

    def with_views(
        self,
        node: torch.fx.Node,
        target: torch._ops.OpOverload,
        result: Any,
        arguments: list[Any],
        keywords: dict[str, Any],
    ) -> Any:
        """The results of a call in cells, those that share memory with an argument as views of its cell."""
        if not self.has_mutation:
            return result
        fake = node.meta.get("val")
        if not isinstance(result, list | tuple):
            return self.cell_of(node, target, result, fake, None, arguments, keywords)
        fakes = fake if isinstance(fake, list | tuple) else [None] * len(result)
        return [
            self.cell_of(node, target, item, one, piece, arguments, keywords)
            for piece, (item, one) in enumerate(zip(result, fakes, strict=False))
        ]

    def cell_of(
        self,
        node: torch.fx.Node,
        target: torch._ops.OpOverload,
        value: Any,
        fake: Any,
        piece: int | None,
        arguments: list[Any],
        keywords: dict[str, Any],
    ) -> Any:
        if not isinstance(value, ir.Value | Pair):
            return value
        shared = shared_argument(node, fake)
        stored = None if shared is None else self.env[shared]
        if isinstance(stored, list) and shared is not None:
            stored = next(iter(cells_of(stored)), None)
        if not isinstance(stored, Cell):
            return Cell(value, fake)
        before = stored.read()
        fakes = node.meta["val"] if piece is not None else [fake]
        sizes = [one.shape for one in fakes]

        def again(base: Stored) -> Stored:
            fresh = self.lower_call(node, target, _replaced(arguments, before, base), _replaced(keywords, before, base))
            chosen = _read(fresh if piece is None else fresh[piece])
            assert isinstance(chosen, ir.Value | Pair)
            return chosen

        def back(base: Stored, new: Stored) -> Stored:
            self.op.target, self.op.result = str(target), fake
            self.op.origins = (self.origin_of(node, str(target)),)
            given = _replaced(arguments, before, base)
            updated = stored_back(self.op, target, given, keywords, base, new, piece, sizes)
            typed: Stored = self.typed(self.op, updated, stored.fake)
            return typed

        return Cell.view(value, stored, again, back, fake)

    def mutate(self, node: torch.fx.Node, target: torch._ops.OpOverload) -> None:
        """A call that writes to its arguments: its functional twin, and then the writes."""
        arguments, keywords = self.argument(list(node.args)), self.argument(node.kwargs)
        written, is_out = written_arguments(target)
        twin = functional_twin(target)
        subjects = [self.stored_argument(node.args[at] if isinstance(at, int) else node.kwargs[at]) for at in written]
        if is_out and twin is not None:
            keywords = {key: value for key, value in keywords.items() if key not in written}
        own_lowering = lowering_for(str(target)) is not None
        if own_lowering or twin is None or not (is_out or written == (0,)):
            # its own rule, or its decomposition, which writes to our cells by itself
            self.env[node] = self.with_views(
                node, target, self.lower_call(node, target, arguments, keywords), arguments, keywords
            )
            if own_lowering and written != (0,):
                for cell in cells_of(subjects):
                    cell.poison(f"{target} writes to an argument, and what it writes is not followed")
                return
            if not own_lowering:
                return
            result = _read(self.env[node])
        else:
            result = self.lower_call(node, twin, arguments, keywords)
        if changes_view(target):
            self.env[node] = self.with_views(node, twin or target, result, arguments, keywords)
            assert isinstance(node.args[0], torch.fx.Node)
            self.env[node.args[0]] = self.env[node]
            return
        results = list(result) if isinstance(result, list | tuple) else [result]
        for subject, new in zip(subjects, results, strict=False):
            if not isinstance(subject, Cell) or new is None:
                raise self.located(LoweringError(f"{target}: writes to a list of tensors"), node)
            try:
                subject.write(_read(new))
            except LoweringError as error:
                raise self.located(error, node) from None
        self.env[node] = subjects[0] if len(subjects) == 1 else subjects

    # -- sizes -------------------------------------------------------------------------------------------------------

    def symbolic(self, node: torch.fx.Node) -> Any:
        """Arithmetic on sizes: Python operators and torch.sym_* calls."""
        result = node.meta.get("val")
        plain = _plain_scalar(result)
        if plain is not None:
            return plain
        self.op.origins = (self.origin_of(node, getattr(node.target, "__name__", str(node.target))),)
        try:
            fakes = [arg.meta.get("val") if isinstance(arg, torch.fx.Node) else arg for arg in node.args]
            return lower_symbolic(self.op, node.target, [self.argument(arg) for arg in node.args], result, fakes)
        except LoweringError as error:
            raise self.located(error, node) from None

    # -- operators without a rule ------------------------------------------------------------------------------------

    def without_rule(
        self,
        node: torch.fx.Node,
        target: torch._ops.OpOverload,
        arguments: list[Any],
        keywords: dict[str, Any],
        *,
        over_pairs: bool = False,
    ) -> Any:
        """Decompose the call, or else take the stock exporter's translation of it; it has none for complex numbers."""
        from graphforge.frontend.decompose import decompose_call
        from graphforge.frontend.stock import translate_call

        name, lowered = str(target), self.lowering.lowered
        if isinstance(node.meta.get("val"), torch.SymInt):
            return from_expression(self.op, node.meta["val"], self.lowering.sizes)
        declared = declared_for(target)
        if declared is not None:
            try:
                made = lower_declared(self.op, declared, target, arguments, keywords)
            except LoweringError as error:
                raise self.located(error, node) from None
            return self.typed(self.op, made, node.meta.get("val"))
        reason: LoweringError | None = None
        decomposed = None
        try:
            decomposed = decompose_call(node, target, over_pairs=over_pairs)
        except LoweringError as error:
            reason = error
        if decomposed is not None:
            module, fed = decomposed
            scope = Scope(self.lowering, self.op, module, origin=self.origin_of(node, name))
            scope.source_text = _source_text(self.origin_of(node, name)) or self.source_text
            placeholders = [item for item in module.graph.nodes if item.op == "placeholder"]
            for item, argument in zip(placeholders, fed, strict=True):
                scope.env[item] = self.handed_over(scope, node, argument, arguments, keywords)
            try:
                result = scope.run()
            except LoweringError as error:
                reason = error
            else:
                lowered.decomposed[name] = lowered.decomposed.get(name, 0) + 1
                return result if self.has_mutation else _read(result)
        if over_pairs:
            raise reason or LoweringError(
                f"{target}: no lowering for complex numbers",
                "write it with the real and the imaginary part: torch.view_as_real(x), x.real and x.imag",
            )
        try:
            translated = translate_call(self.op, node, target, arguments, keywords)
        except LoweringError:
            if reason is not None:
                raise reason from None
            raise
        origin = self.origin_of(node, name)
        lowered.fallbacks.append((name, origin.module, origin.source))
        fake = node.meta.get("val")
        if isinstance(fake, list | tuple):  # what nobody reads, the translation may have left in any shape
            read = {user.args[1] for user in node.users if user.target is operator.getitem}
            fake = [one if place in read else None for place, one in enumerate(fake)]
        return self.typed(self.op, translated, fake)

    def handed_over(
        self,
        scope: Scope,
        node: torch.fx.Node,
        argument: torch.fx.Node,
        arguments: list[Any],
        keywords: dict[str, Any],
    ) -> Any:
        """What a decomposition gets for an argument: the cell where it writes, else the value given to the call."""
        if scope.has_mutation and self.has_mutation and is_mutation(node.target):
            return self.env[argument]
        given = _matching(argument, [list(node.args), node.kwargs], [arguments, keywords])
        return self.argument(argument) if given is None else given

    # -- higher-order operators --------------------------------------------------------------------------------------

    def higher_order(self, node: torch.fx.Node) -> Any:
        name = str(node.target)
        if name in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            position = next(i for i, arg in enumerate(node.args) if self.is_module(arg))
            return self.inline(node, self.argument(node.args[position]), list(node.args[position + 1 :]))
        if name in CONTROL_FLOW:
            self.op.origins = (self.origin_of(node, name),)
            if holds_pairs(self.argument(list(node.args))) or holds_complex(node.meta.get("val")):
                complaint = LoweringError(f"{name}: complex numbers among what its branches or steps pass on")
                raise self.located(complaint, node)
            try:
                return CONTROL_FLOW[name](self, node)
            except LoweringError as error:
                raise self.located(error, node) from None
        raise self.located(LoweringError(f"higher-order operator {name} has no lowering"), node)

    def is_module(self, arg: Any) -> bool:
        return isinstance(arg, torch.fx.Node) and isinstance(self.env.get(arg), torch.fx.GraphModule)

    def inline(self, node: torch.fx.Node, module: torch.fx.GraphModule, arguments: list[Any]) -> Any:
        """A submodule's graph in place; it shares our cells, so its writes are ours."""
        scope = Scope(self.lowering, self.op, module, origin=self.origin)
        scope.has_mutation = self.has_mutation
        placeholders = [item for item in module.graph.nodes if item.op == "placeholder"]
        for item, argument in zip(placeholders, arguments, strict=True):
            scope.env[item] = self.stored_argument(argument)
        return scope.run()

    def child(self, op: Emitter, module: torch.fx.GraphModule) -> Scope:
        """A scope for a graph inside this one."""
        return Scope(self.lowering, op, module, origin=self.origin)

    def shape(self, fake: torch.Tensor) -> ir.Shape:
        """A captured tensor's shape, with the user's dim names."""
        return self.lowering.shape(fake)


def _named(name: str, shapes: ShapeSpec) -> sympy.Symbol:
    """The symbol of a promised dim, or of a dim by its step, which knows whether it may be 0."""
    dims = shapes.dims
    dim = dims.get(name) or dims.get(name.rpartition("_div")[0])
    if dim is None or dim.low > 0:
        return sympy.Symbol(name, integer=True, positive=True)
    return sympy.Symbol(name, integer=True, nonnegative=True)


def _checks(module: torch.fx.GraphModule) -> set[torch.fx.Node]:
    """Calls that check or annotate, those that compute only what such calls read, and those that failed."""
    checks: set[torch.fx.Node] = set()
    for node in reversed(module.graph.nodes):
        if node.op != "call_function" or is_mutation(node.target):
            continue
        gives = isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.returns)
        failed = gives and not node.users and node.meta.get("val") is None  # the model caught what torch raised
        if failed or str(node.target) in _IGNORED or (node.users and all(user in checks for user in node.users)):
            checks.add(node)
    return checks


def _is_written(node: torch.fx.Node) -> bool:
    """Whether something writes to the result of a call, or to a view of it."""
    for user in node.users:
        if user.op != "call_function" or not isinstance(user.target, torch._ops.OpOverload):
            continue
        if is_mutation(user.target):
            return True
        if any(argument.alias_info is not None for argument in user.target._schema.arguments) and _is_written(user):
            return True
    return False


def _read(stored: Any) -> Any:
    """The values behind what an environment keeps."""
    if isinstance(stored, Cell):
        return stored.read()
    if isinstance(stored, list | tuple):
        return [_read(item) for item in stored]
    if isinstance(stored, dict):
        return {key: _read(item) for key, item in stored.items()}
    if isinstance(stored, slice):
        return slice(_read(stored.start), _read(stored.stop), _read(stored.step))
    return stored


def _replaced(arguments: Any, old: Stored, new: Stored) -> Any:
    """Arguments with one value put in place of another."""
    if arguments is old:
        return new
    if isinstance(arguments, list | tuple):
        return [_replaced(item, old, new) for item in arguments]
    if isinstance(arguments, dict):
        return {key: _replaced(item, old, new) for key, item in arguments.items()}
    return arguments


def _matching(wanted: torch.fx.Node, arguments: Any, values: Any) -> Any:
    """The value at the place where ``wanted`` stands among FX arguments, None when it stands nowhere."""
    if arguments is wanted:
        return values
    if isinstance(arguments, dict):
        arguments, values = list(arguments.values()), list(values.values())
    if isinstance(arguments, list | tuple):
        for item, value in zip(arguments, values, strict=False):
            found = _matching(wanted, item, value)
            if found is not None:
                return found
    return None


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


def _source_text(origin: Origin) -> str:
    return linecache.getline(origin.file, origin.line).strip()


def origin_of_node(node: torch.fx.Node, name: str = "") -> Origin:
    """Where a node of a captured program comes from; `name` is its operator, where that is not its target."""
    module = module_class = ""
    stack = node.meta.get("nn_module_stack")
    if stack:
        module, described = next(reversed(stack.values()))
        module_class = described if isinstance(described, str) else f"{described.__module__}.{described.__qualname__}"
        module = clean_module_path(module)
    frames = frames_in(node.meta.get("stack_trace") or node.stack_trace or "")[::-1]
    # the innermost frame of the user's own code; torch's internals say nothing to the user
    own = [(path, line) for path, line, _ in frames if not is_vendor_file(path) and not path.startswith("<")]
    (file, line), *callers = own or [(path, line) for path, line, _ in frames[:1]] or [("", 0)]
    return Origin(
        module=module,
        module_class=module_class,
        target=name or str(node.target),
        file=file,
        line=line,
        value=node.name,
        callers=tuple(f"{path}:{number}" for path, number in callers[:_MAX_CALLERS]),
    )


# Of deeper stacks the nearest callers say enough.
_MAX_CALLERS = 12


_SELF_PREFIX = re.compile(r"^L\['self'\]\.?|^L__self___?")


def clean_module_path(path: str) -> str:
    """``L['self']._modules['conv']`` and ``L__self___conv`` forms of strict export, made plain."""
    path = _SELF_PREFIX.sub("", path).removeprefix("_export_root").removeprefix(".")  # strict export's own root
    return re.sub(r"_modules\['([^']+)'\]|\.?slice\([^)]*\)", lambda m: m.group(1) or "", path).strip(".")
