"""Capture a PyTorch module as a graph of ATen calls: torch.export, torch.fx or a trace, tried in that order."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx.experimental._config
from torch.utils import _pytree

from graphforge.call import CallInputs, output_names, register_dataclasses
from graphforge.clock import standing_clock
from graphforge.errors import CaptureError, GraphForgeError, UsageError
from graphforge.frontend.advice import Failures, capture_error
from graphforge.frontend.aliasing import is_mutation
from graphforge.frontend.autocast import without_idle_blocks
from graphforge.frontend.captured import Captured
from graphforge.frontend.decisions import Decisions, deciding
from graphforge.frontend.fixed_sizes import noticing_fixed_sizes
from graphforge.frontend.image_by_image import images_of, one_image
from graphforge.frontend.math_of_sizes import math_of_sizes
from graphforge.frontend.piece_shapes import piece_shapes
from graphforge.frontend.pool_shapes import pool_shapes
from graphforge.frontend.promises import (
    BrokenPromise,
    asserted,
    check_promises,
    edge_sizes,
    guarded,
    met_conditions,
    small_ranges,
)
from graphforge.frontend.quantised_modules import plain_modules
from graphforge.frontend.recurrent_shapes import recurrent_shapes
from graphforge.frontend.replacing import Applied, check_used, forget_calls, substituting
from graphforge.frontend.selections import check_assumptions
from graphforge.frontend.settled import knowing_promises
from graphforge.frontend.size_division import Divisions, dividing
from graphforge.frontend.sizes_run import check_doubts
from graphforge.frontend.state import keeping_state, modules_of
from graphforge.frontend.substitutes import load_substitutes
from graphforge.frontend.substitution import Substitution, declared_substitutions
from graphforge.frontend.symbolic_functions import noticing_symbolic_functions
from graphforge.frontend.torchscript import interpret, interpreted_scripts
from graphforge.frontend.traceable import traceable_functions
from graphforge.frontend.user_stacks import whole_user_stacks
from graphforge.frontend.weights_alone import written_weights
from graphforge.hushed import hushed
from graphforge.ir.images import Images
from graphforge.libraries import export_helpers
from graphforge.module_state import ModuleState
from graphforge.spec import ShapeSpec

__all__ = [
    "METHODS",
    "capture",
    "captured_from_loaded_program",
    "captured_from_program",
]

# torch's capture changes torch itself while it runs: two at once would trip over each other.
_one_at_a_time = threading.RLock()

# Captures at other sizes, after one that holds at few sizes but the example's.
_OTHER_SIZES = 4
# Sizes of a batch whose images are captured one by one, at most, that are handed to verification.
_OF_IMAGES = 8

METHODS = ("export", "export-strict", "fx", "trace")


def capture(
    model: torch.nn.Module,
    inputs: CallInputs,
    shapes: ShapeSpec,
    *,
    method: str = "auto",
    target: str | None = None,
    small_sizes: bool = False,
) -> Captured:
    """Capture ``model`` called with ``inputs``; ``shapes`` says which dims stay dynamic.

    Args:
        model: the module, in the mode (train or eval) it is to be captured in.
        inputs: example call.
        shapes: names and dynamic dims of the tensor inputs (see ``CallInputs.spec``).
        method: one of ``METHODS``, or ``auto`` to try them in order.
        target: name of the target compiled for, whose own substitutions are in force.
        small_sizes: describe what a size of 0 or 1 makes of others, too (``x[-2:]`` has ``min(2, n)`` rows); torch
            takes every size to be 2 at least, which says more about the sizes behind it.

    Raises:
        CaptureError: no method worked; the notes say why each failed.
        GraphForgeError: a declared substitution matches nothing.
    """
    if method != "auto" and method not in METHODS:
        raise UsageError(f"unknown capture method {method!r}", f"known: auto, {', '.join(METHODS)}")
    widened = _widened(inputs, shapes)
    methods = METHODS if method == "auto" else (method,)
    if isinstance(model, torch.jit.ScriptModule):
        methods = ("trace",)
    load_substitutes()
    apart = _Apart(model, widened, shapes)
    try:
        settings: Any = torch.fx.experimental._config
        with _one_at_a_time, settings.patch(backed_size_oblivious=small_sizes):
            return _whole(model, widened, shapes, methods, target, apart)
    except (CaptureError, _ImageByImage):
        images = apart.images()
        if images is None:
            raise
    one = one_image(widened, shapes, images)
    captured = capture(model, *one, method=method, target=target, small_sizes=small_sizes)
    captured.images = images
    captured.to_try = [
        *({images.dim: size} for size in shapes.dims[images.dim].sizes(limit=_OF_IMAGES)),
        *captured.to_try,
    ]
    rows = max(1, images.sizes[0])
    captured.feeds_to_try = [
        {name: torch.cat([one] * rows) if name in images.inputs else one for name, one in feeds.items()}
        for feeds in captured.feeds_to_try
    ]
    captured.notes.append(
        f"the model returns a list with an entry for each image of the batch ({images.dim}): one image was captured, "
        "and runs in a loop over them (in PyTorch an image alone gives the same)"
    )
    return captured


class _ImageByImage(Exception):
    """No method can capture the model as it is called: it returns a list with an entry for each image of a batch."""


@dataclass(slots=True)
class _Apart:
    """Whether a model treats each image of its batch for itself; asked once, when a capture has failed."""

    model: torch.nn.Module
    inputs: CallInputs
    shapes: ShapeSpec
    asked: bool = False
    found: Images | None = None

    def images(self) -> Images | None:
        if not self.asked:
            self.asked = True
            self.found = images_of(
                self.model, self.inputs, self.shapes, lambda sizes: _resized(self.inputs, self.shapes, sizes)
            )
        return self.found


def _whole(
    model: torch.nn.Module,
    widened: CallInputs,
    shapes: ShapeSpec,
    methods: Sequence[str],
    target: str | None,
    apart: _Apart,
) -> Captured:
    """The model as it is called, captured by the first method that can.

    Raises:
        CaptureError: none can.
        _ImageByImage: one has failed, and none can.
    """
    substitutions = declared_substitutions(target)
    failures = Failures()
    idle: dict[str, str] = {}
    divisions = Divisions()
    with plain_modules(model) as model, dividing(divisions), standing_clock():
        try:
            larger = _resized(widened, shapes, away) if (away := _away_from_small(shapes)) else None
            captured = _by_any(methods, model, widened, shapes, substitutions, failures, idle, apart, larger)
            if captured is None and divisions.met:
                divisions.of_sizes = True
                captured = _by_any(methods, model, widened, shapes, substitutions, failures, idle)
        except BrokenPromise as broken:
            captured = _elsewhere(broken, methods, model, widened, shapes, substitutions)
        if captured is None:
            captured = _after_a_run(methods, model, widened, shapes, substitutions, Failures(failures))
    if captured is not None:
        return captured
    raise capture_error(
        failures, *(f"the substitution of {path} matched nothing: {problem}" for path, problem in idle.items())
    )


def _by_any(
    methods: Sequence[str],
    model: torch.nn.Module,
    inputs: CallInputs,
    shapes: ShapeSpec,
    substitutions: Sequence[Substitution],
    failures: Failures,
    idle: dict[str, str],
    apart: _Apart | None = None,
    larger: CallInputs | None = None,
) -> Captured | None:
    """The first capture that works; None where none does, with the reasons in ``failures``.

    ``idle`` tells which substitutions matched nothing, and why.  ``larger`` inputs are tried when the first method
    takes a size of these for a number.

    Raises:
        _ImageByImage: one has failed and the model treats its images ``apart``; the other methods take as long.
    """
    needed = any(one.required and not one.process for one in substitutions)
    for name in methods:
        if failures and apart is not None and apart.images() is not None:
            raise _ImageByImage
        if name != methods[0] and failures.fixed and larger is not None:
            there, larger = larger, None
            captured = _at(there, methods[0], model, shapes, substitutions)
            if captured is not None:
                return captured
        if name == "export-strict" and needed:
            failures[name] = "it reads Python's byte code, where the declared substitutions cannot be put in"
            continue
        applied: list[Applied] = []
        notes: list[str] = []
        decisions = Decisions()
        with (
            _one_at_a_time,
            hushed() as said,
            whole_user_stacks(),
            _quiet(),
            recurrent_shapes(),
            keeping_state(model, notes),
            ExitStack() as aids,
        ):
            aids.enter_context(pool_shapes())
            aids.enter_context(piece_shapes())
            if name != "export-strict":  # which reads Python's byte code, where a replaced function is in its way
                aids.enter_context(noticing_symbolic_functions(notes))
                aids.enter_context(noticing_fixed_sizes(failures.fixed))
                aids.enter_context(traceable_functions())
                aids.enter_context(math_of_sizes())
                aids.enter_context(interpreted_scripts())
                aids.enter_context(without_idle_blocks())
                aids.enter_context(_results_registered(model))
                aids.enter_context(knowing_promises(model, inputs, shapes, decisions.promised))
                aids.enter_context(deciding(model, modules_of(model), decisions, weights_first=name == "export"))
                aids.enter_context(export_helpers(model))
                applied = aids.enter_context(substituting(substitutions, model))
            try:  # around torch's part alone: a failure in ours does not count as one of a capture method
                captured = _decided(name, model, inputs, shapes, decisions)
            except (GraphForgeError, MemoryError):  # another method finds no more memory
                raise
            except Exception as error:  # torch raises a score of types here; each becomes a reason in the report
                failures.add(name, error, said)
                idle |= {one.substitution.path: one.problem for one in applied if one.problem}
                needed = needed or any(one.calls and one.substitution.required for one in applied)
                if decisions.caught is not None:  # others follow the model into its `except`, or past it
                    return None
                continue
        captured.failures = failures
        doubt = None
        if decisions.assumptions or captured.doubts:
            with substituting(substitutions, model), _one_at_a_time:
                if captured.doubts:
                    doubt = check_doubts(model, inputs, captured, lambda sizes: _resized(inputs, shapes, sizes))
                if decisions.assumptions:
                    check_assumptions(model, inputs, captured, decisions.assumptions)
        captured.notes = [*notes, *captured.notes, *check_used(applied)]
        if name == "export-strict" and any(one.required for one in substitutions):
            captured.notes.append("export-strict reads Python's byte code: what the process substitutes is left out")
        captured.substitutions = [one.to_dict() for one in applied if one.calls]
        if doubt is not None:
            raise doubt
        return captured
    return _at(larger, methods[0], model, shapes, substitutions) if failures.fixed and larger is not None else None


def _at(
    inputs: CallInputs, method: str, model: torch.nn.Module, shapes: ShapeSpec, substitutions: Sequence[Substitution]
) -> Captured | None:
    """A capture at other inputs than the example; what is told where there is none is why the example failed."""
    with suppress(GraphForgeError):
        try:
            return _by_any((method,), model, inputs, shapes, substitutions, Failures(), {})
        except BrokenPromise as broken:
            return _elsewhere(broken, (method,), model, inputs, shapes, substitutions)
    return None


@contextmanager
def _results_registered(model: torch.nn.Module) -> Iterator[None]:
    """Dataclasses that the model returns are made known to torch before it takes the result apart."""
    if isinstance(model, torch.jit.ScriptModule):
        yield
        return
    hook = model.register_forward_hook(lambda _, __, result: register_dataclasses(result))
    try:
        yield
    finally:
        hook.remove()


def _decided(
    name: str, model: torch.nn.Module, inputs: CallInputs, shapes: ShapeSpec, decisions: Decisions
) -> Captured:
    """A capture by one method, again with the other answer to a question that has no general one if that fails."""
    while True:
        try:
            captured = _CAPTURE[name](model, inputs, shapes)
            if decisions.caught is not None:  # the model took torch's refusal for its own failure
                raise decisions.caught
            written = written_weights(captured) if decisions.of_numbers and name in ("fx", "trace") else []
            if written:  # to Python they are the numbers from before, whatever the program writes
                raise ValueError(f"it decides by {decisions.of_numbers!r}, and the model writes to {written[0]!r}")
            return captured
        except (GraphForgeError, MemoryError):
            raise
        except Exception:
            if not decisions.flip():
                raise
        forget_calls()
        decisions.forget()


def _after_a_run(
    methods: Sequence[str],
    model: torch.nn.Module,
    inputs: CallInputs,
    shapes: ShapeSpec,
    substitutions: Sequence[Substitution],
    failures: Failures,
) -> Captured | None:
    """A capture of the model as its first call leaves it, where that makes something that later calls use."""
    state = ModuleState(model)
    try:
        with torch.no_grad():
            args, kwargs = inputs.map_leaves(lambda _, leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf)
            model(*args, **kwargs)
        made = list(state.changed())
        captured = _by_any(methods, model, inputs, shapes, substitutions, failures, {}) if made else None
    except (GraphForgeError, MemoryError):
        raise
    except Exception:  # whatever the user's forward raises: the failed captures are told
        return None
    finally:
        state.put_back()
    if captured is not None:
        captured.notes.append(f"captured as a first call of the model leaves it, which sets {', '.join(made[:6])}")
    return captured


def _elsewhere(
    broken: BrokenPromise,
    methods: Sequence[str],
    model: torch.nn.Module,
    inputs: CallInputs,
    shapes: ShapeSpec,
    substitutions: Sequence[Substitution],
) -> Captured:
    """A capture at sizes where nothing happens to come out even, after one at the example's that holds for few others.

    A length that is a multiple of 8 already makes "padded to a multiple of 8" the length itself, and a cut back to the
    length no cut at all.  What a capture at another length takes for granted is checked in the same way.

    Raises:
        BrokenPromise: that of the example, when no other size does better and none of the programs is right as it is.
    """
    failing, program = broken.failing, broken.program
    at: dict[str, int] = {}
    for _ in range(_OTHER_SIZES):
        chosen = max(failing, key=lambda sizes: _plainness(sizes, shapes))
        if program is not None and all(shapes.dims[name].is_small(size) for name, size in chosen.items()):
            break  # more would be taken for numbers there, not less
        at |= chosen
        try:
            captured = _by_any(methods, model, _resized(inputs, shapes, at), shapes, substitutions, Failures(), {})
        except BrokenPromise as again:
            failing, program = again.failing, program or again.program
            continue
        except GraphForgeError:
            break
        if captured is None:
            break
        return captured
    if program is not None:
        return program
    raise broken


def _plainness(sizes: Mapping[str, int], shapes: ShapeSpec) -> tuple[int, int, int]:
    """How few of the sizes are small, and how many are no multiples of what things are usually cut into."""
    return (
        -sum(shapes.dims[name].is_small(size) for name, size in sizes.items()),
        sum(all(size % number for number in (2, 3, 5, 7)) for size in sizes.values()),
        sum(sizes.values()),
    )


def _away_from_small(shapes: ShapeSpec) -> dict[str, int]:
    """The dims whose example is small, at the plainest larger size near it that is promised."""
    found: dict[str, int] = {}
    for name, size in shapes.example_sizes().items():
        larger = [{name: one} for one in shapes.dims[name].sizes(limit=16) if one > size]
        if larger and shapes.dims[name].is_small(size):
            plainest: dict[str, int] = max(larger, key=lambda sizes: _plainness(sizes, shapes))
            found |= plainest
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _widened(inputs: CallInputs, shapes: ShapeSpec) -> CallInputs:
    """The example with every dynamic dim at a size above 1: capture takes sizes 0 and 1 for constants."""
    sizes = shapes.example_sizes()
    wanted: dict[str, int] = {}
    used = {size for tensor in shapes.inputs for axis, size in enumerate(tensor.shape) if axis not in tensor.dims}
    for name, dim in shapes.dims.items():
        if sizes[name] // dim.step > 1:
            continue  # 8 of 8..32/8 is a 1 as well: the size divided by its step
        larger = [size for size in dim.sizes(limit=16) if size // dim.step > 1]
        # a size that no other dim has, where there is one: equal sizes invite capture to tie dims together
        apart = [size for size in larger if size not in used] or larger or [sizes[name]]
        wanted[name] = next((size for size in apart if not dim.is_small(size)), apart[-1])
    return _resized(inputs, shapes, wanted)


def _resized(inputs: CallInputs, shapes: ShapeSpec, wanted: Mapping[str, int]) -> CallInputs:
    """The example with some dims at other sizes: its rows again, or fewer of them."""
    if not wanted:
        return inputs
    tensors = inputs.tensors
    grown: dict[str, torch.Tensor] = {}
    for spec in shapes.inputs:
        tensor = tensors[spec.name]
        for axis, dim in spec.dims.items():
            if dim.name in wanted:
                index = torch.arange(wanted[dim.name]) % max(1, tensor.shape[axis])
                tensor = (
                    tensor.index_select(axis, index)
                    if tensor.shape[axis]
                    else tensor.new_zeros([*tensor.shape[:axis], wanted[dim.name], *tensor.shape[axis + 1 :]])
                )
        grown[spec.name] = tensor
    return inputs.replaced(grown)


# -- torch.export ------------------------------------------------------------------------------------------------------


def _torch_dims(shapes: ShapeSpec, *, bounded: bool) -> dict[str, Any]:
    dims: dict[str, Any] = {}
    for name, dim in shapes.dims.items():
        if len(dim.sizes(limit=2)) < 2:
            continue  # one size only: static
        low = -(-dim.low // dim.step)
        high = dim.high // dim.step
        if not bounded:
            dims[name] = torch.export.Dim.DYNAMIC
            continue
        base = torch.export.Dim(name if dim.step == 1 else f"{name}_div{dim.step}", min=low, max=high)
        dims[name] = base if dim.step == 1 else dim.step * base
    return dims


def _dynamic_shapes(model: Any, inputs: CallInputs, shapes: ShapeSpec, *, bounded: bool) -> Any:
    if not shapes.dims:
        return None
    dims = _torch_dims(shapes, bounded=bounded)
    by_name = {spec.name: spec for spec in shapes.inputs}

    def leaf(name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        return {axis: dims[dim.name] for axis, dim in by_name[name].dims.items() if dim.name in dims} or None

    leaves = [leaf(name, value) for name, value in zip(inputs.leaf_names, inputs.leaves, strict=True)]
    args, kwargs = _nested(inputs.tree, iter(leaves))
    forward = getattr(model, "forward", model)
    by_parameter: dict[str, Any] = {}
    parameters = list(inspect.signature(forward).parameters.values())
    position = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            if position < len(args):  # torch wants no entry for what is not given
                by_parameter[parameter.name] = tuple(args[position:])
            position = len(args)
        elif parameter.kind is parameter.VAR_KEYWORD:
            by_parameter.update({key: value for key, value in kwargs.items() if key not in by_parameter})
        elif position < len(args) and parameter.kind is not parameter.KEYWORD_ONLY:
            by_parameter[parameter.name] = args[position]
            position += 1
        elif parameter.name in kwargs:
            by_parameter[parameter.name] = kwargs[parameter.name]
    return by_parameter


def _nested(spec: _pytree.TreeSpec, leaves: Iterator[Any]) -> Any:
    """Leaves in the form of a structure; torch.export wants a list for a container that is not one of Python's."""
    if spec.type is None:
        return next(leaves)
    children = [_nested(child, leaves) for child in spec.children()]
    if spec.type is dict:
        return dict(zip(spec.context, children, strict=True))
    if spec.type in (tuple, list):
        return spec.type(children)
    if spec.type in _pytree.BUILTIN_TYPES:
        return _pytree.SUPPORTED_NODES[spec.type].unflatten_fn(children, spec.context)
    return children


def _export(model: torch.nn.Module, inputs: CallInputs, shapes: ShapeSpec, *, strict: bool = False) -> Captured:
    def exported(*, deferred: bool = False, bounded: bool = True) -> torch.export.ExportedProgram:
        return torch.export.export(
            model,
            inputs.args,
            inputs.kwargs,
            dynamic_shapes=_dynamic_shapes(model, inputs, shapes, bounded=bounded),
            strict=strict,
            prefer_deferred_runtime_asserts_over_guards=deferred,
        )

    def read(program: torch.export.ExportedProgram) -> Captured:
        template = Captured(
            graph_module=program.graph_module,
            input_names={},
            weights={},
            constants={},
            output_names=[],
            shapes=shapes,
            symbols={},
            method="export-strict" if strict else "export",
        )
        captured = captured_from_program(program, template, names=inputs.leaf_names)
        for name, size in _taken_for_numbers(captured).items():  # torch's other reader does not tell
            raise ValueError(f"You marked {name} as dynamic but your code specialized it to be a constant ({size})")
        captured.to_try = edge_sizes(shapes.dims)
        return captured

    try:
        captured = read(exported())
        # the solver proves what it met of single dims; a branch that compares two of them it takes for granted
        conditions = list(guarded(_shape_environment(captured), captured.symbols)) if captured.symbols else []
        captured.to_try += check_promises(captured, [one for one in conditions if one.place])
        captured.to_try += check_promises(captured, [one for one in conditions if not one.place], accepted=True)
        return captured
    except Exception as error:
        if strict or not _is_about_sizes(error):
            raise
    # The solver could not prove what it met: as assertions in the program, or as guards without any bounds, they are
    # proved here, at each promised size.
    forget_calls()
    try:
        with met_conditions() as met:
            captured = read(exported(deferred=True))
        captured.to_try += check_promises(captured, list(asserted(captured, met)))
        captured.to_try += check_promises(captured, met, accepted=True)  # not all of them become assertions
        return captured
    except Exception as error:
        if not _is_about_sizes(error):
            raise
    forget_calls()
    with met_conditions() as met:
        captured = read(exported(bounded=False))
    captured.to_try += check_promises(
        captured, [*asserted(captured, met), *guarded(_shape_environment(captured), captured.symbols, met)]
    )
    return captured


def _taken_for_numbers(captured: Captured) -> dict[str, int]:
    """The promised dims that are numbers in the program."""
    placeholders = {node.name: node for node in captured.graph_module.graph.nodes if node.op == "placeholder"}
    by_name = {spec.name: spec for spec in captured.shapes.inputs}
    found: dict[str, int] = {}
    for node_name, name in captured.input_names.items():
        fake = placeholders[node_name].meta.get("val")
        if not isinstance(fake, torch.Tensor) or name not in by_name:
            continue
        for axis, dim in by_name[name].dims.items():
            size: Any = fake.shape[axis]
            if (isinstance(size, int) or not size.node.expr.free_symbols) and len(dim.sizes(limit=2)) > 1:
                found[dim.name] = int(size)
    return found


def _is_about_sizes(error: Exception) -> bool:
    """Whether torch refuses promised sizes, and not the model."""
    text = str(error)
    stumbled = "Dim with inconsistent" in text or "Expected op to be '=='" in text  # over the wording of its refusal
    if stumbled or "Specializations unexpectedly required" in text:
        return True
    return "Constraints violated" in text and "generated guard" in text


def _shape_environment(captured: Captured) -> Any:
    for node in captured.graph_module.graph.nodes:
        fake = node.meta.get("val")
        if node.name in captured.input_names and isinstance(fake, torch.Tensor):
            return fake.fake_mode.shape_env  # type: ignore[attr-defined]
    raise CaptureError("the captured program has no inputs")


def captured_from_program(
    program: torch.export.ExportedProgram, like: Captured, names: Sequence[str] | None = None
) -> Captured:
    """Read an ExportedProgram; input names (one per user input leaf) and shape spec come from the caller."""
    from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

    input_names: dict[str, str] = {}
    weights: dict[str, tuple[str, torch.Tensor]] = {}
    constants: dict[str, Any] = {}
    leaf_names = list(names) if names is not None else list(like.input_names.values())
    user_index = 0
    for spec in program.graph_signature.input_specs:
        argument = spec.arg
        if spec.kind is InputKind.USER_INPUT:
            name = leaf_names[user_index] if user_index < len(leaf_names) else argument.name
            user_index += 1
            if isinstance(argument, ConstantArgument):
                constants[argument.name] = argument.value
            else:
                input_names[argument.name] = name
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            assert spec.target is not None
            tensor = program.state_dict.get(spec.target)
            weights[argument.name] = (
                spec.target,
                tensor if tensor is not None else program.constants[spec.target],
            )
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            assert spec.target is not None
            constant = program.constants[spec.target]
            if torch._C._functorch.is_functorch_wrapped_tensor(constant):
                raise ValueError("it takes what torch.func differentiates for a constant of the model")
            weights[argument.name] = (spec.target, constant)
        elif isinstance(program.constants.get(str(spec.target)), torch.Generator):
            raise CaptureError(
                "the model draws random numbers from a generator of its own, so no two runs agree and nothing can be "
                "verified",
                "draw them outside the model and pass them in as an input, or make them a buffer",
            )
        else:
            raise CaptureError(
                f"the captured program takes a {spec.kind.name.lower()} ({spec.target}), which has no ONNX form"
            )
    out_spec = program.call_spec.out_spec
    user_names = output_names(out_spec) if out_spec is not None else []
    following = iter(user_names)
    outputs: list[str | None] = [
        next(following) if spec.kind is OutputKind.USER_OUTPUT else None
        for spec in program.graph_signature.output_specs
    ]
    return Captured(
        graph_module=program.graph_module,
        input_names=input_names,
        weights=weights,
        constants=constants,
        output_names=outputs,
        shapes=like.shapes,
        symbols=_symbols(program.graph_module, input_names, like.shapes),
        method=like.method,
        failures=like.failures,
        program=program,
        notes=like.notes,
    )


def captured_from_loaded_program(
    program: torch.export.ExportedProgram, inputs: CallInputs, shapes: ShapeSpec
) -> Captured:
    """A program that was exported earlier: its own dynamic dims stand, none can be added.

    Raises:
        UsageError: a dim is asked to be dynamic that the program has fixed.
    """
    template = Captured(program.graph_module, {}, {}, {}, [], shapes, {}, "program")
    captured = captured_from_program(program, template, names=inputs.leaf_names)
    by_name = {spec.name: spec for spec in shapes.inputs}
    for node in program.graph_module.graph.nodes:
        fake = node.meta.get("val")
        if node.op != "placeholder" or node.name not in captured.input_names or not isinstance(fake, torch.Tensor):
            continue
        for axis in by_name[captured.input_names[node.name]].dims:
            if isinstance(fake.shape[axis], int):
                raise UsageError(
                    f"axis {axis} of input {captured.input_names[node.name]!r} is fixed at {fake.shape[axis]} in the "
                    "exported program",
                    "export it again with that dim dynamic",
                )
    return captured


def _symbols(module: torch.fx.GraphModule, input_names: Mapping[str, str], shapes: ShapeSpec) -> dict[Any, str]:
    symbols: dict[Any, str] = {}
    by_name = {spec.name: spec for spec in shapes.inputs}
    for node in module.graph.nodes:
        if node.op != "placeholder" or node.name not in input_names:
            continue
        fake = node.meta.get("val")
        spec = by_name.get(input_names[node.name])
        if spec is None or not isinstance(fake, torch.Tensor):
            continue
        for axis, dim in spec.dims.items():
            size = fake.shape[axis]
            if isinstance(size, int):
                continue
            expression = size.node.expr
            if expression.is_Symbol:
                symbols[expression] = dim.name
            elif len(expression.free_symbols) == 1:
                symbols[next(iter(expression.free_symbols))] = f"{dim.name}_div{dim.step}"
    return symbols


# -- torch.fx and traces -----------------------------------------------------------------------------------------------


def _fx(model: torch.nn.Module, inputs: CallInputs, shapes: ShapeSpec) -> Captured:
    tracer = torch.fx.Tracer()
    tracer.record_stack_traces = True
    graph = tracer.trace(model)
    assert isinstance(tracer.root, torch.nn.Module)
    traced = torch.fx.GraphModule(tracer.root, graph, type(model).__name__)
    captured = _export(traced, inputs, shapes)
    captured.method = "fx"
    return captured


def _fake_inputs(inputs: CallInputs, shapes: ShapeSpec) -> tuple[Any, list[Any]]:
    """Fake tensors of the tensor inputs, whose dynamic dims are symbols and whose other dims are fixed."""
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    by_name = {spec.name: spec for spec in shapes.inputs}
    fakes = []
    for name, tensor in inputs.tensors.items():
        dynamic = [
            DimDynamic.DYNAMIC if axis in by_name[name].dims else DimDynamic.STATIC for axis in range(tensor.dim())
        ]
        context: Any = StatelessSymbolicContext(dynamic_sizes=dynamic)
        fakes.append(mode.from_tensor(tensor, source=ConstantSource(name), symbolic_context=context))
    return mode, fakes


def _trace(model: torch.nn.Module, inputs: CallInputs, shapes: ShapeSpec) -> Captured:
    from torch.fx.experimental.proxy_tensor import make_fx

    mode, fakes = _fake_inputs(inputs, shapes)
    symbols = _promised(fakes, shapes)
    function: Callable[..., Any] = interpret(model) if isinstance(model, torch.jit.ScriptModule) else model
    spec: list[_pytree.TreeSpec] = []

    def call(*tensors: torch.Tensor) -> Any:
        filled = dict(zip(inputs.tensors, tensors, strict=True))
        args, kwargs = inputs.map_leaves(lambda name, leaf: filled.get(name, leaf))
        flat, tree = _pytree.tree_flatten(function(*args, **kwargs))
        spec.append(tree)
        return flat

    traced = make_fx(
        call, tracing_mode="real", pre_dispatch=False, _allow_non_fake_inputs=True, record_stack_traces=True
    )
    with met_conditions() as met, torch.backends.mkldnn.flags(enabled=False):  # whose own LSTM has no other form
        module = traced(*fakes)
    for tensor_spec, fake in zip(shapes.inputs, fakes, strict=True):
        for axis, dim in tensor_spec.dims.items():
            if fake.shape[axis].node.expr.is_Integer:
                raise ValueError(
                    f"the model reads dim {dim.name!r} of input {tensor_spec.name!r} as the number {fake.shape[axis]}"
                )
    conditions = list(guarded(mode.shape_env, symbols, met))
    for name, fake in zip(inputs.tensors, fakes, strict=True):
        number = fake.item_memo  # what stands for the one element of an integer input, where it was asked for
        if isinstance(number, torch.SymInt) and number.node.expr.is_Integer:
            raise ValueError(f"the model reads the value of input {name!r} as the number {number}")
    for node in reversed(list(module.graph.nodes)):
        # a script asks tensors for strides and the like, which lead nowhere
        if node.op == "call_function" and not node.users and not is_mutation(node.target):
            module.graph.erase_node(node)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    input_names = {node.name: name for node, name in zip(placeholders, inputs.tensors, strict=True)}
    names = {
        (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())): name
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.numel()
    }
    weights: dict[str, tuple[str, torch.Tensor]] = {}
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        tensor = getattr(module, str(node.target), None)
        if isinstance(tensor, torch.Tensor):
            key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
            weights[str(node.target)] = (names.get(key, str(node.target).strip("_")), tensor)
    captured = Captured(
        graph_module=module,
        input_names=input_names,
        weights=weights,
        constants={},
        output_names=list(output_names(spec[-1])),
        shapes=shapes,
        symbols=symbols,
        method="trace",
    )
    # a trace is one run of the model: its guards are all that is known of other sizes
    captured.to_try = [*edge_sizes(shapes.dims), *check_promises(captured, conditions), *small_ranges(shapes.dims)]
    return captured


def _promised(fakes: Sequence[Any], shapes: ShapeSpec) -> dict[Any, str]:
    """The symbols of fake inputs, before the model could tie them to anything, and the dims that they stand for."""
    return {
        fake.shape[axis].node.expr: dim.name
        for fake, spec in zip(fakes, shapes.inputs, strict=True)
        for axis, dim in spec.dims.items()
        if not isinstance(fake.shape[axis], int)
    }


_CAPTURE: dict[str, Callable[[Any, CallInputs, ShapeSpec], Captured]] = {
    "export": _export,
    "export-strict": lambda model, inputs, shapes: _export(model, inputs, shapes, strict=True),
    "fx": _fx,
    "trace": _trace,
}
