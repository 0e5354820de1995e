"""`graphforge.evaluate`: accuracy of bundles on a data set, beside their eager model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runners.recorded import onnx_files_of, spec_of_manifest
from graphforge.runtime.opened import holds_sdk_files, read_bundle, read_opened
from graphforge.shown import Shown

if TYPE_CHECKING:
    from rich.console import Console

    from graphforge.evaluation.evaluate import Side
    from graphforge.evaluation.metric import Metric
    from graphforge.evaluation.samples import Sample
    from graphforge.journal import Progress
    from graphforge.prepare import ModelLike
    from graphforge.runners.runner import Runner
    from graphforge.runtime.model import PictureModel

__all__ = ["EvaluationReport", "evaluate"]

METRICS = ("bbox", "keypoints", "top", "miou", "psnr")


@dataclass(frozen=True, slots=True, repr=False)
class EvaluationReport(Shown):
    """Figures of each side, in columns.

    Attributes:
        metric: its name.
        data: the annotations.
        samples: how many pictures or boxes were looked at.
        sides: eager first, where it is given, then the bundles.
        notes: what was taken for granted.
    """

    metric: str
    data: str
    samples: int
    sides: tuple[Side, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """``AP 0.8254 (eager), 0.8254 (out/digits) on 500 samples``."""
        first = next(iter(self.sides[0].figures))
        each = ", ".join(f"{side.figures[first]:.4f} ({side.name})" for side in self.sides)
        return f"{first} {each} on {_counted(self.samples)}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "metric": self.metric,
            "data": self.data,
            "samples": self.samples,
            "sides": [
                {
                    "name": side.name,
                    "figures": dict(side.figures),
                    "seconds": round(side.seconds, 3),
                    "resumed": side.resumed,
                }
                for side in self.sides
            ],
            "notes": list(self.notes),
        }

    def render(self, console: Console) -> None:
        """Print a table: a line for each figure, a column for each side."""
        from rich.markup import escape
        from rich.table import Table

        console.print(
            f"[italic]{escape(self.metric)} on {_counted(self.samples)} of {escape(self.data)}[/italic]",
            soft_wrap=True,
            highlight=False,
        )
        table = Table()
        table.add_column("figure")
        for side in self.sides:
            table.add_column(escape(side.name), justify="right")
        for name in self.sides[0].figures:
            table.add_row(escape(name), *(f"{side.figures[name]:.4f}" for side in self.sides))
        console.print(table)
        for note in self.notes:
            console.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)


def evaluate(
    bundle: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model: ModelLike | None = None,
    inputs: Any = None,
    *,
    data: str | os.PathLike[str],
    images: str | os.PathLike[str],
    metric: str | Metric | None = None,
    samples: int | None = None,
    batch: int = 1,
    boxes: str | os.PathLike[str] | None = None,
    peak: float | None = None,
    preprocess: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measure how good the results of bundles are.

    Args:
        bundle: a ``Bundle`` or its folder; several are put side by side.
        model: the eager model, as ``graphforge.compile`` takes it; None leaves eager out.
        inputs: the example call of ``model``; None is what the bundle's manifest records.
        data: an annotation file of COCO's form, a text file of pictures and labels, or a folder of pictures as they
            should be (or of the classes of their pixels), under the names of those in ``images``.
        images: the folder of the pictures.
        metric: ``bbox``, ``keypoints``, ``top``, ``miou``, ``psnr``, ``FILE.py:Class``, or an object with ``record``
            and ``figures``; None is what the data and the outputs are for.
        samples: the first so many pictures only.
        batch: so many at once, where the bundle takes that.
        boxes: for a bundle that looks at boxes: a detector's, in the file of results that COCO's tools write; None
            takes those that are annotated.
        peak: for ``psnr``, what the brightest pixel is in the model's output; None takes it from the pre-processing.
        preprocess: a TOML file of steps, in place of those that the bundle brings.
        resume: a folder of what is done, so that a run that ended early goes on where it was.
        seed: of the random inputs that the eager model is prepared with.
        progress: called with what is done next.

    Raises:
        GraphForgeError: the data is not what it should be, or the outputs are not what the metric looks at.
    """
    from graphforge.evaluation.evaluate import evaluate_side

    begin = progress or (lambda step: None)
    folders = [Path(bundle)] if isinstance(bundle, str | os.PathLike) else [Path(one) for one in bundle]
    if not folders:
        raise UsageError("no bundle is given")
    if samples is not None and samples < 1:
        raise UsageError(f"{argument('samples')}: expected a whole number above 0, got {samples}")
    if batch < 1:
        raise UsageError(f"{argument('batch')}: expected a whole number above 0, got {batch}")
    from graphforge.verbs.admitting import admitted

    begin("load")
    sides: list[tuple[str, PictureModel, Runner]] = []
    files = [file for folder in folders for file in onnx_files_of(folder, read_bundle(folder))]
    with ExitStack() as running:
        running.enter_context(admitted(files))
        if model is not None:
            eager = _eager(model, inputs, folders[0], seed)
            running.callback(eager.close)
            sides.append(("eager", _model(folders[0], eager, preprocess), eager))
        for folder in folders:
            runner = _runner(folder)
            running.callback(runner.close)
            sides.append((str(folder), _model(folder, runner, preprocess), runner))
        name, chosen, looked_at, notes = _chosen(
            metric,
            Path(data),
            Path(images),
            samples,
            sides[-1][1],
            folders[-1],
            peak,
            None if boxes is None else Path(boxes),
        )
        about = {"data": str(Path(data).resolve()), "metric": name, "peak": peak}
        about |= {} if boxes is None else {"boxes": str(Path(boxes).resolve())}
        kept = None if resume is None else _folder(Path(resume))
        done = [
            evaluate_side(
                side,
                runs,
                looked_at,
                chosen,
                batch=batch,
                records=None if kept is None else kept / f"{number}-{_plain(side)}.jsonl",
                about={**about, "of": side},
                begin=begin,
            )
            for number, (side, runs, _) in enumerate(sides)
        ]
    return EvaluationReport(name, os.fspath(data), len(looked_at), tuple(done), notes)


def _model(folder: Path, runner: Runner, preprocess: str | os.PathLike[str] | None) -> PictureModel:
    from graphforge.runtime.model import PictureModel

    return PictureModel(folder, preprocess=preprocess, runner=runner)


def _runner(folder: Path) -> Runner:
    from graphforge.runners.custom_ops import runner_for
    from graphforge.targets import get_target

    manifest = read_bundle(folder)
    if holds_sdk_files(folder):
        return runner_for(folder / manifest["files"][0])
    target = get_target(manifest["target"]["name"])
    runner = target.runner(folder)
    if runner is None:
        raise GraphForgeError(
            f"a bundle for {target.name} cannot be run on this machine", target.runs_here(folder) or ""
        )
    return runner


def _eager(model: ModelLike, inputs: Any, folder: Path, seed: int) -> Runner:
    from graphforge.prepare import load, prepare, reference_runner

    if read_opened(folder).get("folded"):
        raise UsageError(
            f"bundle {str(folder)!r} does part of its pre-processing in its graph, and the eager model does not",
            "leave the model out, or evaluate a bundle that takes what the model takes",
        )
    loaded = load(model)
    if inputs is None and loaded.example is None and loaded.program is None:
        inputs = spec_of_manifest(read_opened(folder))
    return reference_runner(prepare(loaded, inputs, seed=seed))


def _chosen(
    metric: str | Metric | None,
    data: Path,
    images: Path,
    limit: int | None,
    model: PictureModel,
    folder: Path,
    peak: float | None,
    boxes: Path | None,
) -> tuple[str, Metric, list[Sample], tuple[str, ...]]:
    """The metric by its name, and the samples that it looks at."""
    from graphforge.evaluation.metric import metric_of_file
    from graphforge.evaluation.samples import read_coco, read_labels, read_pairs

    for path, what in ((data, "data"), (images, "images")):
        if not path.exists():
            raise UsageError(f"{argument(what)} {str(path)!r} does not exist")
    if not images.is_dir():
        raise UsageError(f"{argument('images')} {str(images)!r} is not a folder")
    if boxes is not None and not model.crops:
        raise UsageError(f"{argument('boxes')} is for bundles that look at boxes, and this one finds them itself")
    own = None if metric is None or metric in METRICS else metric
    name = metric if isinstance(metric, str) else type(metric).__name__
    kind = "pairs" if data.is_dir() else "coco" if data.suffix.lower() == ".json" else "labels"
    if metric is None:
        name = _guessed(kind, data, folder)
    if own is not None:
        found = metric_of_file(own) if isinstance(own, str) else own
        if kind == "coco":
            coco = read_coco(data)
            if not model.crops:
                return name, found, coco.pictures(images, limit), ()
            given = coco.boxes(images, limit) if boxes is None else coco.boxes_of_detector(boxes, images, limit)
            return name, found, given, ()
        return name, found, (read_pairs if kind == "pairs" else read_labels)(data, images, limit), ()
    wants = {"bbox": "coco", "keypoints": "coco", "top": "labels", "miou": "pairs", "psnr": "pairs"}[name]
    if wants != kind:
        raise UsageError(
            f"{argument('metric', name)} is for {_KINDS[wants]}, and {argument('data')} is {_KINDS[kind]}",
        )
    if kind == "coco":
        return _of_coco(name, data, images, limit, model, boxes)
    from graphforge.evaluation.pictures import MeanIoU, Restored, TopLabels

    if name == "top":
        return name, TopLabels(), read_labels(data, images, limit), ()
    looked_at = MeanIoU() if name == "miou" else Restored(model.steps, peak)
    return name, looked_at, read_pairs(data, images, limit), ()


_KINDS: Mapping[str, str] = {
    "coco": "an annotation file of COCO's form (.json)",
    "labels": "a text file of pictures and labels",
    "pairs": "a folder of pictures",
}


def _of_coco(
    name: str, data: Path, images: Path, limit: int | None, model: PictureModel, boxes: Path | None
) -> tuple[str, Metric, list[Sample], tuple[str, ...]]:
    from graphforge.evaluation.coco import Boxes, Keypoints, categories_of_labels
    from graphforge.evaluation.samples import read_coco

    coco = read_coco(data)
    notes = []
    if model.crops:
        if name != "keypoints":
            raise UsageError(f"{argument('metric', name)}: the bundle looks at boxes, and finds none")
        samples = coco.boxes(images, limit) if boxes is None else coco.boxes_of_detector(boxes, images, limit)
        if not samples:
            raise GraphForgeError(
                f"{str(data)!r} has no annotation with a box and keypoints"
                if boxes is None
                else f"{str(boxes)!r} has no box on these pictures"
            )
        whose = "that are annotated" if boxes is None else f"of {boxes}"
        notes.append(f"keypoints are looked for in the {len(samples)} boxes {whose}")
        every = [picture.image for picture in coco.pictures(images, limit)]
        return name, Keypoints(coco, model.dataset, (), every), samples, tuple(notes)
    categories, guessed = categories_of_labels(coco, model.dataset.classes)
    notes += [guessed] if guessed else []
    samples = coco.pictures(images, limit)
    if not samples:
        raise GraphForgeError(f"{str(data)!r} lists no images")
    metric = Boxes(coco, categories) if name == "bbox" else Keypoints(coco, model.dataset, categories)
    return name, metric, samples, tuple(notes)


def _guessed(kind: str, data: Path, folder: Path) -> str:
    """The metric that data of this kind and these outputs are for."""
    if kind == "labels":
        return "top"
    if kind == "pairs":
        raise UsageError(
            "a folder of pictures may be of what they should be, or of the classes of their pixels",
            f"say which: {argument('metric', 'psnr')} or {argument('metric', 'miou')}",
        )
    from graphforge.evaluation.samples import read_coco

    outputs = {one["name"].rpartition("_")[2] for one in read_opened(folder).get("outputs", ())}
    poses = bool(outputs & {"keypoints", "x"})  # simcc_x
    return "keypoints" if poses and any("keypoints" in one for one in read_coco(data).data["annotations"]) else "bbox"


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphForgeError(f"cannot make the folder {str(path)!r}: {error.strerror or error}") from None
    return path


def _counted(samples: int) -> str:
    return f"{samples} sample{'s' * (samples != 1)}"


def _plain(name: str) -> str:
    return "".join(one if one.isalnum() or one in "-_" else "_" for one in name).strip("_")[-80:]
