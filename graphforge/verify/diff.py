"""Layer-wise diff: what every module returned in the eager run against the same value in the ONNX file, in call order.

One eager run with a hook on every module, one session whose outputs are all the values needed; both in pieces when they
would not fit into memory at once.  Which value stands for which module is found in ``lineup.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array, array_from_tensor
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.shown import Shown
from graphforge.verify.compare import OutputComparison, compare_arrays
from graphforge.verify.lineup import ArtifactGraph, Candidates, ModuleCall, candidates_of
from graphforge.verify.tolerance import Tolerance, Tolerances

if TYPE_CHECKING:
    import onnx
    import torch
    from rich.console import Console
    from rich.table import Table

__all__ = ["DiffReport", "ModuleDiff", "diff_modules", "short_source"]

_COLUMNS = ("", "module", "class", "source", "shape", "max abs", "max rel", "status")
# What a terminal goes without that is too narrow for all columns: broken words in every cell tell less.
_LEFT_OUT = ("class", "shape")

# Values held at once on each side; above that the work is done in pieces.
_MEMORY = 1 << 30

# External tensors of at most this many bytes are taken into the model that is run.
_SMALL_TENSOR = 1 << 12


@dataclass(frozen=True, slots=True)
class ModuleDiff:
    """One tensor that one call of one module returned.

    Attributes:
        module: module path, "" for the model itself.
        module_class: its class.
        call: number of the call when the module is called several times, from 0.
        tensor: number of the tensor among those returned, from 0.
        source: ``file.py:line`` that called it, "" when unknown.
        status: ``equal``, ``departs``, ``merged`` (the artifact does not contain it) or ``uncertain`` (what was found
            differs, but it may stand for something else than this output).
        value: the artifact's value compared with, "" when merged.
        comparison: how far apart they are; None when merged.
        factor: the constant that the artifact's value is a multiple by, when it departs in nothing else.
        note: what it is merged into or computed together with.
    """

    module: str
    module_class: str
    call: int
    tensor: int
    source: str
    status: str
    value: str = ""
    comparison: OutputComparison | None = None
    factor: float | None = None
    note: str = ""

    def describe(self) -> str:
        """``backbone.conv1 (Conv2d), model.py:41``."""
        name = self.module or "the model itself"
        text = f"{name} ({self.module_class.rpartition('.')[2]})"
        if self.call:
            text += f" call {self.call + 1}"
        return ", ".join(part for part in (text, self.source) if part)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "module": self.module,
            "class": self.module_class,
            "call": self.call,
            "tensor": self.tensor,
            "source": self.source,
            "status": self.status,
            "value": self.value,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "factor": self.factor,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True, repr=False)
class DiffReport(Shown):
    """The table of module outputs in execution order (a module stands after those inside it).

    Attributes:
        rows: one per tensor returned.
        notes: what limits the table, one line each.
    """

    rows: tuple[ModuleDiff, ...]
    notes: tuple[str, ...] = ()

    @property
    def first_departure(self) -> ModuleDiff | None:
        """The first row that departs."""
        return next((row for row in self.rows if row.status == "departs"), None)

    @property
    def agrees(self) -> bool:
        """No row departs, and something was compared."""
        return self.first_departure is None and any(row.status == "equal" for row in self.rows)

    def describe_first_departure(self) -> str:
        """One line for messages, "" when nothing departs."""
        row = self.first_departure
        if row is None:
            return ""
        text = row.describe() + (f" [{row.note}]" if row.note else "")
        if row.comparison is None or row.comparison.max_abs is None:
            return text + (f": {row.comparison.reason}" if row.comparison is not None else "")
        return f"{text}: max abs {row.comparison.max_abs:.3g}, max rel {row.comparison.max_rel:.2g}"

    def summary(self) -> str:
        """The first departure, or that there is none."""
        compared = sum(row.status in ("equal", "departs") for row in self.rows)
        if self.first_departure is not None:
            return f"first departure at {self.describe_first_departure()}"
        return f"no departure in {compared} module outputs" if compared else "nothing could be compared"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        first = self.first_departure
        return {
            "agrees": self.agrees,
            "first_departure": None if first is None else first.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def render(self, console: Console, *, merged: bool = False) -> None:
        """Print the table; ``merged`` shows the modules without a counterpart as well."""
        from rich.markup import escape

        table = self._table(_COLUMNS, merged=merged)
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum > console.width:
            table = self._table([name for name in _COLUMNS if name not in _LEFT_OUT], merged=merged)
        console.print(table)
        hidden = sum(row.status == "merged" for row in self.rows)
        if hidden and not merged:
            what = "1 module output is" if hidden == 1 else f"{hidden} module outputs are"
            console.print(f"{what} merged into later nodes and not shown")
        for note in self.notes:
            console.print(f"note: {escape(note)}", highlight=False)
        first = self.first_departure
        if first is not None:
            console.print(f"first departure: {escape(self.describe_first_departure())}", highlight=False)
        elif self.agrees:
            console.print("no module departs")

    def _table(self, columns: Sequence[str], *, merged: bool) -> Table:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="module outputs, eager against artifact", title_justify="left")
        for name in columns:
            table.add_column(name, justify="right" if name.startswith("max") else "left", overflow="fold")
        first = self.first_departure
        colours = {"equal": "green", "departs": "red", "merged": "dim", "uncertain": "yellow"}
        for row in self.rows:
            if row.status == "merged" and not merged:
                continue
            comparison = row.comparison
            measured = comparison is not None and comparison.max_abs is not None
            name = escape(row.module or "(model)")
            name += f" call {row.call + 1}" if row.call else ""
            name += f" [{row.tensor}]" if row.tensor else ""
            told = {
                "": "[red]>>[/red]" if row is first else "",
                "module": name,
                "class": row.module_class.rpartition(".")[2],
                "source": escape(short_source(row.source)),
                "shape": "x".join(map(str, comparison.shape)) if comparison is not None else "",
                "max abs": f"{comparison.max_abs:.3g}" if comparison is not None and measured else "-",
                "max rel": f"{comparison.max_rel:.2g}" if comparison is not None and measured else "-",
                "status": f"[{colours[row.status]}]{row.status}[/]" + (f" ({escape(row.note)})" if row.note else ""),
            }
            table.add_row(*(told[column] for column in columns))
        return table


def short_source(source: str) -> str:
    """A source line as tables show it: from the working folder on, or from the installed package on."""
    marker = "/site-packages/"
    if marker in source:
        return source.rpartition(marker)[2]
    if "/ipykernel_" in source:  # a cell of a notebook: its file stands in a folder for the session
        return source.rpartition("/")[2]
    here = f"{Path.cwd()}/"
    return source.removeprefix(here)


def diff_modules(
    reference: EagerRunner,
    artifact: OnnxRuntimeRunner | Path | str | onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    tolerances: Tolerances | None = None,
    memory: int = _MEMORY,
) -> DiffReport:
    """Compare what every module returns with the same value in the artifact, on one set of inputs.

    Args:
        reference: the module.
        artifact: the ONNX model; its nodes must carry origins (ours, or the stock exporter's).
        feeds: inputs by name; when the file names them otherwise, they go by position.
        tolerances: what counts as equal; None takes the defaults by dtype.
        memory: bytes of values held at once on each side.

    Raises:
        GraphForgeError: a side does not run, or the file has no origins.
    """
    tolerances = tolerances or Tolerances()
    source = artifact if isinstance(artifact, OnnxRuntimeRunner) else OnnxRuntimeRunner(artifact)
    proto, folder = _proto_of(source)
    modules = _module_paths(reference.module)
    graph = ArtifactGraph.read(proto, modules)
    if not any(node.origins for node in graph.nodes):
        raise GraphForgeError(
            "the ONNX file carries no origins, so its values cannot be lined up with modules",
            "compile it with graphforge, or export it with torch.onnx.export(dynamo=True) and keep its metadata",
        )
    calls = _record_calls(reference, feeds, modules)
    by_module: dict[str, list[ModuleCall]] = {}
    for call in calls:
        by_module.setdefault(call.module, []).append(call)
    found = {
        module: candidates_of(module, by_module, graph, modules) if module else Candidates(graph.outputs)
        for module in by_module
    }
    rows: dict[tuple[str, int, int], ModuleDiff] = {}
    for piece in _pieces(by_module, found, memory):
        wanted = {name for module in piece for name in found[module].values}
        captured = _capture(reference, feeds, modules, set(piece))
        values = _run_with_outputs(proto, folder, source, wanted, feeds)
        for module in piece:
            for row in _compare_module(by_module[module], found[module], captured, values, tolerances):
                rows[row.module, row.call, row.tensor] = row
    notes = []
    if len(calls) == 1:
        notes.append(
            "the model has no submodules that can be watched (a compiled or exported program): only its outputs"
        )
    ordered = [
        _excused(rows[call.module, call.call, tensor], call, calls, rows)
        for call in sorted(calls, key=lambda call: call.finished)
        for tensor in range(len(call.shapes))
    ]
    return DiffReport(tuple(ordered), tuple(notes))


# -- the eager side ----------------------------------------------------------------------------------------------------


def _module_paths(module: torch.nn.Module) -> dict[str, str]:
    """Every path of every submodule -> the first path of the same object (shared modules have several)."""
    first: dict[int, str] = {}
    paths = {}
    for path, submodule in module.named_modules(remove_duplicate=False):
        paths[path] = first.setdefault(id(submodule), path)
    return paths


@dataclass(slots=True)
class _Watch:
    """Hooks on every module: when it is called, when it returns, what it returns."""

    paths: Mapping[str, str]
    keep: set[str] | None
    ticks: int = 0
    calls: list[ModuleCall] = field(default_factory=list)
    open: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kept: dict[tuple[str, int, int], Array] = field(default_factory=dict)

    @contextmanager
    def on(self, module: torch.nn.Module) -> Iterator[None]:
        handles = []
        try:
            for path, submodule in module.named_modules(remove_duplicate=False):
                if self.paths[path] == path:
                    handles.append(submodule.register_forward_pre_hook(self._entering(path)))
                    handles.append(submodule.register_forward_hook(self._leaving(path)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, path: str) -> Any:
        def enter(module: torch.nn.Module, args: Any) -> None:
            self.ticks += 1
            self.open.setdefault(path, []).append(self.ticks)

        return enter

    def _leaving(self, path: str) -> Any:
        def leave(module: torch.nn.Module, args: Any, result: Any) -> None:
            import torch
            from torch.utils import _pytree

            self.ticks += 1
            started = self.open[path].pop()
            call = self.counts.get(path, 0)
            self.counts[path] = call + 1
            tensors = [
                leaf
                for leaf in _pytree.tree_leaves(result)
                if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and not leaf.is_quantized
            ]
            kind = type(module)
            self.calls.append(
                ModuleCall(
                    path,
                    f"{kind.__module__}.{kind.__qualname__}",
                    call,
                    started,
                    self.ticks,
                    tuple(tuple(tensor.shape) for tensor in tensors),
                    tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
                    any(leaf is tensor for tensor in tensors for leaf in _pytree.tree_leaves(args)),
                )
            )
            if self.keep is not None and path in self.keep:
                for number, tensor in enumerate(tensors):
                    # A copy, now: the next module may overwrite it in place.
                    self.kept[path, call, number] = array_from_tensor(tensor).copy()

        return leave


def _record_calls(reference: EagerRunner, feeds: Mapping[str, Array], modules: Mapping[str, str]) -> list[ModuleCall]:
    watch = _Watch(modules, None)
    with reference.undisturbed(), watch.on(reference.module):
        reference.call(feeds)
    return watch.calls


def _capture(
    reference: EagerRunner, feeds: Mapping[str, Array], modules: Mapping[str, str], keep: set[str]
) -> dict[tuple[str, int, int], Array]:
    watch = _Watch(modules, keep)
    with reference.undisturbed(), watch.on(reference.module):
        reference.call(feeds)
    return watch.kept


# -- the artifact's side -----------------------------------------------------------------------------------------------


def _proto_of(runner: OnnxRuntimeRunner) -> tuple[onnx.ModelProto, Path | None]:
    """The model without its external data, and the folder where that data lies."""
    import onnx
    import onnx_ir as ir

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


def _run_with_outputs(
    proto: onnx.ModelProto,
    folder: Path | None,
    runner: OnnxRuntimeRunner,
    wanted: set[str],
    feeds: Mapping[str, Array],
) -> dict[str, Array]:
    """The wanted values of one run; the file on disk stays as it is."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    made = {value.name for value in proto.graph.output}
    order = [name for node in proto.graph.node for name in node.output if name in wanted and name not in made]
    del model.graph.output[:]
    model.graph.output.extend(value for value in proto.graph.output if value.name in wanted)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in order)
    if not model.graph.output:
        return {}

    def configure(options: Any) -> None:
        if runner.configure is not None:
            runner.configure(options)
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))

    with OnnxRuntimeRunner(
        model.SerializeToString(),
        threads=runner.threads,
        optimize=runner.optimize,
        configure=configure,
        name=runner.name,
    ) as session:
        names = session.input_names
        if set(names) <= set(feeds):
            return session.run(feeds)
        try:
            return session.run(dict(zip(names, feeds.values(), strict=False)))
        except GraphForgeError as error:
            raise error.with_notes(
                f"the file takes {', '.join(names)}, the model {', '.join(feeds)}: was it compiled from this model?"
            ) from error


def _pieces(
    calls: Mapping[str, Sequence[ModuleCall]], found: Mapping[str, Candidates], memory: int
) -> Iterator[list[str]]:
    """Modules in groups whose values fit into memory together."""
    piece: list[str] = []
    held = 0
    for module, made in calls.items():
        size = sum(_bytes(shape, dtype) for call in made for shape, dtype in zip(call.shapes, call.dtypes, strict=True))
        size *= max(1, len(found[module].values))
        if piece and held + size > memory:
            yield piece
            piece, held = [], 0
        piece.append(module)
        held += size
    if piece:
        yield piece


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    digits = "".join(letter for letter in dtype if letter.isdigit())
    size = int(digits[:3] or 8) // 8 if not dtype.startswith("float8") else 1
    for extent in shape:
        size *= extent
    return size


# -- row by row --------------------------------------------------------------------------------------------------------


def _compare_module(
    calls: Sequence[ModuleCall],
    found: Candidates,
    captured: Mapping[tuple[str, int, int], Array],
    values: Mapping[str, Array],
    tolerances: Tolerances,
) -> Iterator[ModuleDiff]:
    """One row for every tensor that every call returned.

    A value that is equal settles the row.  Failing that, tensors and values of one shape and dtype are paired in order
    when there are as many of the one as of the other; where there are more values the last one is shown, as uncertain.
    """
    source = next((origin.source for origin in found.origins if origin.source), "")
    free = [name for name in found.values if name in values]
    slots = [(call, tensor) for call in calls for tensor in range(len(call.shapes))]
    taken: dict[tuple[int, int], tuple[str, OutputComparison]] = {}
    if not calls[0].module and len(free) == len(slots):
        pairs = [(slot, name, True) for slot, name in zip(slots, free, strict=True)]  # outputs are in order
    else:
        pairs = []
        for call, tensor in slots:
            for name in free:
                comparison = _compared(captured, call, tensor, values[name], tolerances, name)
                if comparison is not None and comparison.passed:
                    taken[call.call, tensor] = name, comparison
                    free.remove(name)
                    break
        pairs = _paired_in_order([s for s in slots if (s[0].call, s[1]) not in taken], free, values)
    doubtful = set()
    for (call, tensor), name, sure in pairs:
        if not sure:
            doubtful.add(name)
        array = captured[call.module, call.call, tensor]
        comparison = compare_arrays(name, array, values[name], tolerances.of(name, call.dtypes[tensor]))
        taken[call.call, tensor] = name, comparison
    for call, tensor in slots:
        entry = taken.get((call.call, tensor))
        row = ModuleDiff(call.module, call.module_class, call.call, tensor, source, "merged")
        if entry is None:
            reason = f"into {found.merged_into}" if found.merged_into else ""
            if call.hands_through:
                reason = "returns its input"
            yield _with(row, note=reason)
            continue
        name, comparison = entry
        certain = found.certain and name not in doubtful
        status = "equal" if comparison.passed else "departs" if certain else "uncertain"
        note = f"with {', '.join(found.together_with)} in it" if found.together_with else ""
        factor = None
        if status == "departs":
            array = captured[call.module, call.call, tensor]
            factor = _constant_factor(array, values[name], tolerances.of(name, call.dtypes[tensor]))
        yield _with(row, status=status, value=name, comparison=comparison, factor=factor, note=note)


def _excused(
    row: ModuleDiff, call: ModuleCall, calls: Sequence[ModuleCall], rows: Mapping[tuple[str, int, int], ModuleDiff]
) -> ModuleDiff:
    """A row that departs by a constant factor alone, inside a module that agrees: the factor went into a weight."""
    if row.status != "departs" or row.factor is None:
        return row
    around = [
        other
        for other in calls
        if other.started < call.started and call.finished < other.finished and other.shapes
        if all(rows[other.module, other.call, tensor].status == "equal" for tensor in range(len(other.shapes)))
    ]
    if not around:
        return row
    nearest = max(around, key=lambda other: other.started).module or "the model"
    note = f"{row.factor:.4g} times as large, and {nearest} agrees: a factor was folded into its weights"
    return _with(row, status="uncertain", note=note)


def _constant_factor(reference: Array, artifact: Array, tolerance: Tolerance) -> float | None:
    """The c for which the artifact is c times the reference, None when there is none."""
    if reference.dtype.kind not in "fV" or reference.size < 2 or reference.shape != artifact.shape:
        return None
    r, a = reference.astype(np.float64), artifact.astype(np.float64)
    square = float((r * r).sum())
    if not np.isfinite(square) or square == 0 or not np.isfinite(a).all():
        return None
    factor = float((a * r).sum()) / square
    if factor == 0 or not np.isfinite(factor):
        return None
    return factor if compare_arrays("", r * factor, a, tolerance).passed else None


def _with(row: ModuleDiff, **changes: Any) -> ModuleDiff:
    from dataclasses import replace

    return replace(row, **changes)


def _compared(
    captured: Mapping[tuple[str, int, int], Array],
    call: ModuleCall,
    tensor: int,
    value: Array,
    tolerances: Tolerances,
    name: str,
) -> OutputComparison | None:
    if value.shape != call.shapes[tensor] or str(value.dtype.name) != call.dtypes[tensor]:
        return None
    array = captured[call.module, call.call, tensor]
    return compare_arrays(name, array, value, tolerances.of(name, call.dtypes[tensor]))


def _paired_in_order(
    slots: Sequence[tuple[ModuleCall, int]], free: Sequence[str], values: Mapping[str, Array]
) -> list[tuple[tuple[ModuleCall, int], str, bool]]:
    pairs: list[tuple[tuple[ModuleCall, int], str, bool]] = []
    kinds = dict.fromkeys((call.shapes[tensor], call.dtypes[tensor]) for call, tensor in slots)
    for shape, dtype in kinds:
        mine = [slot for slot in slots if (slot[0].shapes[slot[1]], slot[0].dtypes[slot[1]]) == (shape, dtype)]
        fitting = [name for name in free if values[name].shape == shape and values[name].dtype.name == dtype]
        if len(mine) == len(fitting):
            pairs.extend((slot, name, True) for slot, name in zip(mine, fitting, strict=True))
        elif len(fitting) > len(mine) == 1:
            pairs.append((mine[0], fitting[-1], False))
    return pairs
