"""The bundle: the folder that a compilation leaves, written aside and renamed when all is well, and its manifest."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from graphforge.errors import GraphForgeError, argument, worded
from graphforge.prepare import count_nodes
from graphforge.runners.recorded import MANIFEST_SCHEMA, read_manifest
from graphforge.shown import Shown
from graphforge.staging import folder_beside, put_in_place
from graphforge.summary import closeness, print_summary, verdict_of
from graphforge.targets.options import as_record

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from graphforge.journal import Journal
    from graphforge.prepare import Prepared
    from graphforge.runtime.dataset import Dataset
    from graphforge.runtime.result import RunReport
    from graphforge.runtime.steps import Step
    from graphforge.spec import TensorSpec
    from graphforge.targets.target import EmitResult, Target, TargetOptions
    from graphforge.transform import PassRecord
    from graphforge.verbs.report import Page

__all__ = [
    "MANIFEST_SCHEMA",
    "Bundle",
    "destination",
    "facts_of_pictures",
    "keep_unverified",
    "make_manifest",
    "read_steps",
    "staging",
    "steps_for",
    "write_json",
]


@dataclass(frozen=True, slots=True, repr=False)
class Bundle(Shown):
    """A finished compilation; a path to its folder wherever one is taken.

    Attributes:
        path: the folder with the artifacts and ``manifest.json``.
        manifest: what was done, by which versions, how close; the same as ``manifest.json``.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The bundle in a folder.

        Raises:
            GraphForgeError: it is not a bundle, or one that failed verification.
        """
        return cls(Path(path), read_manifest(Path(path)))

    def run(
        self,
        inputs: Any,
        *,
        score: float = 0.3,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        scale: float = 1.0,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        preprocess: str | os.PathLike[str] | None = None,
        draw: str | os.PathLike[str] | None = None,
    ) -> RunReport:
        """Run the artifact; all is as with ``graphforge.run``, which raises the same.

        Args:
            inputs: arrays, tensors or files.
            score: detections that score more are shown.
            labels: names of the labels, or a text file with one a line.
            scale, mean, std: what becomes of a picture's pixels, where the bundle does not say.
            preprocess: a TOML file of steps, in place of the bundle's.
            draw: file for the picture with its detections drawn.
        """
        from graphforge.verbs.run import run

        return run(
            self,
            inputs,
            score=score,
            labels=labels,
            scale=scale,
            mean=mean,
            std=std,
            preprocess=preprocess,
            draw=draw,
        )

    def report(self, output: str | os.PathLike[str] | None = None) -> Page:
        """Write the bundle's page, ``report.html`` in its folder unless another file is named.

        Raises:
            GraphForgeError: the file cannot be written.
        """
        from graphforge.verbs.report import report

        return report(self, output)

    def summary(self) -> str:
        """``out/net for onnx, verified, max rel 1.2e-06``."""
        how_close = closeness(self.manifest)
        target = self.manifest["target"]["name"]
        return ", ".join(part for part in (f"{self.path} for {target}", verdict_of(self.manifest), how_close) if part)

    def render(self, console: Console) -> None:
        """Print steps, outputs, notes and the verdict."""
        print_summary(console, self.path, self.manifest)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"path": str(self.path), "manifest": self.manifest}

    def __fspath__(self) -> str:
        return str(self.path)

    def explain(self) -> str:
        """Which rules nearly fired, where, and why they did not; and which passes of your own changed nothing."""
        from graphforge.transform import explain

        return explain(self._records())

    def pass_times(self) -> str:
        """A table of the passes, the slowest first."""
        from graphforge.transform import pass_times

        return pass_times(self._records())

    def _records(self) -> list[PassRecord]:
        from graphforge.transform import PassRecord

        return [PassRecord.from_dict(record) for record in self.manifest["passes"]]


def destination(output: str | Path | None, name: str) -> Path:
    """The bundle's folder: ``output``, or one named after the model under ``out/``.

    Raises:
        GraphForgeError: it cannot be made there, or something else than a bundle is in the way.
    """
    if output is None:
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in name).strip("_")
        output = Path("out") / (name or "model")
    folder = Path(output)
    if not folder.name:  # "." has no name that a folder beside it could be called after
        folder = folder.resolve()
    if folder.exists():
        if not folder.is_dir():
            raise GraphForgeError(
                f"output {str(output)!r} is a file, expected a folder", f"choose a folder: {argument('output', 'DIR')}"
            )
        if any(folder.iterdir()) and not any(
            (folder / name).exists() for name in ("manifest.json", "manifest.unverified.json")
        ):
            raise GraphForgeError(
                f"output folder {str(output)!r} exists and is not a bundle",
                f"choose an empty or new folder: {argument('output', 'DIR')}",
            )
    standing = next(parent for parent in (folder.parent, *folder.absolute().parents) if parent.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        reason = "it may not be written to" if standing.is_dir() else "it is a file"
        raise GraphForgeError(
            f"cannot make output folder {str(folder)!r} in {str(standing)!r}: {reason}",
            f"choose a writable folder: {argument('output', 'DIR')}",
        )
    return folder


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder beside the destination that takes its place when all is well and vanishes otherwise."""
    with folder_beside(folder) as staged:
        try:
            yield staged
            put_in_place(staged, folder)
        except OSError as error:
            raise GraphForgeError(
                f"cannot write {str(folder)!r}: {error.strerror}",
                f"free space or choose another folder: {argument('output', 'DIR')}",
            ) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_steps(given: Any) -> tuple[tuple[Step, ...] | None, Dataset | None]:
    """What the user says of pictures, read before any work: steps, and names of what a model finds.

    Args:
        given: None, a TOML file, or a list of steps or of their data.

    Raises:
        GraphForgeError: it cannot be read, or there is no such step.
    """
    from graphforge.runtime.preprocess import read_preprocess, record_of, steps_of
    from graphforge.runtime.steps import Step

    if given is None:
        return None, None
    if isinstance(given, str | os.PathLike):
        return read_preprocess(Path(given))
    items = given if isinstance(given, list | tuple) else [given]
    plain = [record_of([one])[0] if isinstance(one, Step) else one for one in items]
    return steps_of(plain, argument("preprocess")), None


# What a model brings for pictures goes into the manifest as `facts_of_pictures` completes it.
_OF_PICTURES = ("preprocess", "dataset")


def steps_for(tensor: TensorSpec, steps: Sequence[Step] | None, brought: Mapping[str, Any]) -> tuple[Step, ...]:
    """What becomes of a picture on its way into an input, completed; nothing where nobody says so.

    Args:
        tensor: the input.
        steps: what the user says, which takes precedence.
        brought: what the model's framework says (``LoadedModel.facts``).

    Raises:
        GraphForgeError: a size is left out, and the input has no fixed one.
    """
    from graphforge.runtime.preprocess import completed, steps_of

    if steps is None:
        steps = steps_of(list(brought.get("preprocess", ())))
        own_size = brought.get("openmmlab", {}).get("input_size")
        if own_size and len(tensor.shape) == 4 and not {2, 3} & set(tensor.dims):
            # another size than the config's was asked for: the picture goes to that one
            steps = tuple(
                replace(step, size=None) if getattr(step, "size", None) == tuple(own_size) else step  # type: ignore[call-arg]
                for step in steps
            )
    return completed(steps, tensor) if steps else ()


def facts_of_pictures(prepared: Prepared, steps: Sequence[Step] | None, dataset: Dataset | None) -> dict[str, Any]:
    """What the manifest says of pictures: the steps for the input that takes them, and what the model finds.

    Raises:
        GraphForgeError: what the steps make of a picture is not what the input takes.
    """
    from graphforge.runtime.dataset import Dataset
    from graphforge.runtime.feeds import takes_pictures
    from graphforge.runtime.preprocess import check_steps, record_of, steps_of

    brought: Mapping[str, Any] = getattr(prepared.loaded, "facts", {})  # what the model's framework says
    if dataset is None and "dataset" in brought:
        dataset = Dataset.of(dict(brought["dataset"]))
    facts: dict[str, Any] = {} if dataset is None else {"dataset": dataset.to_dict()}
    wanted = steps if steps is not None else steps_of(list(brought.get("preprocess", ())))
    if wanted:
        tensor = next((one for one in prepared.shapes.inputs if takes_pictures(one, wanted)), None)
        if tensor is None:
            shapes = "; ".join(f"{one.name} {'x'.join(map(str, one.shape))}" for one in prepared.shapes.inputs)
            raise GraphForgeError(
                f"{argument('preprocess')} is for pictures, and no input takes any", f"the inputs are: {shapes}"
            )
        steps = steps_for(tensor, steps, brought)
        check_steps(steps, tensor)
        facts["preprocess"] = record_of(steps)
    return facts


def make_manifest(
    prepared: Prepared,
    target: Target,
    options: TargetOptions,
    emitted: EmitResult,
    model: ir.Model,
    facts: Mapping[str, Any],
    records: Sequence[PassRecord],
    report: Mapping[str, Any],
    journal: Journal,
    further: Mapping[str, Any],
    decided_by: Mapping[str, str | None],
) -> dict[str, Any]:
    from collections import Counter

    from graphforge import __version__
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
    from graphforge.runners.retyped import halved_inputs

    operators = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.all_nodes()
    )
    halves = halved_inputs(model, {spec.name: spec.dtype for spec in prepared.shapes.inputs})
    content = {
        "schema": MANIFEST_SCHEMA,
        "graphforge": __version__,
        "model": prepared.loaded.record,
        "target": {
            "name": target.name,
            "opset": options.opset,
            "outputs": options.outputs,
            "nms": options.nms,
            "precision": options.precision,
            "options": {one.name: as_record(getattr(options.own, one.name)) for one in fields(options.own)},
            "asked": list(options.asked),
            **({"decided_by": dict(decided_by)} if decided_by else {}),
        },
        "files": list(emitted.files),
        "artifact": dict(emitted.facts),
        "inputs": [
            {
                "name": spec.name,
                "shape": list(spec.shape),
                "dtype": halves[spec.name].name if spec.name in halves else spec.dtype,
                "dynamic": {
                    str(axis): {"name": dim.name, "low": dim.low, "high": dim.high, "step": dim.step}
                    for axis, dim in spec.dims.items()
                },
            }
            for spec in prepared.shapes.inputs
        ],
        "outputs": [
            {
                "name": value.name,
                "shape": None
                if value.shape is None
                else [dim if isinstance(dim, int) else dim.value for dim in value.shape],
                "dtype": value.dtype.numpy().name if value.dtype else None,
            }
            for value in model.graph.outputs
        ],
        "capture": {key: facts[key] for key in ("method", "failures", "substitutions")},
        "lowering": {"fallbacks": facts["fallbacks"], "decomposed": facts["decomposed"]},
        "passes": [record.to_dict() for record in records],
        "padding": list(model.meta.get(PADDED_OUTPUTS, ())),
        "nodes": count_nodes(model),
        "operators": dict(sorted(operators.items())),
        "steps": journal.steps,
        "verification": dict(report),
        **further,
        "notes": [worded(note) for note in journal.notes],
        "versions": _versions(),
        **{key: fact for key, fact in prepared.loaded.facts.items() if key not in _OF_PICTURES},
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))  # exactly what manifest.json will hold
    return plain


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "numpy", "polygraphy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def keep_unverified(staged: Path, folder: Path, emitted: EmitResult, manifest: dict[str, Any]) -> str:
    """Copy an artifact that failed out of the staging folder, under a name that says so."""
    folder.mkdir(parents=True, exist_ok=True)
    main = Path(emitted.files[0])
    shutil.copy2(staged / main, folder / f"{main.stem}.unverified{main.suffix}")
    if f"{main}.data" in emitted.files:  # the model names its external data, so that file keeps its name
        shutil.copy2(staged / f"{main}.data", folder / f"{main}.data")
    write_json(folder / "manifest.unverified.json", manifest)
    return f"the artifact is kept, unverified, in {folder}: `graphforge diff` names what is wrong in it"
