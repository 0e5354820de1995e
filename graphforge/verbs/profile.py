"""`graphforge.profile`: latency of a bundle beside its eager model or other bundles, measured interleaved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.prepare import ModelLike, load, prepare, reference_runner
from graphforge.runners.recorded import locate_artifact, onnx_files_of, spec_of_manifest
from graphforge.runtime.opened import read_opened
from graphforge.verbs.admitting import admitted

if TYPE_CHECKING:
    from graphforge.evaluation.timing import TimingReport
    from graphforge.journal import Progress
    from graphforge.runners.eager import EagerRunner
    from graphforge.runners.runner import Runner
    from graphforge.verify.modules import ModuleCosts
    from graphforge.verify.profile import ProfileReport

__all__ = ["profile", "profile_layers", "profile_on_pictures"]


def profile(
    bundle: str | os.PathLike[str],
    model: ModelLike | None = None,
    inputs: Any = None,
    *,
    runs: int = 100,
    warmup: int = 10,
    threads: int | None = None,
    sizes: Mapping[str, int] | None = None,
    shape: tuple[int, int] | None = None,
    seed: int = 0,
) -> ProfileReport:
    """Measure a bundle (or an ONNX file), beside its eager model where that is given.

    Args:
        bundle: a ``Bundle`` or its folder, or an ONNX file.
        model: the eager model, as ``graphforge.compile`` takes it; None leaves eager out.
        inputs: the example call of ``model``; None is what the bundle's manifest records.
        runs: timed runs of each side.
        warmup: untimed runs before.
        threads: threads of each side; None takes every usable CPU.
        sizes: sizes of dynamic dims, by name; others stand as in the example.
        shape: height and width of the pictures that the first input takes; the same said of its last two dims.
        seed: of the random inputs.

    Raises:
        GraphForgeError: there is no such bundle, or the artifact does not run.
    """
    from graphforge.verify.profile import profile as measure

    path, manifest = locate_artifact(Path(bundle))
    notes: list[str] = []
    eager = None
    if model is not None:
        eager = _eager(model, inputs, manifest, seed)
    else:
        notes.append(_left_out(manifest))
    if shape is not None:
        sizes = {**(sizes or {}), **_sizes_of_shape(manifest, shape)}
    how: dict[str, Any] = {"runs": runs, "warmup": warmup, "threads": threads, "sizes": sizes, "seed": seed}
    with ExitStack() as running:
        because = running.enter_context(admitted([path]))
        notes += [because] if because else []
        own = _own_runner(Path(bundle), manifest)
        if own is not None:
            running.callback(own.close)
        return measure(path, manifest, eager, notes=notes, own=own, **how)


def profile_on_pictures(
    bundle: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    images: str | os.PathLike[str],
    *,
    shape: tuple[int, int] | None = None,
    runs: int = 100,
    warmup: int = 10,
    batch: int = 1,
    threads: int = 0,
    preprocess: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TimingReport:
    """Measure bundles in turn on pictures of a folder: the model alone, and with pre- and post-processing.

    Args:
        bundle: a ``Bundle`` or its folder; several stand in one table.
        images: the folder, of which pictures are drawn.
        shape: height and width that pictures must come to.
        runs: timed runs of each.
        warmup: untimed runs before.
        batch: pictures at once.
        threads: threads of each; 0 takes every CPU.
        preprocess: a TOML file of steps, in place of those that the bundles bring.
        seed: of the drawing.
        progress: called with what is done next.

    Raises:
        GraphForgeError: a bundle does not say what becomes of a picture, or nothing here runs it.
    """
    from graphforge.evaluation.timing import time_on_pictures
    from graphforge.runtime.model import PictureModel

    folders = [bundle] if isinstance(bundle, str | os.PathLike) else list(bundle)
    names = [os.fspath(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"bundle {next(one for one in names if names.count(one) > 1)!r} is given twice")
    with ExitStack() as running:
        models = {}
        files = [file for name in names for file in onnx_files_of(Path(name), read_opened(Path(name)))]
        running.enter_context(admitted(files))
        for name in names:
            runner = _own_runner(Path(name), read_opened(Path(name)))
            if runner is not None:
                running.callback(runner.close)
            models[name] = PictureModel(name, preprocess=preprocess, threads=threads, runner=runner)
        return time_on_pictures(
            models,
            Path(images),
            shape=shape,
            iterations=runs,
            warmup=warmup,
            batch=batch,
            threads=threads,
            seed=seed,
            begin=progress or (lambda step: None),
        )


def _sizes_of_shape(manifest: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, int]:
    """The sizes of the dims that a height and a width are.

    Raises:
        UsageError: the bundle fixes another, or does not promise it.
    """
    spec = spec_of_manifest(manifest)
    if not spec.inputs or len(spec.inputs[0].shape) < 2:
        raise UsageError(f"{argument('shape')} is for bundles, whose first input takes pictures")
    first = spec.inputs[0]
    sizes = {}
    for axis, side in zip((len(first.shape) - 2, len(first.shape) - 1), shape, strict=True):
        dim = first.dims.get(axis)
        if side != first.shape[axis] if dim is None else side not in dim:
            takes = str(first.shape[axis]) if dim is None else f"{dim.low}..{dim.high} in steps of {dim.step}"
            raise UsageError(f"{argument('shape')}: input {first.name!r} takes {takes} on axis {axis}, not {side}")
        if dim is not None:
            sizes[dim.name] = side
    return sizes


def profile_layers(
    bundle: str | os.PathLike[str],
    inputs: Any = None,
    *,
    runs: int = 20,
    warmup: int = 5,
    threads: int | None = None,
    depth: int | None = None,
    seed: int = 0,
) -> ModuleCosts:
    """Where ONNX Runtime spends its time: its own profile, lined up with the model's modules.

    Args:
        bundle: a ``Bundle`` or its folder, or an ONNX file.
        inputs: data or shapes; None is what the bundle's manifest records.
        runs: profiled runs.
        warmup: runs before.
        threads: threads; None takes every usable CPU.
        depth: modules are cut to so many parts of their path.
        seed: of the random inputs.

    Raises:
        GraphForgeError: there is no such bundle, or the artifact does not run.
    """
    from graphforge.onnx_io.importing import as_written
    from graphforge.onnx_io.origins import read_origins
    from graphforge.verify.modules import costs_of
    from graphforge.verify.times import node_seconds

    path, manifest = locate_artifact(Path(bundle))
    prepared = prepare(path, spec_of_manifest(manifest) if inputs is None and manifest else inputs, seed=seed)
    with admitted([path]):
        seconds = node_seconds(path, prepared.feeds, runs=runs, warmup=warmup, threads=threads)
    model = as_written(path)
    for node in model.graph.all_nodes():
        read_origins(node)
    return costs_of(model, depth=depth, sizes=prepared.shapes.example_sizes(), seconds=seconds)


def _own_runner(folder: Path, manifest: Mapping[str, Any]) -> Runner | None:
    """What runs the bundle here, where that is another runtime than ONNX Runtime."""
    from graphforge.targets import get_target

    if not manifest or manifest["files"][0].endswith(".onnx"):
        return None
    target = get_target(manifest["target"]["name"])
    return None if target.runs_here(folder) else target.runner(folder)


def _left_out(manifest: Mapping[str, Any]) -> str:
    """Why eager is missing.  What a manifest says of its model is shown, never imported: anybody may write one."""
    spec = manifest.get("model", {}).get("spec")
    recorded = f"; the manifest records {spec!r}" if spec else ""
    return f"eager is left out: give the model that it was compiled from to measure it as well{recorded}"


def _eager(model: ModelLike, inputs: Any, manifest: Mapping[str, Any], seed: int) -> EagerRunner:
    from graphforge.runners.eager import EagerRunner

    if manifest.get("folded"):
        raise UsageError(
            "the bundle does part of its pre-processing in its graph, and the eager model does not",
            "leave the model out, or measure a bundle that takes what the model takes",
        )
    loaded = load(model)
    if loaded.onnx_path is not None:
        raise GraphForgeError(
            f"{loaded.spec!r} is an ONNX file and not an eager model",
            "give the PyTorch model that it was compiled from",
        )
    if inputs is None and loaded.example is None and loaded.program is None and manifest:
        inputs = spec_of_manifest(manifest)
    runner = reference_runner(prepare(loaded, inputs, seed=seed))
    assert isinstance(runner, EagerRunner)
    return runner
