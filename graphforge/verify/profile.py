"""Latency of a bundle beside its eager model: both in turn, on the same inputs, with the same number of threads.

The two alternate run by run, so that whatever else the machine does meets both alike.  Timed is the call alone: from
inputs that lie in memory to outputs that lie in memory; making tensors from arrays and fresh copies of inputs is left
out on both sides.

Whoever waits for a processor is not slow: where a side had the processors for less than half of its time, the report
says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.collector import paused_collector
from graphforge.errors import GraphForgeError, UsageError
from graphforge.runners.arrays import Array, tensor_from_array
from graphforge.runners.eager import EagerRunner
from graphforge.runners.inputs import random_feeds
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner, usable_cpus
from graphforge.runners.recorded import spec_of_manifest
from graphforge.runners.runner import Runner
from graphforge.shown import Shown
from graphforge.spec import DTYPES, ShapeSpec, TensorSpec
from graphforge.verify.running import runner_of_file

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Latency", "ProfileReport", "profile", "waiting_note"]

# A side that computes all the time has at least one processor all the time; below this share it mostly waited.
_COMPUTING = 0.5
# Shorter measurements say nothing about shares: the clock of a process is read to a few microseconds.
_LONG_ENOUGH = 0.005


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of one side, in milliseconds."""

    name: str
    mean: float
    median: float
    minimum: float
    maximum: float
    p90: float
    p99: float
    frames_per_second: float

    @classmethod
    def of(cls, name: str, seconds: list[float], batch: int) -> Latency:
        """Summary of the runs; a run makes ``batch`` frames."""
        times = np.asarray(seconds) * 1e3
        return cls(
            name,
            float(times.mean()),
            float(np.median(times)),
            float(times.min()),
            float(times.max()),
            float(np.percentile(times, 90)),
            float(np.percentile(times, 99)),
            batch * 1e3 / float(times.mean()),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "name": self.name,
            "mean_ms": self.mean,
            "median_ms": self.median,
            "min_ms": self.minimum,
            "max_ms": self.maximum,
            "p90_ms": self.p90,
            "p99_ms": self.p99,
            "fps": self.frames_per_second,
        }


@dataclass(frozen=True, slots=True, repr=False)
class ProfileReport(Shown):
    """What was measured and how.

    Attributes:
        rows: one per side, eager first when it could be rebuilt.
        inputs: input name -> shape.
        batch: frames per run: the leading size of the first input.
        runs: timed runs of each side.
        warmup: untimed runs of each side before them.
        threads: threads of each side.
        notes: why a side is missing, one line each.
    """

    rows: tuple[Latency, ...]
    inputs: Mapping[str, tuple[int, ...]]
    batch: int
    runs: int
    warmup: int
    threads: int
    notes: tuple[str, ...] = ()

    @property
    def speedup(self) -> float | None:
        """Median latency of eager over that of the artifact; None when eager was not measured."""
        medians = {row.name: row.median for row in self.rows}
        if "eager" not in medians or len(medians) < 2:
            return None
        return medians["eager"] / next(median for name, median in medians.items() if name != "eager")

    def summary(self) -> str:
        """``eager 3.1 ms, ONNX Runtime 1.2 ms (median of 100), 2.58 times as fast``."""
        rows = ", ".join(f"{row.name} {row.median:.2f} ms" for row in self.rows)
        faster = "" if self.speedup is None else f", {_three_digits(self.speedup)} times as fast"
        return f"{rows} (median of {self.runs}){faster}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "latency": [row.to_dict() for row in self.rows],
            "speedup": self.speedup,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "batch": self.batch,
            "runs": self.runs,
            "warmup": self.warmup,
            "threads": self.threads,
            "notes": list(self.notes),
        }

    def render(self, console: Console) -> None:
        """Print the table."""
        from rich.markup import escape
        from rich.table import Table

        shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in self.inputs.items())
        table = Table(title=f"latency in ms, {shapes}", title_justify="left")
        for name in ("", "mean", "median", "min", "max", "p90", "p99", "FPS"):
            table.add_column(name, justify="right" if name else "left")
        for row in self.rows:
            numbers = (row.mean, row.median, row.minimum, row.maximum, row.p90, row.p99)
            table.add_row(row.name, *(f"{number:.3f}" for number in numbers), f"{row.frames_per_second:.1f}")
        console.print(table)
        console.print(
            f"{self.runs} runs of each in turn after {self.warmup} for warm-up, threads: {self.threads}, "
            f"batch: {self.batch}"
        )
        if self.speedup is not None:
            console.print(f"eager takes {_three_digits(self.speedup)} times as long (median)")
        for note in self.notes:
            console.print(f"note: {escape(note)}", highlight=False)


def profile(
    path: Path | str,
    manifest: Mapping[str, Any],
    eager: EagerRunner | None = None,
    *,
    runs: int = 100,
    warmup: int = 10,
    threads: int | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    notes: Sequence[str] = (),
    own: Runner | None = None,
) -> ProfileReport:
    """Measure an ONNX file, beside its eager model and beside what else runs it, where there is that.

    Args:
        path: the file.
        manifest: the manifest of the bundle it is in, empty for a bare file.
        eager: the eager model; None measures the file alone.
        runs: timed runs of each side.
        warmup: untimed runs before.
        threads: threads of each side; None takes every usable CPU.
        sizes: sizes of dynamic dims, by name; others stand as in the example.
        seed: of the random inputs.
        notes: what the report should say beside its own notes.
        own: what runs the bundle on its target's own runtime.

    Raises:
        GraphForgeError: the artifact does not run.
    """
    if runs < 1 or warmup < 0:
        raise UsageError(f"runs={runs}, warmup={warmup}: expected at least one timed run and no fewer than 0 before it")
    threads = usable_cpus() if threads is None else threads
    with runner_of_file(path, threads=threads, here=True) as artifact:
        feeds = _feeds(manifest, eager, artifact, sizes or {}, seed)
        sides: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {}
        if eager is not None:
            sides["eager"] = _eager_side(eager, feeds)
        if own is not None:
            sides[own.name] = _runner_side(own, feeds, threads)
        sides["onnxruntime"] = _artifact_side(artifact, feeds)
        seconds, busy = _measure(sides, eager, runs, warmup, threads)
    batch = next((array.shape[0] for array in feeds.values() if array.ndim), 1)
    rows = tuple(Latency.of(name, times, batch) for name, times in seconds.items())
    shapes = {name: tuple(array.shape) for name, array in feeds.items()}
    waited = [note for name, times in seconds.items() if (note := waiting_note(name, sum(times), busy[name], threads))]
    return ProfileReport(rows, shapes, batch, runs, warmup, threads, (*notes, *waited))


def waiting_note(name: str, seconds: float, busy: float, threads: int) -> str:
    """What to say of a side that mostly waited for a processor; empty for one that computed."""
    if seconds < _LONG_ENOUGH or busy >= _COMPUTING * seconds:
        return ""
    alone = "" if threads == 1 else ", or with one thread"
    return (
        f"{name} computed in {busy / seconds:.0%} of its time and waited for a processor in the rest: other work keeps "
        f"this machine busy, and these latencies are not the model's; measure again when it is idle{alone}"
    )


def _three_digits(ratio: float) -> str:
    """1853.89 as 1,850: more digits than a measurement has."""
    whole = len(str(int(ratio)))
    return f"{ratio:.{max(0, 3 - whole)}f}" if whole <= 3 else f"{round(ratio, 3 - whole):,.0f}"


def _feeds(
    manifest: Mapping[str, Any],
    eager: EagerRunner | None,
    artifact: OnnxRuntimeRunner,
    sizes: Mapping[str, int],
    seed: int,
) -> dict[str, Array]:
    if manifest:
        spec = spec_of_manifest(manifest)
        unknown = [name for name in sizes if name not in spec.dims]
        if unknown:
            raise UsageError(
                f"there is no dynamic dim {unknown[0]!r}", f"the bundle's are: {', '.join(spec.dims) or 'none'}"
            )
        like = eager.example() if eager is not None and not sizes else None
        return random_feeds(spec, {**spec.example_sizes(), **sizes}, like, seed=seed)
    if eager is not None:
        return eager.example()
    return random_feeds(_spec_of_session(artifact, sizes), {}, seed=seed)


def _spec_of_session(artifact: OnnxRuntimeRunner, sizes: Mapping[str, int]) -> ShapeSpec:
    """Inputs of a bare file; dynamic dims are 1 unless given."""
    names = {"float": "float32", "double": "float64"}
    inputs = []
    for value in artifact.session.get_inputs():
        plain = value.type.removeprefix("tensor(").removesuffix(")")
        if names.get(plain, plain) not in DTYPES:
            raise GraphForgeError(f"input {value.name!r} is {value.type}, and only tensors of numbers can be drawn")
        shape = tuple(dim if isinstance(dim, int) else sizes.get(dim or "", 1) for dim in value.shape)
        inputs.append(TensorSpec(value.name, shape, names.get(plain, plain)))
    return ShapeSpec(tuple(inputs))


def _eager_side(eager: EagerRunner, feeds: Mapping[str, Array]) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    import torch

    def fresh() -> Any:
        return eager.inputs.map_leaves(
            lambda name, leaf: tensor_from_array(feeds[name]) if isinstance(leaf, torch.Tensor) else leaf
        )

    def call(arguments: Any) -> Any:
        args, kwargs = arguments
        return eager.module(*args, **kwargs)

    return fresh, call


def _artifact_side(
    artifact: OnnxRuntimeRunner, feeds: Mapping[str, Array]
) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    mine = {name: feeds[name] for name in artifact.input_names if name in feeds}
    first = artifact.run(mine)  # failures are told once, in our words, before anything is timed
    if any(array.dtype.kind == "V" for array in (*mine.values(), *first.values())):
        return (lambda: mine), artifact.run  # bfloat16 goes through OrtValues
    session = artifact.session
    return (lambda: {name: np.array(array) for name, array in mine.items()}), (lambda given: session.run(None, given))


def _runner_side(
    runner: Runner, feeds: Mapping[str, Array], threads: int
) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    if hasattr(runner, "threads"):
        runner.threads = threads
    runner.run(feeds)  # it may be made ready on its first run, and failures are told in its words
    return (lambda: {name: np.array(array) for name, array in feeds.items()}), runner.run


def _measure(
    sides: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]],
    eager: EagerRunner | None,
    runs: int,
    warmup: int,
    threads: int,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every run of each side, and the processor time (of all threads) that all of them together took."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    busy = dict.fromkeys(sides, 0.0)
    with _conditions(eager, threads):
        for number in range(warmup + runs):
            for name, (fresh, call) in sides.items():
                arguments = fresh()
                busy_before = time.process_time()
                start = time.perf_counter()
                result = call(arguments)
                elapsed = time.perf_counter() - start
                worked = time.process_time() - busy_before
                del result
                if number >= warmup:
                    seconds[name].append(elapsed)
                    busy[name] += worked
    return seconds, busy


@contextmanager
def _conditions(eager: EagerRunner | None, threads: int) -> Iterator[None]:
    """Eval mode, no gradients, the threads asked for, no garbage collection in between; all put back afterwards."""
    with paused_collector():
        if eager is None:
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with eager.undisturbed():
                yield
        finally:
            torch.set_num_threads(before)
