"""An ONNX file in, a better ONNX file out: the canonical passes at the file's own opset, verified against the file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, VerificationError, argument
from graphforge.shown import Shown
from graphforge.staging import folder_beside

if TYPE_CHECKING:
    import onnx
    from rich.console import Console

    from graphforge.journal import Progress

__all__ = ["Contents", "Optimized", "optimize", "optimized_path"]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an ONNX file holds.

    Attributes:
        opset: version of the default domain.
        bytes: size of the file and of the external data it names.
        nodes: nodes of the graph, its bodies and functions.
        constants: initializers of the graph.
        operators: operator -> how many nodes.
    """

    opset: int
    bytes: int
    nodes: int
    constants: int
    operators: dict[str, int]


@dataclass(frozen=True, slots=True, repr=False)
class Optimized(Shown):
    """A file that was optimized.

    Attributes:
        path: the new file.
        before: what the original holds.
        after: what the new file holds.
        verification: how it was compared with the original, as the manifest of a bundle has it.
        notes: what the user should know.
    """

    path: Path
    before: Contents
    after: Contents
    verification: Mapping[str, Any]
    notes: Sequence[str]

    def summary(self) -> str:
        """``model.optimized.onnx: 120 nodes became 84, 4,100,000 bytes 4,012,345, verified``."""
        verdict = "verified" if self.verification["passed"] else "not verified"
        nodes = f"{self.before.nodes:,} nodes became {self.after.nodes:,}"
        return f"{self.path}: {nodes}, {self.before.bytes:,} bytes {self.after.bytes:,}, {verdict}"

    def render(self, console: Console) -> None:
        """Print operators, nodes and size before and after, what was compared, and the verdict."""
        from rich.markup import escape
        from rich.table import Table

        table = Table()
        table.add_column("", no_wrap=True)
        for column in ("before", "after", "change"):
            table.add_column(column, justify="right")
        before, after = self.before, self.after
        for name in dict.fromkeys((*before.operators, *after.operators)):
            table.add_row(escape(name), *_change(before.operators.get(name, 0), after.operators.get(name, 0)))
        table.add_section()
        table.add_row("nodes", *_change(before.nodes, after.nodes))
        table.add_row("constants", *_change(before.constants, after.constants))
        table.add_row("bytes", *_change(before.bytes, after.bytes))
        table.add_row("opset", str(before.opset), str(after.opset), "")
        console.print(table)
        tried = dict.fromkeys(_inputs_of(trial) for trial in self.verification.get("trials", ()))
        if tried:
            console.print(f"inputs tried: {escape(' | '.join(tried))}", soft_wrap=True)
        for note in dict.fromkeys(self.notes):
            console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
        verdict = "[green]verified[/green]" if self.verification["passed"] else "[yellow]not verified[/yellow]"
        console.print(f"{verdict}: {escape(str(self.path))}", soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "path": str(self.path),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "verification": dict(self.verification),
            "notes": list(self.notes),
        }


# Notes of `compile` that are about options which are not here.
_NOT_HERE = ("keep the artifact", "the artifact is kept", "accept_undecided")


def optimize(
    model: str | Path,
    output: str | Path | None = None,
    *,
    opset: int | None = None,
    inputs: Any = None,
    dynamic_shapes: Any = None,
    ranges: Any = None,
    further_inputs: Sequence[Any] = (),
    verify: bool = True,
    tolerances: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Optimized:
    """Optimize an ONNX file; names of inputs, outputs and of what stays are kept.

    Args:
        model: the file.
        output: the new file; by default ``NAME.optimized.onnx`` beside the original. Weights above 1.9 GB go to
            ``NAME.optimized.onnx.data`` beside it.
        opset: opset to deliver; None keeps the file's own.
        inputs: to verify with, and the sizes of dynamic dims, as ``compile`` takes them; None draws random ones.
        dynamic_shapes: sizes to verify, as ``compile`` takes them.
        ranges, further_inputs: what to verify with, as ``compile`` takes them.
        verify: compare with the original in ONNX Runtime.
        tolerances: what an output may be off, as ``compile`` takes them.
        seed: of random inputs.
        progress: called with the name of each step as it begins.

    Raises:
        UsageError: the model is not an ONNX file.
        GraphForgeError: it cannot be read, or the new file cannot be written.
        VerificationError: the new file computes something else; nothing is left.
    """
    from graphforge.compile import compile_with
    from graphforge.onnx_io.safety import read_model_proto
    from graphforge.options import CompileOptions
    from graphforge.targets.onnx import OnnxTarget

    path = Path(model)
    wanted = optimized_path(path, output)
    original = read_model_proto(path)
    before = _contents(original, path)
    notes: list[str] = []
    with folder_beside(wanted) as folder:
        options = CompileOptions(
            target=OnnxTarget(file=wanted.name, keep_names=True),
            opset=_deliverable(before.opset, notes) if opset is None else opset,
            verify=verify,
            tolerances=tolerances,
            seed=seed,
            output=folder / "bundle",
        )
        try:
            bundle = compile_with(
                options,
                path,
                inputs,
                dynamic_shapes=dynamic_shapes,
                ranges=ranges,
                further_inputs=further_inputs,
                progress=progress,
            )
        except VerificationError as error:
            raise VerificationError(
                error.message,
                *(
                    note for note in error.notes if not any(option in note for option in _NOT_HERE)
                ),  # here there is no such option
                f"graphforge compile {path} can keep what was made, and graphforge bisect finds the pass",
            ) from error
        made = bundle.path / wanted.name
        after = _contents(read_model_proto(made), made)
        _move([bundle.path / name for name in bundle.manifest["files"]], wanted.parent)
    notes += bundle.manifest["notes"]
    notes += _compared_at_one_size(original, bundle.manifest["inputs"]) if verify else []
    if after.nodes >= before.nodes and after.bytes >= before.bytes:
        notes.append("there was nothing to gain: the new file has no fewer nodes and bytes than the original")
    return Optimized(wanted, before, after, bundle.manifest["verification"], tuple(notes))


def optimized_path(path: Path, output: str | Path | None) -> Path:
    """Where the optimized file goes.

    Raises:
        UsageError: what is to be optimized is not an ONNX file.
        GraphForgeError: it may not go there.
    """
    if path.suffix != ".onnx":
        raise UsageError(
            f"optimize takes an ONNX file, got {str(path)!r}",
            "name the bundle's model.onnx"
            if path.is_dir()
            else f"any other model is compiled: graphforge compile {path}",
        )
    if not path.is_file():
        raise GraphForgeError(f"model file {str(path)!r} does not exist", "the path is taken from the current folder")
    wanted = path.with_name(f"{path.stem}.optimized.onnx") if output is None else Path(output)
    if wanted.suffix != ".onnx":
        raise UsageError(f"the new file must be called NAME.onnx, got {str(wanted)!r}")
    if wanted.is_dir():
        raise GraphForgeError(
            f"{str(wanted)!r} is a folder, expected the name of a file",
            f"choose another name: {argument('output', 'OUT')}",
        )
    if wanted.exists() and wanted.samefile(path):
        raise GraphForgeError(
            f"{str(wanted)!r} is the original, which is what the new file is compared with", "choose another name"
        )
    return wanted


def _deliverable(opset: int, notes: list[str]) -> int:
    """The file's opset, or the nearest that can be written."""
    from graphforge.ir import HOME_OPSET
    from graphforge.targets.onnx.target import LOWEST_OPSET

    nearest = min(max(opset, LOWEST_OPSET), HOME_OPSET)
    if nearest != opset:
        notes.append(
            f"the file is of opset {opset}, the new one of {nearest}: {LOWEST_OPSET} to {HOME_OPSET} are written"
        )
    return nearest


def _move(files: Sequence[Path], folder: Path) -> None:
    """Put the files in their place, the model last: it must never be there without its weights."""
    model, *others = files
    try:
        for file in (*others, model):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise GraphForgeError(f"cannot write {str(folder / model.name)!r}: {error.strerror}") from None


def _compared_at_one_size(proto: onnx.ModelProto, inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note on dims that the file leaves open and of which one size only was compared."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    promised = {entry["name"]: {int(axis) for axis in entry["dynamic"]} for entry in inputs}
    notes = []
    for info in proto.graph.input:
        dims = info.type.tensor_type.shape.dim
        free = [axis for axis, dim in enumerate(dims) if not dim.HasField("dim_value")]
        untried = [str(axis) for axis in free if axis not in promised.get(info.name, {})]
        if untried and info.name not in constants:
            several = len(untried) > 1
            notes.append(
                f"ax{'es' if several else 'is'} {', '.join(untried)} of input {info.name} may have any size and "
                f"{'were' if several else 'was'} compared at one; give a range of sizes to have more compared"
            )
    return notes


def _contents(proto: onnx.ModelProto, path: Path) -> Contents:
    from graphforge.onnx_io.safety import nodes_of_proto

    operators = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes_of_proto(proto)
    )
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    data = {
        entry.value for tensor in proto.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return Contents(
        opset,
        path.stat().st_size + sum((path.parent / name).stat().st_size for name in data),
        operators.total(),
        len(proto.graph.initializer),
        dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
    )


def _change(before: int, after: int) -> tuple[str, str, str]:
    change = f"{after - before:+,}" if after != before else ""
    colour = "green" if after < before else "yellow"
    return f"{before:,}", f"{after:,}", f"[{colour}]{change}[/{colour}]" if change else ""


def _inputs_of(trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in trial["inputs"].items())
