"""Latency of models on pictures of a folder: of the model alone, and with what comes before and after it.

All models see the same picture in turn, so that whatever else the machine does meets them alike.  Reading the file is
left out; the whole is from its pixels to detections on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.runtime.detections import detections_of
from graphforge.runtime.files import Array, is_picture
from graphforge.runtime.model import PictureModel, Row, pixels_of_picture
from graphforge.shown import Shown
from graphforge.verify.profile import Latency, waiting_note

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["TimingReport", "time_on_pictures"]

# Pictures that are kept in memory; of more, these are drawn.
_MOST_PICTURES = 200
_RUNNING_MEANS = 10


@dataclass(frozen=True, slots=True)
class _Side:
    """What was measured of one model: itself, with all around it, and the running means of itself."""

    model: Latency
    whole: Latency
    running: tuple[tuple[int, float], ...]
    shape: str


@dataclass(frozen=True, slots=True, repr=False)
class TimingReport(Shown):
    """Settings and results.

    Attributes:
        sides: one for each model.
        batch: pictures at once.
        iterations: timed runs of each.
        warmup: untimed runs of each before them.
        threads: of each; 0 is every CPU.
        images: the folder of the pictures.
        notes: what the user should know.
    """

    sides: tuple[_Side, ...]
    batch: int
    iterations: int
    warmup: int
    threads: int
    images: str
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """``out/a 8.73 ms, out/b 9.05 ms (median of 200)``."""
        rows = ", ".join(f"{side.model.name} {side.model.median:.2f} ms" for side in self.sides)
        return f"{rows} (median of {self.iterations})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "settings": {
                "batch": self.batch,
                "iterations": self.iterations,
                "warmup": self.warmup,
                "threads": self.threads,
                "images": self.images,
            },
            "results": [
                {
                    "name": side.model.name,
                    "shape": side.shape,
                    "model": side.model.to_dict(),
                    "whole": side.whole.to_dict(),
                    "running": [{"runs": count, "mean_ms": mean} for count, mean in side.running],
                }
                for side in self.sides
            ],
            "notes": list(self.notes),
        }

    def render(self, console: Console) -> None:
        """Print the running means, the settings and the results, in the order of MMDeploy's profiler."""
        from rich.markup import escape
        from rich.table import Table

        names = [escape(side.model.name) for side in self.sides]
        running = Table()
        running.add_column("runs", justify="right")
        for name in names:
            running.add_column(name, justify="right")
        for line in zip(*(side.running for side in self.sides), strict=True):
            running.add_row(str(line[0][0]), *(f"{mean:.2f}" for _, mean in line))
        settings = Table(show_header=False)
        for key, value in (
            ("batch size", str(self.batch)),
            ("shape", ", ".join(dict.fromkeys(side.shape for side in self.sides))),
            ("iterations", str(self.iterations)),
            ("warmup", str(self.warmup)),
            ("threads", str(self.threads or "every CPU")),
        ):
            settings.add_row(key, escape(value))
        results = Table()
        results.add_column("")
        for column in ("mean", "median", "min", "max", "p90", "p99", "FPS"):
            results.add_column(column, justify="right")
        for side in self.sides:
            for row, what in ((side.model, "model"), (side.whole, "with pre- and post-processing")):
                numbers = (row.mean, row.median, row.minimum, row.maximum, row.p90, row.p99, row.frames_per_second)
                results.add_row(escape(f"{row.name}, {what}"), *(f"{number:.3f}" for number in numbers))
        for heading, table in (("Running means in ms:", running), ("Settings:", settings), ("Latency in ms:", results)):
            console.print(heading)
            console.print(table)
        for note in self.notes:
            console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)


def time_on_pictures(
    models: Mapping[str, PictureModel],
    images: Path,
    *,
    shape: tuple[int, int] | None = None,
    iterations: int = 100,
    warmup: int = 10,
    batch: int = 1,
    threads: int = 0,
    seed: int = 0,
    begin: Callable[[str], None],
) -> TimingReport:
    """Measure models in turn on pictures drawn from a folder.

    Args:
        models: by name.
        images: the folder.
        shape: height and width that the prepared pictures must have; None takes them as they come.
        iterations: timed runs of each.
        warmup: untimed runs before.
        batch: pictures at once.
        threads: which the models were made with, for the report.
        seed: of the drawing.
        begin: told of progress.

    Raises:
        GraphForgeError: the folder contains no pictures, or a model does not run.
    """
    if iterations < 1 or warmup < 0:
        raise UsageError(
            f"{iterations} timed runs after {warmup}: expected at least one, and no fewer than 0 before it"
        )
    pictures = _pictures(images, seed)
    for name, model in models.items():
        _check(name, model, pictures[0], shape, batch)
    alone: dict[str, list[float]] = {name: [] for name in models}
    whole: dict[str, list[float]] = {name: [] for name in models}
    draw = np.random.default_rng(seed)
    sizes: dict[str, set[str]] = {name: set() for name in models}
    busy = dict.fromkeys(models, 0.0)
    for number in range(warmup + iterations):
        if number % max((warmup + iterations) // 20, 1) == 0:
            begin(f"run {number + 1} of {warmup + iterations}")
        chosen = [pictures[index] for index in draw.integers(0, len(pictures), batch)]
        for name, model in models.items():
            before = time.process_time()
            rows, times = _once(model, chosen)
            if number >= warmup:
                busy[name] += time.process_time() - before
                alone[name].append(times[1])
                whole[name].append(sum(times))
                sizes[name].add(f"{rows[0].size[1]}x{rows[0].size[0]}")
    sides = tuple(
        _Side(
            Latency.of(name, alone[name], batch),
            Latency.of(name, whole[name], batch),
            _running(alone[name]),
            " and ".join(sorted(sizes[name])[:3]),
        )
        for name in models
    )
    notes = [
        f"{name} runs {model.batch_of(batch)} pictures at a time, of which {batch} count"
        for name, model in models.items()
        if model.batch_of(batch) > batch
    ]
    notes += [note for name in models if (note := waiting_note(name, sum(whole[name]), busy[name], threads))]
    return TimingReport(sides, batch, iterations, warmup, threads, str(images), tuple(notes))


def _once(model: PictureModel, pictures: Sequence[Array]) -> tuple[Sequence[Row], tuple[float, float, float]]:
    """Seconds before, in and after one run."""
    start = time.perf_counter()
    rows = [model.row(pixels) for pixels in pictures]
    ready = time.perf_counter()
    outputs = model.run(rows)
    ran = time.perf_counter()
    for found, row in zip(detections_of(outputs, rows[0].size) or (), rows, strict=False):
        found.on_picture(row.placement, row.picture, row.size)
    return rows, (ready - start, ran - ready, time.perf_counter() - ran)


def _check(name: str, model: PictureModel, pixels: Array, shape: tuple[int, int] | None, batch: int) -> None:
    if batch > model.most:
        raise UsageError(f"{argument('batch', batch)}: {name} takes {model.most} pictures at once")
    size = model.row(pixels).size
    if shape is not None and (size[1], size[0]) != shape:
        raise UsageError(
            f"{argument('shape', f'{shape[0]}x{shape[1]}')}: the pre-processing of {name} makes {size[1]}x{size[0]} "
            "of a picture (height x width)",
            "leave it out, or give a list of steps for that size",
        )
    model.run([model.row(pixels)] * batch)  # failures are told once, before anything is timed


def _pictures(folder: Path, seed: int) -> list[Array]:
    if not folder.is_dir():
        raise UsageError(f"{argument('images')} {str(folder)!r} is not a folder")
    paths = sorted(path for path in folder.iterdir() if is_picture(path))
    if not paths:
        raise GraphForgeError(f"{str(folder)!r} contains no pictures")
    if len(paths) > _MOST_PICTURES:
        paths = [paths[index] for index in np.random.default_rng(seed).permutation(len(paths))[:_MOST_PICTURES]]
    return [pixels_of_picture(path) for path in paths]


def _running(seconds: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """The mean of the first runs, at some counts of them."""
    counts = sorted({max(1, round(len(seconds) * part / _RUNNING_MEANS)) for part in range(1, _RUNNING_MEANS + 1)})
    times = np.cumsum(seconds)
    return tuple((count, float(times[count - 1] / count * 1e3)) for count in counts)
