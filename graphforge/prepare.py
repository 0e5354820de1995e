"""From what the user gives to what every verb starts from: the model with named inputs and a settled shape spec.

`prepare` loads and names, `to_ir` captures and lowers (or imports), `to_canonical` runs the canonical passes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from graphforge.errors import CaptureError, GraphForgeError, InternalError, UsageError, argument
from graphforge.hushed import hushed, leave_long_text
from graphforge.journal import Journal
from graphforge.user_code import described, user_error

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from graphforge.call import CallInputs
    from graphforge.frontend.captured import Captured
    from graphforge.frontend.load import LoadedModel
    from graphforge.runners.runner import Runner
    from graphforge.spec import ShapeSpec, ValueRange
    from graphforge.transform import Pass, PassRecord

__all__ = [
    "ModelLike",
    "Prepared",
    "canonical_passes",
    "check_canonical",
    "count_nodes",
    "example_feeds",
    "load",
    "prepare",
    "read_ranges",
    "reference_runner",
    "to_canonical",
    "to_ir",
]

# A model as every verb takes it: itself, loaded, or by its text or file.
ModelLike: TypeAlias = "torch.nn.Module | torch.export.ExportedProgram | LoadedModel | str | os.PathLike[str]"


@dataclass(slots=True)
class Prepared:
    """A model with its inputs named and its shape spec settled: what every verb that takes a MODEL starts from.

    Attributes:
        loaded: the model.
        shapes: its tensor inputs and dynamic dims.
        inputs: the example call; None for an ONNX file.
        feeds: the example tensors by input name (numpy), for an ONNX file.
        further: more given inputs by name (numpy), at the example's or at other promised sizes.
        notes: what the user should know of how the inputs were understood.
        drawn: whether the example was drawn at random.
        captured: the program that was lowered last, once ``to_ir`` has run; None for an ONNX file.
        small_sizes: whether capture describes what sizes of 0 and 1 make of others (see ``capture``).
        as_stated: whether an ONNX file's word is taken for shapes that its nodes do not tell.
    """

    loaded: LoadedModel
    shapes: ShapeSpec
    inputs: CallInputs | None = None
    feeds: dict[str, Any] = field(default_factory=dict)
    further: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    drawn: bool = False
    captured: Captured | None = None
    small_sizes: bool = False
    as_stated: bool = True


def prepare(
    model: ModelLike,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    ranges: Any = None,
    further: Sequence[Any] = (),
    seed: int = 0,
) -> Prepared:
    """Load the model if need be, name its inputs, settle the shape spec.

    Raises:
        GraphForgeError: the model or inputs are at fault.
    """
    loaded = load(model)
    inputs = _described_inputs(inputs)
    values = read_ranges(ranges)
    if loaded.onnx_path is not None:
        return _prepare_onnx(loaded, inputs, dynamic_shapes, values, further, seed)
    return _prepare_torch(loaded, inputs, dict(kwargs or {}), dynamic_shapes, values, further, seed)


def _described_inputs(inputs: Any) -> Any:
    """Inputs that are described in text, ``"x:1x3x224x224"``, as the shapes that they say; all else as it is."""
    from graphforge.spec import ShapeSpec, parse_input

    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, list | tuple) and len(texts) > 1 and all(type(size) is int for size in texts):
        raise UsageError(
            f"inputs: expected tensors, or text that describes them, got the sizes {tuple(texts)}",
            f"a shape is given with the input's name: inputs='x:{'x'.join(str(size) for size in texts)}'",
        )
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        return inputs
    return ShapeSpec(tuple(parse_input(text) for text in texts))


def load(model: ModelLike) -> LoadedModel:
    """The model itself, loaded if it is given by its text or file.

    Raises:
        GraphForgeError: it cannot be loaded, or is not a model.
    """
    from graphforge.frontend.load import LoadedModel, load_model

    if isinstance(model, str | os.PathLike):
        return load_model(os.fspath(model))
    return model if isinstance(model, LoadedModel) else _loaded_from_object(model)


def _loaded_from_object(model: Any) -> LoadedModel:
    import torch

    from graphforge.frontend.load import LoadedModel

    if isinstance(model, torch.export.ExportedProgram):
        return LoadedModel("<ExportedProgram>", program=model, record={"spec": None})
    if isinstance(model, torch.nn.Module):
        return LoadedModel(f"<{type(model).__name__}>", module=model, record={"spec": None})
    if isinstance(model, type):
        raise UsageError(
            f"expected a model, got the class {model.__name__}", f"make one of it: {model.__name__}(), in eval mode"
        )
    raise UsageError(
        f"expected an nn.Module, an ExportedProgram or a model spec, got {type(model).__name__}",
        "wrap a function in an nn.Module whose forward calls it",
    )


def _module_of(program: Any) -> Any:
    """The module of an exported program, None without one; torch writes its code anew, and the graph may be damaged."""
    if program is None:
        return None
    try:
        return program.module()
    except Exception as error:  # of torch's own code, which takes the graph for sound
        raise GraphForgeError(
            f"the exported program does not become a module: {described(error)}",
            "the file is damaged, or of another version of PyTorch: save it again",
        ) from error


def _prepare_torch(
    loaded: LoadedModel,
    inputs: Any,
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
    ranges: Mapping[str, ValueRange],
    further: Sequence[Any],
    seed: int,
) -> Prepared:

    from graphforge.call import input_tree
    from graphforge.frontend.dynamic_shapes import read_dynamic_shapes
    from graphforge.spec import ShapeSpec

    program = loaded.program
    if program is not None and inputs is None and program.example_inputs is not None:
        inputs, given = program.example_inputs
        kwargs = {**given, **kwargs}
    if inputs is None and not kwargs and loaded.example is not None:
        inputs, kwargs = loaded.example
    if inputs is None and not kwargs:
        raise UsageError(
            "no inputs were given and the model brings none",
            f"say what it takes: {argument('inputs', 'x:1x3x224x224')}, or return (model, inputs) from the callable",
        )
    callee: Any = loaded.module if loaded.module is not None else _module_of(program)
    given = dict(kwargs)
    named: Mapping[str, Any] = {}
    if isinstance(inputs, ShapeSpec):
        named = _draw(inputs, dynamic_shapes, ranges, seed)
        args, kwargs = _placed(callee, named, kwargs, by_name=False)
    else:
        named, args, kwargs = _called(callee, inputs, kwargs)
    tree = input_tree(callee, args, kwargs).apart()
    renamed = _renamed(named, args, tree.parameters)
    drawn_notes: list[str] = []
    if isinstance(inputs, ShapeSpec) and loaded.module is not None:
        ranged = {renamed.get(name, name) for name in ranges}
        tree = _that_runs(loaded.module, tree, [name for name in tree.names if name not in ranged], drawn_notes)
    spec = tree.spec()
    asked = dynamic_shapes
    if renamed and isinstance(asked, Mapping):
        asked = {renamed.get(str(name), name): axes for name, axes in asked.items()}
    wanted, notes = read_dynamic_shapes(asked, spec, tree.parameters)
    wanted = {renamed.get(name, name): axes for name, axes in wanted.items()}  # those that were given as text
    if isinstance(inputs, ShapeSpec):
        for name, given_spec in zip(tree.names, inputs.inputs, strict=False):
            wanted[name] = {**given_spec.dims, **wanted.get(name, {})}
    notes += drawn_notes + loaded.notes
    if renamed:
        pairs = ", ".join(f"{given} is {name}" for given, name in renamed.items())
        notes.append(f"inputs went by position, since their names are not those of the model's parameters: {pairs}")
    shapes = spec.with_dynamic(wanted).with_ranges({renamed.get(name, name): one for name, one in ranges.items()})
    others = []
    for one in further:
        _, args, kwargs = _called(callee, one, given)
        others.append({name: _as_numpy(tensor) for name, tensor in input_tree(callee, args, kwargs).tensors.items()})
    return Prepared(loaded, shapes, inputs=tree, further=others, notes=notes, drawn=isinstance(inputs, ShapeSpec))


def _that_runs(module: torch.nn.Module, inputs: CallInputs, free: Sequence[str], notes: list[str]) -> CallInputs:
    """Inputs that were drawn from their description alone, with whole numbers that the model takes.

    Nothing says what the whole numbers stand for: where the model refuses 0 and 1 at random, ones are tried (lengths,
    divisors), then zeros.

    Args:
        module: the model.
        inputs: the drawn call.
        free: names of the inputs that may be others.
        notes: told what was done.
    """
    from graphforge.runners.eager import EagerRunner

    whole = {
        name: tensor
        for name, tensor in inputs.tensors.items()
        if name in free and not (tensor.is_floating_point() or tensor.is_complex())
    }
    if not whole:
        return inputs
    for fill in (None, 1, 0):
        tried = inputs
        if fill is not None:
            tried = inputs.replaced({name: tensor.new_full(tensor.shape, fill) for name, tensor in whole.items()})
        runner = EagerRunner(module, tried)
        try:
            runner.run(runner.example())
        except GraphForgeError:
            continue
        if fill is not None:
            values = argument("ranges", f"{next(iter(whole))}=LOW..HIGH")
            notes.append(
                f"the model refuses 0 and 1 at random for {', '.join(whole)}: its example has "
                f"{'ones' if fill else 'zeros'} only; say what values it takes ({values}) or give data"
            )
        return tried
    return inputs  # what is wrong is told where the model is captured


def _called(
    callee: Any, inputs: Any, kwargs: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[Any, ...], dict[str, Any]]:
    """The inputs by the names they were given, and the positional and keyword arguments that they become."""
    if isinstance(inputs, Mapping):
        named = {str(name): _as_tensor(value) for name, value in inputs.items()}
        return named, *_placed(callee, named, kwargs, by_name=True)
    if isinstance(inputs, tuple | list):
        return {}, tuple(_as_tensor(value) for value in inputs), dict(kwargs)
    return {}, () if inputs is None else (_as_tensor(inputs),), dict(kwargs)


def read_ranges(given: Any) -> dict[str, ValueRange]:
    """Input name -> the values that it takes, from ``{"lens": (1, "T")}`` or text such as ``"lens=1..T"``.

    Raises:
        UsageError: it is something else.
    """
    from graphforge.spec import ValueRange, parse_range

    if given is None:
        return {}
    if isinstance(given, str):
        return parse_range([given])
    if isinstance(given, list | tuple) and all(isinstance(text, str) for text in given):
        return parse_range(given)
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{argument('ranges')}: expected a dict by input name, got {type(given).__name__} {given!r}",
            "for example {'lens': (1, 'T')}, where T is the name of a promised dim",
        )
    wanted: dict[str, ValueRange] = {}
    for name, ends in given.items():
        if isinstance(ends, ValueRange):
            wanted[str(name)] = ends
        elif isinstance(ends, str):
            wanted |= parse_range([f"{name}={ends}"])
        elif isinstance(ends, list | tuple) and len(ends) == 2 and all(isinstance(e, int | float | str) for e in ends):
            wanted[str(name)] = ValueRange(*ends)
        else:
            raise UsageError(
                f"{argument('ranges')}: cannot read {ends!r} of input {name!r}", "write it as (low, high): (1, 'T')"
            )
    return wanted


def _as_tensor(value: Any) -> Any:
    """A numpy array as a tensor; all else as it is."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        return value
    from graphforge.runners.arrays import tensor_from_array

    return tensor_from_array(value)


def _placed(
    callee: Any, named: Mapping[str, Any], kwargs: Mapping[str, Any], *, by_name: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Named inputs as positional and keyword arguments; names of which none is a parameter go by position.

    Args:
        callee: what is called.
        named: the inputs.
        kwargs: further keyword inputs.
        by_name: whether the names stand where the parameters are not known.
    """
    import inspect

    try:
        parameters = list(inspect.signature(getattr(callee, "forward", callee)).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    takes_any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [name for name in named if name in names]
    if len(known) == len(named) or (not names and by_name) or (takes_any_name and (known or by_name)):
        return (), {**named, **kwargs}
    if known:
        wrong = next(name for name in named if name not in names)
        raise UsageError(f"the model has no input {wrong!r}", f"its forward takes: {', '.join(names)}")
    return tuple(named.values()), dict(kwargs)


def _renamed(named: Mapping[str, Any], args: Sequence[Any], parameters: Sequence[str]) -> dict[str, str]:
    """The user's name of each input that went by position -> the parameter's, where they are not the same."""
    if not args:
        return {}
    names = [parameters[index] if index < len(parameters) else f"arg{index}" for index in range(len(named))]
    return {given: name for given, name in zip(named, names, strict=True) if given != name}


def _draw(spec: ShapeSpec, dynamic_shapes: Any, ranges: Mapping[str, ValueRange], seed: int) -> dict[str, torch.Tensor]:
    """Random tensors for inputs that were described in text."""
    from graphforge.runners.arrays import tensor_from_array
    from graphforge.runners.inputs import random_feeds

    if ranges:
        spec = _ranged(spec, dynamic_shapes, ranges)
    feeds = random_feeds(spec, spec.example_sizes(), seed=seed)
    return {name: tensor_from_array(array) for name, array in feeds.items()}


def _ranged(spec: ShapeSpec, dynamic_shapes: Any, ranges: Mapping[str, ValueRange]) -> ShapeSpec:
    """The described inputs with the ranges of those that go by these names, and the dims that ranges speak of."""
    from graphforge.frontend.dynamic_shapes import read_dynamic_shapes

    names = [tensor.name for tensor in spec.inputs]
    wanted, _ = read_dynamic_shapes(dynamic_shapes, spec, names)
    spec = spec.with_dynamic({name: axes for name, axes in wanted.items() if name in names})
    return spec.with_ranges({name: one for name, one in ranges.items() if name in names})


def _prepare_onnx(
    loaded: LoadedModel,
    inputs: Any,
    dynamic_shapes: Any,
    ranges: Mapping[str, ValueRange],
    further: Sequence[Any],
    seed: int,
) -> Prepared:
    from graphforge.frontend.dynamic_shapes import read_dynamic_shapes
    from graphforge.onnx_io.importing import input_names, input_spec, tied_by_file
    from graphforge.runners.inputs import random_feeds
    from graphforge.spec import ShapeSpec

    assert loaded.onnx_path is not None
    names = input_names(loaded.onnx_path)
    described = isinstance(inputs, ShapeSpec)
    data = {} if described or inputs is None else _named_arrays(inputs, names)
    spec = input_spec(loaded.onnx_path, inputs if described else _spec_of(data) if data else None)
    wanted, notes = read_dynamic_shapes(dynamic_shapes, spec, names)
    tied, tied_notes = tied_by_file(loaded.onnx_path, spec.with_dynamic(wanted), wanted)
    notes = [*notes, *tied_notes]
    shapes = spec.with_dynamic(tied).with_ranges(ranges)
    feeds = data or random_feeds(shapes, shapes.example_sizes(), seed=seed)
    return Prepared(loaded, shapes, feeds=feeds, further=[_named_arrays(one, names) for one in further], notes=notes)


def _named_arrays(inputs: Any, names: Sequence[str]) -> dict[str, Any]:
    """The inputs of an ONNX file by name, as numpy arrays."""
    if isinstance(inputs, Mapping):
        return {str(name): _as_numpy(value) for name, value in inputs.items()}
    values = inputs if isinstance(inputs, tuple | list) else (inputs,)
    if len(values) != len(names):
        raise UsageError(f"{len(values)} inputs are given, but the file takes {len(names)}: {', '.join(names)}")
    return {name: _as_numpy(value) for name, value in zip(names, values, strict=True)}


def _spec_of(arrays: Mapping[str, Any]) -> ShapeSpec:
    """Data as a description of itself: the sizes of the dims that an ONNX file leaves open."""
    from graphforge.runners.arrays import dtype_name
    from graphforge.spec import ShapeSpec, TensorSpec

    return ShapeSpec(
        tuple(
            TensorSpec(name, tuple(int(size) for size in array.shape), dtype_name(array))
            for name, array in arrays.items()
            if hasattr(array, "shape")
        )
    )


def _as_numpy(value: Any) -> Any:
    from graphforge.runners.arrays import array_from_tensor, as_real

    return array_from_tensor(as_real(value)) if hasattr(value, "detach") else value


def to_ir(
    prepared: Prepared,
    *,
    capture: str = "auto",
    target: str | None = None,
    journal: Journal | None = None,
    check: bool = True,
) -> tuple[ir.Model, dict[str, Any]]:
    """Capture and lower (or import) a prepared model; ``target`` chooses among the declared substitutions.

    Args:
        prepared: the model.
        capture: as ``compile`` takes it.
        target: name of the target.
        journal: where steps and notes are kept.
        check: False for who wants to look at an ONNX file that is not valid.

    Returns:
        The model at level CAPTURED, and what the manifest says of how it was obtained.

    Raises:
        CaptureError, LoweringError: with what failed and where.
    """
    from graphforge.frontend.substitution import refuse_substitutions

    journal = journal or Journal(None)
    if prepared.loaded.module is None:
        refuse_substitutions(prepared.loaded.spec, target)
    if prepared.loaded.onnx_path is not None:
        from graphforge.onnx_io.importing import IMPORT_NOTES, import_onnx

        with journal.step("import") as step:
            model = import_onnx(prepared.loaded.onnx_path, as_stated=prepared.as_stated)
            if check:
                _refuse_invalid(model, prepared.loaded.onnx_path)
            journal.notes += model.meta.get(IMPORT_NOTES, ())
            step["nodes"] = count_nodes(model)
        return model, {"method": "onnx", "failures": {}, "substitutions": [], "fallbacks": [], "decomposed": {}}
    from graphforge.frontend.capture import capture as run_capture
    from graphforge.frontend.capture import captured_from_loaded_program
    from graphforge.frontend.lower import lower
    from graphforge.ir import Level
    from graphforge.transform import check_level

    assert prepared.inputs is not None
    with journal.step("capture") as step:
        if prepared.loaded.program is not None:
            captured = captured_from_loaded_program(prepared.loaded.program, prepared.inputs, prepared.shapes)
        else:
            module = prepared.loaded.module
            assert module is not None
            if module.training:
                journal.notes.append("the model was in training mode; it is compiled in eval mode")
                module.eval()
            try:
                captured = run_capture(
                    module,
                    prepared.inputs,
                    prepared.shapes,
                    method=capture,
                    target=target,
                    small_sizes=prepared.small_sizes,
                )
            except CaptureError as error:
                _see_that_it_runs(
                    module, prepared.inputs, drawn=prepared.drawn
                )  # if it does not, that is the better answer
                path = leave_long_text(error.long_text, "capture") if error.long_text else ""
                error.add_note(f"all that torch says about it is in {path}" if path else "")
                raise
        step["nodes"] = len(captured.graph_module.graph.nodes)
    prepared.further += [{n: _as_numpy(tensor) for n, tensor in feeds.items()} for feeds in captured.feeds_to_try]
    with journal.step("lower") as step:
        try:
            with hushed():
                lowered = lower(captured)
            check_level(lowered.model, Level.CAPTURED, f"capture by {captured.method}")
        except InternalError:  # capture computes nothing, so element types that eager refuses may get this far
            if prepared.loaded.module is not None:
                _see_that_it_runs(prepared.loaded.module, prepared.inputs, drawn=prepared.drawn)
            raise
        step["nodes"] = count_nodes(lowered.model)
    prepared.captured = lowered.captured
    journal.notes += lowered.notes
    return lowered.model, {
        "method": captured.method,
        "failures": captured.failures,
        "substitutions": captured.substitutions,
        "fallbacks": [
            {"operator": name, "module": module, "source": source} for name, module, source in lowered.fallbacks
        ],
        "decomposed": lowered.decomposed,
    }


def _refuse_invalid(model: ir.Model, path: Path) -> None:
    """A file whose graph is not valid is refused before any pass meets it."""
    from graphforge.ir.verifier import first_problems

    problems = first_problems(model)
    if problems:
        raise GraphForgeError(
            f"{path} is not valid ONNX: {problems[0]}",
            *problems[1:],
            f"`graphforge inspect {path}` shows the graph as it is",
        )


def _see_that_it_runs(module: torch.nn.Module, inputs: CallInputs, *, drawn: bool = False) -> None:
    import torch

    try:
        with torch.no_grad():
            module(*inputs.args, **inputs.kwargs)
    except Exception as error:  # the user's code may raise anything
        given = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs.spec().inputs)
        raise user_error(
            "the model does not run on these inputs",
            error,
            f"given: {given}",
            f"they were drawn at random: say what they may be ({argument('ranges', 'NAME=LOW..HIGH')}), or give data"
            if drawn
            else "",
        ) from error


def to_canonical(model: ir.Model, *, pipeline: str | Sequence[Pass] | None = None) -> list[PassRecord]:
    """Run the canonical pipeline (or another) on a captured model, in place."""
    from graphforge.transform import Pipeline

    records = Pipeline(canonical_passes(pipeline, ())).run(model)
    check_canonical(model, complete=pipeline is None)
    return records


def check_canonical(model: ir.Model, *, complete: bool) -> None:
    """Check the seam behind the canonical passes.

    Args:
        model: what they left.
        complete: it was the whole pipeline of ours; another one reaches no level that we know of.
    """
    from graphforge.ir import Level
    from graphforge.transform import check_level

    check_level(model, Level.CANONICAL if complete else None, "the canonical passes")


def canonical_passes(pipeline: str | Sequence[Pass] | None, extra: Sequence[Pass] = ()) -> list[Pass]:
    """The passes to run: the canonical pipeline, or another as a list or as text, then ``extra``."""
    if pipeline is None:
        from graphforge.passes import default_pipeline

        return [*default_pipeline(), *extra]
    if isinstance(pipeline, str):
        from graphforge.transform import Pipeline

        return [*Pipeline.parse(pipeline).passes, *extra]
    return [*pipeline, *extra]


def example_feeds(prepared: Prepared) -> dict[str, Any]:
    """The example call's tensors by input name, as numpy arrays."""
    if prepared.inputs is None:
        return prepared.feeds
    return {name: _as_numpy(tensor) for name, tensor in prepared.inputs.tensors.items()}


def reference_runner(prepared: Prepared) -> Runner:
    """What the artifact is compared with: eager PyTorch, or the ONNX file itself in ONNX Runtime."""
    from graphforge.runners.eager import EagerRunner

    if prepared.loaded.onnx_path is not None:
        return _runner_of_file(prepared.loaded.onnx_path)
    assert prepared.inputs is not None
    module: Any = prepared.loaded.module
    if module is None:
        assert prepared.loaded.program is not None
        module = _module_of(prepared.loaded.program)
    eager: Runner = EagerRunner(module, prepared.inputs)
    return eager


def _runner_of_file(path: Path) -> Runner:
    """The file itself; where it keeps shapes in external data, which ONNX Runtime refuses, with these inside."""
    from graphforge.onnx_io.safety import read_model_proto
    from graphforge.onnx_io.small_data import with_small_data
    from graphforge.runners.custom_ops import runner_before_lowering, uses_declared_ops
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    proto = read_model_proto(path)
    if uses_declared_ops(proto):
        from graphforge.onnx_io.importing import import_onnx

        declared: Runner = runner_before_lowering(import_onnx(path))
        return declared
    content = with_small_data(path, proto)
    if content is None:
        return OnnxRuntimeRunner(path, name="original ONNX")
    key = "session.model_external_initializers_file_folder_path"
    return OnnxRuntimeRunner(content, name="original ONNX", entries={key: str(path.resolve().parent)})


def count_nodes(model: ir.Model) -> int:
    """The nodes of a model, those in bodies included."""
    return sum(1 for _ in model.graph.all_nodes())
